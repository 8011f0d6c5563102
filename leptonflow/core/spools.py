"""An array in a file without a name: rows that do not fit into memory, gathered from it again and again.

The file goes with the last use of the array, and with the process, however that ends. What its rows are does not belong
here.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS = 1024  # gathered before their pages are given back: the kernel maps 64 KB around each


def folder() -> str:
    """Where the file lies: TMPDIR, or the system's folder of temporary files."""
    return tempfile.gettempdir()


def create(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Such an array, not filled. Raises OSError where the disk has no room: it is taken now, and not at a write."""
    import numpy as np

    size = prod(shape) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(prefix="leptonflow-") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "r+", shape=shape)


def release(rows: NDArray[Any]) -> None:
    """Give back the memory of what was read or written of such an array; the file keeps it. Else it does nothing."""
    mapped = getattr(rows, "_mmap", None)  # NumPy's, of a memmap and its views
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def gather(rows: NDArray[Any], numbers: NDArray[np.int64], out: NDArray[Any]) -> None:
    """The rows with these numbers into `out`, whether they lie in memory or in such an array."""
    import numpy as np

    chunk = ROWS if getattr(rows, "_mmap", None) is not None else max(1, len(numbers))
    for start in range(0, len(numbers), chunk):
        # With another mode NumPy would copy all of it once more.
        np.take(rows, numbers[start : start + chunk], axis=0, out=out[start : start + chunk], mode="clip")
        release(rows)

"""An array in a file without a name: rows that do not fit into memory, gathered from it again and again.

The file goes with the last use of the array, and with the process, however that ends. What its rows are does not belong
here.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAPPED = 128 << 20  # bytes of the file that are in memory at once, about
AROUND = 2 << 20  # what the kernel maps with a row that is read, at most (Linux 6.18: the whole folio)


def folder() -> str:
    """Where the file lies: TMPDIR, or the system's folder of temporary files."""
    return tempfile.gettempdir()


def write(pieces: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """(N, *shape): the rows of the pieces, one after another. Read-only. Raises OSError where the disk is full."""
    import numpy as np

    count = 0
    with tempfile.TemporaryFile(prefix="leptonflow-") as file:
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype).data)
            count += len(piece)
        file.flush()
        return np.memmap(file, dtype, "r", shape=(count, *shape)) if count else np.empty((0, *shape), dtype)


def ordered(rows: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    """The rows of such an array in that order, as another. Raises OSError where the disk is full."""
    import numpy as np

    def pieces() -> Iterable[NDArray[Any]]:
        for start in range(0, len(order), _chunk(rows)):
            numbers = order[start : start + _chunk(rows)]
            piece = np.empty((len(numbers), *rows.shape[1:]), rows.dtype)
            gather(rows, numbers, piece)
            yield piece

    return write(pieces(), rows.shape[1:], rows.dtype)


def release(rows: NDArray[Any]) -> None:
    """Give back the memory of what was read of such an array; the file keeps it. Of another it does nothing."""
    mapped = _mapping(rows)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def gather(rows: NDArray[Any], numbers: NDArray[np.int64], out: NDArray[Any]) -> None:
    """The rows with these numbers into `out`, whether they lie in memory or in such an array."""
    import numpy as np

    chunk = _chunk(rows) if _mapping(rows) is not None else max(1, len(numbers))
    for start in range(0, len(numbers), chunk):
        # With another mode NumPy would copy all of it once more.
        np.take(rows, numbers[start : start + chunk], axis=0, out=out[start : start + chunk], mode="clip")
        release(rows)


def _mapping(rows: NDArray[Any]) -> Any:
    """NumPy's mapping of the file, of such an array and its views; None of another."""
    return getattr(rows, "_mmap", None)


def _chunk(rows: NDArray[Any]) -> int:
    return max(1, MAPPED // max(AROUND, prod(rows.shape[1:]) * rows.dtype.itemsize))

"""How one image is read and checked: the same for a file, a row of an array and a served request."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Examined, Malformed
from leptonflow.workloads.media.image.scale import Scale
from schemas.errors import TrainingError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Shape = tuple[int, int, int]  # height, width, channels: the section `input`


def examine(data: bytes, shape: Shape) -> Examined:
    from leptonflow.workloads.media.image import example

    return example.examine(data, shape)


def examine_array(row: NDArray[Any], shape: Shape, source: Scale) -> Examined:
    from leptonflow.workloads.media.image import example

    return example.examine_array(row, shape, source)


def encode_accepted(data: bytes, shape: Shape) -> bytes | None:
    from leptonflow.workloads.media.image import example

    return example.encode_accepted(data, shape)


def request(data: bytes, shape: Shape) -> NDArray[np.uint8]:
    from leptonflow.workloads.media.image import example

    return example.request(data, shape)


def encoding(shape: Shape) -> Shape:
    """All of the input changes an encoded image."""
    return shape


def arrow(shape: Shape) -> pa.DataType:
    """uint8 pixels in C order, as fixed-size binary."""
    import pyarrow as pa

    return pa.binary(prod(shape))


def read(column: pa.Array, shape: Shape) -> NDArray[np.uint8]:
    """N x H x W x C, a view of the column's own memory."""
    import numpy as np

    width = column.type.byte_width
    flat = np.frombuffer(column.buffers()[1], np.uint8)
    return flat[column.offset * width : (column.offset + len(column)) * width].reshape(-1, *shape)


def empty(count: int, shape: Shape) -> NDArray[np.uint8]:
    """N x H x W x C, not filled."""
    import numpy as np

    return np.empty((count, *shape), np.uint8)


def stack(encoded: Sequence[bytes], shape: Shape) -> NDArray[np.uint8]:
    """The encoded images as N x H x W x C."""
    import numpy as np

    return np.frombuffer(b"".join(encoded), np.uint8).reshape(-1, *shape)


def raw(pixels: NDArray[np.uint8]) -> list[bytes]:
    """The encoded bytes of each of N x H x W x C images."""
    return [each.tobytes() for each in pixels]


def size(shape: Shape) -> int:
    """Bytes of one image."""
    return prod(shape)


def encode(pixels: NDArray[Any], vocabulary: str | None, shape: Shape) -> NDArray[np.uint8]:
    """The images themselves, N x H x W x C of uint8: normalisation is a layer of the model. Raises TrainingError."""
    if tuple(pixels.shape[1:]) != tuple(shape) or pixels.dtype != "uint8":
        raise TrainingError(
            "the model does not take these examples",
            expected=f"N x {' x '.join(map(str, shape))} pixels of uint8",
            received=f"shape {tuple(pixels.shape)} of {pixels.dtype}",
        )
    return pixels


def malformed(shape: Shape) -> Malformed:
    """Arrays of other shapes and types, and bytes that are no image."""
    import numpy as np

    height, width, channels = shape
    right = np.zeros((1, *shape), np.uint8)
    arrays: dict[str, NDArray[Any]] = {
        "an array of another height": np.zeros((1, height + 1, width, channels), np.uint8),
        "an array of other channels": np.zeros((1, height, width, channels + 1), np.uint8),
        "an array without its first axis": right[0],
        "an array of floats": right.astype(np.float32),
    }
    return Malformed(arrays, {"an empty file": b"", "a file that is not an image": b"this is no image"})

"""How one image is read and checked: the same for a file, a row of an array and a served request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Examined
from leptonflow.workloads.media.image.scale import Scale

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def examine(data: bytes, shape: tuple[int, int, int]) -> Examined:
    from leptonflow.workloads.media.image import example

    return example.examine(data, shape)


def examine_array(row: NDArray[Any], shape: tuple[int, int, int], source: Scale) -> Examined:
    from leptonflow.workloads.media.image import example

    return example.examine_array(row, shape, source)


def encode_accepted(data: bytes, shape: tuple[int, int, int]) -> bytes | None:
    from leptonflow.workloads.media.image import example

    return example.encode_accepted(data, shape)


def request(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    from leptonflow.workloads.media.image import example

    return example.request(data, shape)

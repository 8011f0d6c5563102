"""Room in memory for one image: refused by its header where it needs too much, large ones one at a time.

What does not belong here: the number of pixels that any image may have (decode).
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from leptonflow.core import machine
from schemas.settings import image_memory

if TYPE_CHECKING:
    from PIL.Image import Image

LARGE = 256 << 20  # bytes: what needs less is decoded beside others

# Bytes for each pixel at the peak of decoding, hashing and encoding, as measured; files and arrays apart.
_NEEDS = {"1": 8, "L": 8, "P": 26, "PA": 26, "RGB": 14, "CMYK": 20, "I;16": 12, "I": 16, "F": 44}
_MOST = 24  # with transparency
_WEBP = 8  # more: its decoder has a canvas of its own


def needs(image: Image) -> int:
    """The bytes of memory that an opened image needs, by its width, height and channels."""
    width, height = image.size
    each = _NEEDS.get(image.mode, _MOST) + (_WEBP if image.format == "WEBP" else 0)
    return width * height * each


def complaint(image: Image) -> str | None:
    """Why there is no room for an opened image: LEPTONFLOW_IMAGE_MEMORY, or half of what this process may use."""
    need = needs(image)
    if need < LARGE:
        return None
    bound, half = image_memory(), machine.memory() // 2
    if need <= min(bound, half):
        return None
    width, height = image.size
    said = f"{width} x {height} in {image.mode} need about {_mb(need)} to decode"
    if bound <= half:
        return f"{said}; {_mb(bound)} at most (LEPTONFLOW_IMAGE_MEMORY)"
    return f"{said}; {_mb(half)} at most, half of the memory that this machine or container grants"


def is_large(image: Image) -> bool:
    """Whether an opened image needs so much that others have to wait."""
    return needs(image) >= LARGE


@contextmanager
def alone() -> Iterator[None]:
    """A block that one process at a time is in, of all that run this program."""
    with open(__file__, "rb") as turn:  # any file that all of them can open; closing it ends the turn
        with suppress(OSError):  # a file system without locks
            fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"

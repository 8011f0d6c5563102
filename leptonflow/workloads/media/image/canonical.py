"""The id of an image: the sha256 of its canonical form, the same for the same picture in whatever file it comes.

The canonical form is the smallest one that loses nothing: 1-bit and 16-bit values that 8 bits can say are 8-bit,
opaque alpha is dropped, R = G = B is one grey channel. Colour under an alpha of 0 counts as 0: nobody sees it.
Alpha that is not opaque is part of the id. What does not belong here: decoding (decode), and the pixels that are
trained on, which this form never touches.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_PROBE = 64  # pixels that tell nearly every colour image from a grey one


def of_image(image: Image, pixels: bytes | None = None) -> str:
    """A decoded image, orientation and palette applied -> 64 hex digits. `pixels`: its own bytes, where at hand.

    Of 8 bits a channel, or fewer: wider ones are values. Modes without a form of their own, such as CMYK, count as
    the RGB that they are shown as.
    """
    import numpy as np

    mode = image.mode
    if mode in ("L", "RGB"):
        return _of_bytes(mode, image.size, image.tobytes() if pixels is None else pixels)
    shown = {"1": "L", "La": "LA", "LA": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}.get(mode, "RGB")
    plain = image if mode == shown else image.convert(shown)
    return of_values(np.asarray(plain), 255) if shown.endswith("A") else _of_bytes(shown, plain.size, plain.tobytes())


def of_values(values: NDArray[Any], top: float) -> str:
    """H x W or H x W x C values in 0..top, C in 1 to 4 (grey, grey and alpha, RGB, RGBA) -> 64 hex digits."""
    import numpy as np

    values, white = _smallest(values, top)
    height, width = values.shape[:2]
    values = values.reshape(height, width, -1)
    if values.shape[2] in (2, 4):
        alpha = values[:, :, -1:]
        values = values[:, :, :-1] if (alpha == white).all() else values * (alpha != 0)
    if values.shape[2] > 2 and (values[:, :, :1] == values[:, :, 1:3]).all():
        values = np.delete(values, (1, 2), axis=2)
    return _sha256(_MODES[values.shape[2]], values.dtype.str[1:], (width, height), np.ascontiguousarray(values).data)


def _of_bytes(mode: str, size: tuple[int, int], pixels: bytes) -> str:
    """L or RGB of 8 bits: what nearly every image is, without an array."""
    if mode == "RGB" and _is_grey(pixels[: 3 * _PROBE]) and _is_grey(pixels):
        mode, pixels = "L", pixels[::3]
    return _sha256(mode, "u1", size, pixels)


def _is_grey(pixels: bytes) -> bool:
    red = pixels[::3]
    return red == pixels[1::3] and red == pixels[2::3]


def _smallest(values: NDArray[Any], top: float) -> tuple[NDArray[Any], float]:
    """The same values in 8 bits where those can say them, else in 16, else as floats in 0..1; and what is white."""
    import numpy as np

    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), 255
    if top == 255 and values.dtype.kind in "ui":
        return values.astype(np.uint8), 255
    if top == 65535 and values.dtype.kind in "ui":
        small, rest = np.divmod(values, 257)
        return (values.astype("<u2"), 65535) if rest.any() else (small.astype(np.uint8), 255)
    # What was divided by 255 or 65535 has the rounding of its own type.
    rounding = max(float(np.finfo(values.dtype).eps) if values.dtype.kind == "f" else 0.0, 2.0**-22)
    for white, kind in ((255, "u1"), (65535, "<u2")):
        scaled = values.astype(np.float64) * (white / top)
        whole = np.rint(scaled)
        if white * rounding < 0.3 and float(np.abs(scaled - whole).max(initial=0.0)) <= white * rounding:
            return whole.astype(kind), white
    return (values.astype(np.float64) / top).astype("<f4"), 1


def _sha256(mode: str, kind: str, size: tuple[int, int], pixels: bytes | memoryview) -> str:
    # What is 8-bit L or RGB had the same id before there was a canonical form.
    name = mode if kind == "u1" else f"{mode};{kind}"
    state = hashlib.sha256(f"{name} {size[0]}x{size[1]}\n".encode())
    state.update(pixels)
    return state.hexdigest()

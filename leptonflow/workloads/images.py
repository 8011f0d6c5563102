"""One image: from hostile bytes, or a row of an array, to an id, facts and train-ready pixels.

`examine` and `request` share every step, so that what is served is exactly what was trained on:

1. Refuse from the header alone: another format, a side under 2 pixels, more than 64 megapixels.
2. Decode the first frame, apply the EXIF orientation, the palette and a colour key.
3. The id: sha256 of the canonical form (canonical), which the same picture has in whatever file it comes.
4. To 8 bits (16-bit by 257, floats as in `_floats`), alpha over white, then grey or colour.
5. Resize with Pillow's antialiased bilinear filter. The aspect ratio is not kept.

What does not belong here: labels, files, stores and anything of Keras.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from leptonflow.workloads import Examined, canonical
from schemas.errors import LeptonflowError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
LEAST_SIDE = 2
MOST_PIXELS = 64_000_000

Shape = tuple[int, int, int]  # height, width, channels of the pipeline's input

_EXIF = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_ORIENTATION = 0x0112
# Only what Pillow itself warns of (bombs, odd metadata); every such image gets a rule or is read.
_SILENT: Any = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class _Refused(Exception):
    """An image that breaks a rule. Does not leave this module."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


def examine(data: bytes, shape: Shape) -> Examined:
    """A file's bytes -> Examined. Refuses by empty-file, unreadable-image, too-small, too-large, not-finite."""
    try:
        image, kind = _decode(data)
        return _examined(image, shape, kind, len(data))
    except _Refused as refused:
        return Examined(refused.rule, refused.reason)


def examine_array(row: NDArray[Any], shape: Shape, unit: bool) -> Examined:
    """A row of an array, H x W or H x W x C with C in 1, 3, 4 -> Examined.

    bool is multiplied by 255, uint16 divided by 257, other integers lie in 0..255. Floats are multiplied
    by 255 and rounded where `unit` (all of the array lies in 0..1), else they are whole numbers in
    0..255. Refuses by not-finite, out-of-range, too-small, too-large.
    """
    try:
        pixels = _eight_bits(row, unit)
        height, width = pixels.shape[:2]
        _check_size(width, height)
        identity = canonical.of_values(row, 1 if unit and row.dtype.kind == "f" else _top(row))
        return _examined(_image(pixels), shape, "NPY", row.nbytes, identity)
    except _Refused as refused:
        return Examined(refused.rule, refused.reason)


def request(data: bytes, shape: Shape) -> NDArray[np.uint8]:
    """A served file -> the model's input, uint8 H x W x C: the very pixels that `examine` encodes.

    Raises LeptonflowError with the rule that the image breaks.
    """
    import numpy as np

    try:
        image, _ = _decode(data)
        encoded = _encode(image, shape, None)
    except _Refused as refused:
        raise LeptonflowError(
            f"{refused.rule}: {refused.reason}",
            expected="an image as JPEG, PNG, BMP, GIF, WebP or TIFF",
            hint="Send another file",
        ) from None
    return np.frombuffer(encoded, np.uint8).reshape(shape)


@cache
def _pillow() -> Any:
    """PIL.Image with the plugins of FORMATS, and no others, registered."""
    from PIL import (  # noqa: F401
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    return Image


def _decode(data: bytes) -> tuple[Image, str]:
    """The first frame as it should be seen, and the format's name. Raises _Refused."""
    import io

    if not data:
        raise _Refused("empty-file", "the file has no bytes")
    pillow = _pillow()
    if _SILENT not in warnings.filters:
        warnings.filters.insert(0, _SILENT)  # type: ignore[attr-defined]
    try:
        image = pillow.open(io.BytesIO(data), formats=FORMATS)
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        _check_size(*image.size)
        image.load()
        return _as_seen(image), kind
    except (_Refused, MemoryError):
        raise
    except pillow.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        raise _Refused("too-large", f"{found[0] if found else 'too many'} pixels; {MOST_PIXELS} at most") from None
    except pillow.UnidentifiedImageError:
        # Pillow's own message holds a memory address: a reason is the same in every run.
        raise _Refused("unreadable-image", "not an image as JPEG, PNG, BMP, GIF, WebP or TIFF") from None
    except Exception as error:  # noqa: BLE001 - whatever a decoder says to hostile bytes is the reason
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise _Refused("unreadable-image", re.sub(r" ?(at )?0x[0-9a-f]+", "", words)) from None


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise _Refused("too-large", f"{width} x {height} is {width * height} pixels; {MOST_PIXELS} at most")
    if min(width, height) < LEAST_SIDE:
        raise _Refused("too-small", f"{width} x {height} pixels; each side has {LEAST_SIDE} at least")


def _as_seen(image: Image) -> Image:
    """A decoded image with its orientation, palette and colour key applied."""
    info = image.info
    if any(key in info for key in _EXIF):
        image = _upright(image)
    clear = "transparency" in info
    if image.mode in ("P", "PA"):
        # Indices are no pixels: two images with the same indices and other palettes differ.
        palette = image.getpalette() or []
        grey = palette[0::3] == palette[1::3] == palette[2::3]  # how a GIF holds a grey image
        return _painted(image, grey, clear or image.mode == "PA")
    if clear and image.mode in ("1", "L", "RGB"):
        return _painted(image, image.mode != "RGB", clear)
    return image


def _painted(image: Image, grey: bool, clear: bool) -> Image:
    """Indices or a colour key as pixels: L, LA, RGB or RGBA."""
    colours = image.convert("RGBA" if clear else "RGB")
    return colours.convert("LA" if clear else "L") if grey else colours


def _upright(image: Image) -> Image:
    """The image turned as its EXIF says. Metadata that cannot be read turns nothing."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - broken metadata around good pixels: the pixels count
        orientation = 1
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _examined(image: Image, shape: Shape, kind: str, size: int, identity: str | None = None) -> Examined:
    import numpy as np

    pixels = image.tobytes()
    width, height = image.size
    encoded = _encode(image, shape, pixels)
    # Whole numbers below 2^53 are exact in float64, in whatever order they are added.
    values = np.frombuffer(encoded, np.uint8).astype(np.float64)
    mean = float(np.add.reduce(values)) / values.size
    variance = float(values.dot(values)) / values.size - mean * mean
    facts = {
        "width": width,
        "height": height,
        "channels": 1 if _is_grey(image.mode) else 3,
        "format": kind,
        "bytes": size,
        "brightness": round(mean, 3),
        "contrast": round(max(variance, 0.0) ** 0.5, 3),
    }
    return Examined(None, None, identity or canonical.of_image(image, pixels), facts, encoded)


def _is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA", "La", "F") or mode.startswith("I")


def _encode(image: Image, shape: Shape, pixels: bytes | None) -> bytes:
    """uint8 bytes, H x W x C of `shape`. `pixels` are the image's own bytes where they are at hand."""
    height, width, channels = shape
    target = "L" if channels == 1 else "RGB"
    if image.mode == target and image.size == (width, height):
        return image.tobytes() if pixels is None else pixels
    if image.mode not in ("L", "RGB"):
        image = _opaque(image)
    if image.mode != target:
        image = image.convert(target)
    if image.size != (width, height):
        from PIL.Image import Resampling

        image = image.resize((width, height), Resampling.BILINEAR, reducing_gap=3.0)
    return image.tobytes()


def _opaque(image: Image) -> Image:
    """Any mode that Pillow decodes to -> L or RGB of 8 bits; what is transparent becomes white."""
    import numpy as np

    mode = image.mode
    if mode in ("LA", "La", "RGBA", "RGBa"):
        pillow = _pillow()
        colour = image.convert("LA" if mode == "La" else "RGBA" if mode == "RGBa" else mode).convert("RGBA")
        white = pillow.new("RGBA", image.size, (255, 255, 255, 255))
        over: Image = pillow.alpha_composite(white, colour)
        return over.convert("L" if _is_grey(mode) else "RGB")
    if mode.startswith("I;16"):
        # The bytes of these modes lie in the order that the mode's name gives; native is little-endian here.
        order = ">u2" if mode.endswith("B") else "<u2"
        return _image(_from_16(np.frombuffer(image.tobytes(), order).reshape(image.size[::-1])))
    if mode == "I":
        # 32 bits hold 16-bit scans in practice; what lies beyond is cut off.
        return _image(_from_16(np.clip(np.asarray(image), 0, 65535).astype(np.uint16)))
    if mode == "F":
        return _image(_floats(np.asarray(image)))
    return image.convert("L" if mode == "1" else "RGB")


def _top(row: NDArray[Any]) -> int:
    """The value of white in a row of integers, or of whole numbers as floats."""
    return 65535 if row.dtype.kind == "u" and row.dtype.itemsize == 2 else 255


def _image(pixels: NDArray[np.uint8]) -> Image:
    """uint8, H x W or H x W x C -> L, RGB or RGBA."""
    import numpy as np

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image: Image = _pillow().fromarray(np.ascontiguousarray(pixels))
    return image


def _from_16(values: NDArray[Any]) -> NDArray[np.uint8]:
    """0..65535 -> 0..255: divided by 257, rounded."""
    import numpy as np

    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    """A float TIFF: all in 0..1 is multiplied by 255, else cut off to 0..255; rounded."""
    import numpy as np

    if not np.isfinite(values).all():
        raise _Refused("not-finite", "a pixel is NaN or infinite")
    scaled = values * 255.0 if values.min() >= 0 and values.max() <= 1 else values
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def _eight_bits(row: NDArray[Any], unit: bool) -> NDArray[np.uint8]:
    """A row of any numeric dtype -> uint8 of the same shape. Raises _Refused."""
    import numpy as np

    if row.dtype == np.uint8:
        return row
    if row.dtype == np.bool_:
        return row.astype(np.uint8) * np.uint8(255)
    if row.dtype.kind == "u" and row.dtype.itemsize == 2:
        return _from_16(row)
    if row.size == 0:
        return row.astype(np.uint8)
    if row.dtype.kind == "f":
        if not np.isfinite(row).all():
            raise _Refused("not-finite", "a pixel is NaN or infinite")
        if unit:
            return np.rint(row.astype(np.float64) * 255.0).astype(np.uint8)
        if not (row == np.rint(row)).all():
            raise _Refused("out-of-range", "floats are all in 0..1, or whole numbers in 0..255")
    low, high = row.min(), row.max()
    if low < 0 or high > 255:
        raise _Refused("out-of-range", f"pixels reach from {low:g} to {high:g}; they lie in 0..255")
    return row.astype(np.uint8)

"""An image file from hostile bytes: refused from its header, or decoded to how it should be seen.

The EXIF orientation, the palette and a colour key are applied; values of more than 8 bits are brought to 8 by the
file's own scale. What does not belong here: ids, and fitting an image to a pipeline's input (example).
"""

from __future__ import annotations

import io
import re
import warnings
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.workloads.media.image import damage, jpeg, memory, pages, scale
from schemas.errors import LeptonflowError, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
LEAST_SIDE = 2
MOST_PIXELS = 64_000_000

_EXIF = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF's BitsPerSample and PhotometricInterpretation
# Only what Pillow itself warns of (bombs, odd metadata); every such image gets a rule or is read.
_SILENT: Any = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class Refused(Exception):
    """An image that breaks a rule. Does not leave the room."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


class Decoded(NamedTuple):
    """An image of 8 bits a channel, or fewer.

    kind   the format's name
    note   what a person should know of it, such as which page was taken
    wide   its values and the value of white, where it had more than 8 bits
    """

    image: Image
    kind: str
    note: str | None = None
    wide: tuple[NDArray[Any], int] | None = None


@cache
def pillow() -> Any:
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


def decode(data: bytes, stack: ExitStack, accepted: bool = False) -> Decoded:
    """The image as it should be seen: of several pages or frames, one (pages). Raises Refused.

    stack     a large image has its memory for itself until it closes (room)
    accepted  an example of a dataset, let in when less was checked: what is missing is grey, what is beyond its scale
              is cut off, as it was then
    """
    if not data:
        raise Refused("empty-file", "the file has no bytes")
    library = pillow()
    if _SILENT not in warnings.filters:
        warnings.filters.insert(0, _SILENT)  # type: ignore[attr-defined]
    opened = False
    try:
        image = library.open(io.BytesIO(data), formats=FORMATS)
        opened = True
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        note = pages.choose(image, kind)
        check_size(*image.size)
        if complaint := memory.complaint(image):
            raise Refused("too-large", complaint)
        if memory.is_large(image):
            stack.enter_context(memory.alone())
        deep = any(";16" in str(tile.args) for tile in image.tile)
        _load(image, kind, data, accepted)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _wide(image, kind, note, accepted)
        if deep and not accepted:
            _check_deep(image)
        return Decoded(_as_seen(image), kind, note)
    except (Refused, MemoryError, LeptonflowError):
        raise
    except library.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        raise Refused("too-large", f"{found[0] if found else 'too many'} pixels; {MOST_PIXELS} at most") from None
    except library.UnidentifiedImageError:
        # Pillow's own message holds a memory address: a reason is the same in every run.
        words = damage.cut(data) or "not an image as JPEG, PNG, BMP, GIF, WebP or TIFF"
        raise Refused("unreadable-image", words) from None
    except Exception as error:  # noqa: BLE001 - whatever a decoder says to hostile bytes is the reason
        words = re.sub(r" ?(at )?0x[0-9a-f]+", "", words_of(error))
        if "truncated" not in words:
            what = "truncated" if "Truncated" in words else "truncated or damaged" if opened else None
            words = damage.cut(data) or (f"{what}: {words}" if what else words)
        raise Refused("unreadable-image", words) from None


def _load(image: Image, kind: str, data: bytes, accepted: bool) -> None:
    """Decode an opened image. Raises Refused where a part of it is missing."""
    if accepted:
        with damage.listening(kind):
            image.load()
        return
    if kind == "JPEG":
        missing = jpeg.load(image, data)
    elif (missing := damage.before(image, kind, data)) is None:
        failed = None
        with damage.listening(kind) as said:
            try:
                image.load()
            except OSError as error:  # libtiff's own words say more
                failed = error
        if failed is not None and not said:
            raise failed
        missing = f"truncated: {said[0]}" if said else None
    if missing is not None:
        raise Refused("unreadable-image", missing)


def check_size(width: int, height: int) -> None:
    """Raises Refused: too-large, too-small."""
    if width * height > MOST_PIXELS:
        raise Refused("too-large", f"{width} x {height} is {width * height} pixels; {MOST_PIXELS} at most")
    if min(width, height) < LEAST_SIDE:
        raise Refused("too-small", f"{width} x {height} pixels; each side has {LEAST_SIDE} at least")


def from_pixels(pixels: NDArray[np.uint8]) -> Image:
    """uint8, H x W or H x W x C -> L, RGB or RGBA."""
    import numpy as np

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image: Image = pillow().fromarray(np.ascontiguousarray(pixels))
    return image


def _wide(image: Image, kind: str, note: str | None, accepted: bool) -> Decoded:
    """One channel of more than 8 bits, by the scale of its file. Raises Refused: not-finite, out-of-range."""
    import numpy as np

    tags: Any = getattr(image, "tag_v2", {})  # TIFF alone has them
    image = _as_seen(image)
    if image.mode.startswith("I;16"):
        # The bytes of these modes lie in the order that the mode's name gives; native is little-endian here.
        order = ">u2" if image.mode.endswith("B") else "<u2"
        values: NDArray[Any] = np.frombuffer(image.tobytes(), order).reshape(image.size[::-1])
    else:
        values = np.asarray(image)
    found = scale.of(values[None], min(16, *tags.get(_BITS, (16,))))
    refusal = scale.refusal(values, found)
    if accepted and refusal is not None:
        found = scale.BYTES if values.dtype.kind == "f" else scale.SIXTEEN
        values, refusal = values.clip(0, found.top), None
    if refusal is not None or found.top is None:
        raise Refused(*(refusal or ("out-of-range", found.meaning)))
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns values of up to 8 bits over, and no others
        values = found.top - values
    return Decoded(from_pixels(scale.eight_bits(values, found)), kind, note, (values, found.top))


def _check_deep(image: Image) -> None:
    """Of 16-bit colours Pillow keeps the upper half: where that is black, the values were not of 16 bits."""
    bands: Any = image.getextrema()
    highest = max((band[1] for band, name in zip(bands, image.getbands(), strict=True) if name in "RGBL"), default=255)
    if highest < 16:
        seen = f"no pixel is above {highest * 256 + 255}"
        meaning = f"16-bit values lie in 0..65535, on which that is nearly black: {scale.RESCALE}"
        raise Refused("out-of-range", f"{seen}; {meaning}")


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

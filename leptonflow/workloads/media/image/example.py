"""One image: from hostile bytes, or a row of an array, to an id, facts and train-ready pixels.

`examine` and `request` share every step, so that what is served is exactly what was trained on:

1. Refuse from the header alone: another format, a side under 2 pixels, more than 64 megapixels.
2. Decode the first frame, or the full-size page of a TIFF (pages); apply the EXIF orientation, the palette and a
   colour key (decode).
3. The id: sha256 of the canonical form (canonical), which the same picture has in whatever file it comes.
4. To 8 bits by the scale of the whole source (scale), alpha over white, then grey or colour.
5. Resize with Pillow's antialiased bilinear filter. The aspect ratio is not kept.

What does not belong here: labels, files, stores and anything of Keras.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Examined
from leptonflow.workloads.media.image import canonical, scale
from leptonflow.workloads.media.image.decode import Refused, check_size, decode, from_pixels, pillow
from leptonflow.workloads.media.image.scale import Scale
from schemas.errors import LeptonflowError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


NO_MEMORY = "there is not enough memory to decode it"
Shape = tuple[int, int, int]  # height, width, channels of the pipeline's input


def examine(data: bytes, shape: Shape) -> Examined:
    """A file's bytes -> Examined.

    Refuses by empty-file, unreadable-image, too-small, too-large, not-finite, out-of-range.
    """
    try:
        with ExitStack() as stack:
            found = decode(data, stack)
            identity = canonical.of_values(*found.wide) if found.wide else None
            return _examined(found.image, shape, found.kind, len(data), identity, found.note)
    except Refused as refused:
        return Examined(refused.rule, refused.reason)
    except MemoryError:
        return Examined("too-large", NO_MEMORY)


def examine_array(row: NDArray[Any], shape: Shape, source: Scale) -> Examined:
    """A row of an array, H x W or H x W x C with C in 1, 3, 4 -> Examined. `source`: the scale of the whole array.

    Refuses by not-finite, out-of-range, too-small, too-large.
    """
    refusal = scale.refusal(row, source)
    if refusal is not None:
        return Examined(*refusal)
    try:
        height, width = row.shape[:2]
        check_size(width, height)
        identity = canonical.of_values(row, source.top or 255)
        return _examined(from_pixels(scale.eight_bits(row, source)), shape, "NPY", row.nbytes, identity)
    except Refused as refused:
        return Examined(refused.rule, refused.reason)


def encode_accepted(data: bytes, shape: Shape) -> bytes | None:
    """A file that a dataset holds -> uint8 bytes of another input, whatever is checked today; None without room."""
    try:
        with ExitStack() as stack:
            found = decode(data, stack, accepted=True)
            return _encode(found.image, shape, None)
    except (Refused, MemoryError):
        return None


def request(data: bytes, shape: Shape) -> NDArray[np.uint8]:
    """A served file -> the model's input, uint8 H x W x C: the very pixels that `examine` encodes.

    Raises LeptonflowError with the rule that the image breaks.
    """
    import numpy as np

    try:
        with ExitStack() as stack:
            found = decode(data, stack)
            encoded = _encode(found.image, shape, None)
    except (Refused, MemoryError) as error:
        refused = error if isinstance(error, Refused) else Refused("too-large", NO_MEMORY)
        raise LeptonflowError(
            f"{refused.rule}: {refused.reason}",
            expected="an image as JPEG, PNG, BMP, GIF, WebP or TIFF",
            hint="Send another file",
        ) from None
    return np.frombuffer(encoded, np.uint8).reshape(shape)


def _examined(
    image: Image, shape: Shape, kind: str, size: int, identity: str | None = None, note: str | None = None
) -> Examined:
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
    return Examined(None, None, identity or canonical.of_image(image, pixels), facts, encoded, note)


def _is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA", "La")


def _encode(image: Image, shape: Shape, pixels: bytes | None) -> bytes:
    """uint8 bytes, H x W x C of `shape`. `pixels` are the image's own bytes where they are at hand."""
    height, width, channels = shape
    target = "L" if channels == 1 else "RGB"
    if image.mode == target and image.size == (width, height):
        return image.tobytes() if pixels is None else pixels
    if image.mode not in ("L", "RGB"):
        image = _opaque(image)
    if image.mode == "RGB" and target == "L":
        image = image.convert(target)
    if image.size != (width, height):
        from PIL.Image import Resampling

        image = image.resize((width, height), Resampling.BILINEAR, reducing_gap=3.0)
    # Three channels of grey are the same after resizing, and a third of the work before.
    return (image if image.mode == target else image.convert(target)).tobytes()


def _opaque(image: Image) -> Image:
    """Any mode of 8 bits, or of fewer -> L or RGB; what is transparent becomes white."""
    mode = image.mode
    if mode in ("LA", "La", "RGBA", "RGBa"):
        library = pillow()
        colour = image.convert("LA" if mode == "La" else "RGBA" if mode == "RGBa" else mode).convert("RGBA")
        white = library.new("RGBA", image.size, (255, 255, 255, 255))
        over: Image = library.alpha_composite(white, colour)
        return over.convert("L" if _is_grey(mode) else "RGB")
    return image.convert("L" if mode == "1" else "RGB")

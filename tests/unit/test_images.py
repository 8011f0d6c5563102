"""One image from hostile bytes: what is refused and by which rule, what is converted and how."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leptonflow.workloads.base import Examined
from leptonflow.workloads.media.image import example
from leptonflow.workloads.media.image.scale import BYTES
from schemas.errors import LeptonflowError

COLOUR = (8, 8, 3)
GREY = (8, 8, 1)


def picture(mode: str = "RGB", size: tuple[int, int] = (8, 8), seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def good(data: bytes, shape: tuple[int, int, int] = COLOUR) -> Examined:
    found = example.examine(data, shape)
    assert found.rule is None, found.reason
    assert found.encoded is not None and found.facts is not None and found.id is not None
    assert len(found.encoded) == shape[0] * shape[1] * shape[2]
    return found


def pixels(data: bytes, shape: tuple[int, int, int] = COLOUR) -> np.ndarray[Any, Any]:
    return np.frombuffer(good(data, shape).encoded or b"", np.uint8).reshape(shape)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises this size and holds no pixel."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


# --- refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "empty-file"),
        (b"This is not a picture.\n", "unreadable-image"),
        (b"\x89PNG\r\n\x1a\n", "unreadable-image"),
        (b"\xff\xd8\xff\xe0", "unreadable-image"),
        (b"GIF89a", "unreadable-image"),
        (b"II*\0\x08\0\0\0", "unreadable-image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unreadable-image"),
        (b"P6 8 8 255 " + b"x" * 192, "unreadable-image"),
        (png_header(1, 1), "too-small"),
        (png_header(1, 500), "too-small"),
        (png_header(20_000, 20_000), "too-large"),
        (png_header(10_000, 9_000), "too-large"),
        (png_header(8001, 8000), "too-large"),
    ],
)
def test_refused(data: bytes, rule: str, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = example.examine(data, COLOUR)
    assert found.rule == rule
    assert found.reason and "0x" not in found.reason
    assert (found.id, found.facts, found.encoded) == (None, None, None)
    assert found == example.examine(data, COLOUR)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("GIF", {}), ("WEBP", {}), ("TIFF", {}),
     ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_adobe_deflate"})],
)  # fmt: skip
def test_a_truncated_file_is_unreadable_in_every_format(
    kind: str, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    data = saved(picture(size=(64, 64)), kind, **options)
    found = example.examine(data[: len(data) // 2], COLOUR)
    assert found.rule == "unreadable-image"
    assert capfd.readouterr() == ("", "")


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    """One bit a pixel: 20,000 x 20,000 lie in some 50 KB, and would take 400 MB as bytes."""
    bomb = saved(Image.new("1", (20_000, 20_000)))
    found = example.examine(bomb, COLOUR)
    assert found.rule == "too-large"
    assert "400000000 pixels" in str(found.reason)


def test_two_by_two_is_large_enough() -> None:
    assert pixels(saved(Image.new("RGB", (2, 2), (9, 8, 7)))).reshape(-1, 3).tolist() == [[9, 8, 7]] * 64


def test_a_float_tiff_with_nan_is_refused() -> None:
    values = np.full((8, 8), np.nan, np.float32)
    assert example.examine(saved(Image.fromarray(values), "TIFF"), GREY).rule == "not-finite"


# --- converted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("P", "PNG"),
     ("RGBA", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("RGB", "BMP"), ("P", "GIF"), ("L", "GIF"), ("RGB", "WEBP"),
     ("RGBA", "WEBP"), ("RGB", "TIFF"), ("CMYK", "TIFF"), ("I;16", "TIFF"), ("I", "TIFF"), ("F", "TIFF"),
     ("1", "TIFF"), ("YCbCr", "TIFF"), ("LA", "TIFF"), ("P", "TIFF"), ("LAB", "TIFF")],
)  # fmt: skip
@pytest.mark.parametrize("shape", [COLOUR, GREY])
def test_every_mode_is_converted(mode: str, kind: str, shape: tuple[int, int, int]) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    elif mode == "LAB":
        image = Image.new("LAB", (8, 8), (128, 0, 0))
    else:
        image = picture().convert("RGB").convert("L" if mode in ("I", "F", "LA") else "RGB").convert(mode)
    found = good(saved(image, kind), shape)
    assert found.facts is not None
    assert found.facts["format"] == kind
    assert found.facts["channels"] == (1 if mode in ("L", "LA", "1", "I;16", "I", "F") else 3)


def test_sixteen_bits_are_divided_by_257() -> None:
    values = np.array([[0, 257, 65535, 32768], [128, 129, 514, 385]], np.uint16)
    want = [[0, 1, 255, 128], [0, 1, 2, 1]]
    for kind in ("PNG", "TIFF"):
        assert pixels(saved(Image.fromarray(values), kind), (2, 4, 1))[:, :, 0].tolist() == want


def test_big_endian_sixteen_bits() -> None:
    """A hand-made TIFF: Pillow itself writes only little-endian ones."""
    values = np.array([[0, 257], [65535, 514]], ">u2").tobytes()
    entries = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (278, 3, 1, 2), (279, 4, 1, 8)]  # fmt: skip
    directory = struct.pack(">H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3
        directory += struct.pack(">HHI", tag, kind, count)
        directory += struct.pack(">HH", value, 0) if short else struct.pack(">I", value)
    data = b"MM\0*" + struct.pack(">I", 16) + values + directory + b"\0\0\0\0"
    assert pixels(data, (2, 2, 1))[:, :, 0].tolist() == [[0, 1], [255, 2]]


def test_what_is_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert pixels(saved(clear)).min() == 255
    half = Image.new("LA", (8, 8), (0, 128))
    assert np.unique(pixels(saved(half), GREY)).tolist() == [127]


def test_a_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert np.unique(pixels(saved(image)).reshape(-1, 3), axis=0).tolist() == [[0, 0, 255]]
    for kind in ("PNG", "GIF"):
        assert pixels(saved(image, kind, transparency=1)).min() == 255


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.unique(pixels(data).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]], kind
        assert good(data).note == "the first frame of an animation is taken"
        assert good(saved(frames[0], kind, **options)).note is None


def pages(*images: Image.Image, kinds: Sequence[int] = ()) -> bytes:
    """A TIFF of several pages. kinds: the NewSubfileType of each."""
    for image, kind in zip(images, kinds, strict=False):
        image.encoderinfo = {"tiffinfo": {254: kind}}
    return saved(images[0], "TIFF", save_all=True, append_images=list(images[1:]))


@pytest.mark.parametrize(
    ("sizes", "kinds", "page", "note"),
    [
        ([8, 8, 8], [], 0, "page 1 of 3 is taken"),
        ([8, 12], [], 0, "page 1 of 2 is taken"),
        ([4, 40], [], 1, "page 2 of 2 is taken, for the first is a thumbnail"),
        ([4, 40, 8], [], 1, "page 2 of 3 is taken, for the first is a thumbnail"),
        ([30, 40], [1, 0], 1, "page 2 of 2 is taken, for the first is a thumbnail"),
        ([8, 40], [0, 1], 0, "page 1 of 2 is taken"),
        ([8, 40], [0, 4], 0, "page 1 of 2 is taken"),
        ([8], [], 0, None),
    ],
)
def test_the_page_of_a_tiff_that_is_no_thumbnail(
    sizes: list[int], kinds: list[int], page: int, note: str | None
) -> None:
    images_ = [Image.new("RGB", (size, size), (n, 0, 0)) for n, size in enumerate(sizes)]
    found = good(pages(*images_, kinds=kinds))
    assert found.note == note and found.facts is not None and found.facts["width"] == sizes[page]
    assert found.encoded is not None and found.encoded[0] == page
    assert example.request(pages(*images_, kinds=kinds), COLOUR)[0, 0, 0] == page


def test_a_page_that_is_too_large_is_refused_although_its_thumbnail_is_not() -> None:
    data = pages(Image.new("1", (8, 8)), Image.new("1", (9000, 8000)))
    assert example.examine(data, COLOUR).rule == "too-large"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    every: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}
    data = saved(picture(size=(16, 8)), kind, exif=exif, **every.get(kind, {}))
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    found = good(data, (upright.height, upright.width, 3))
    assert found.encoded == upright.tobytes()
    assert found.facts is not None and (found.facts["width"], found.facts["height"]) == upright.size


def test_broken_exif_does_not_cost_the_image() -> None:
    good(saved(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))


def test_the_size_of_the_input_is_height_then_width() -> None:
    image = Image.new("RGB", (30, 10))
    image.paste((255, 255, 255), (15, 0, 30, 10))
    found = pixels(saved(image), (5, 20, 3))
    assert found[:, :8].max() == 0 and found[:, 12:].min() == 255


# --- ids and facts -----------------------------------------------------------------------------------


def test_the_id_is_of_the_decoded_pixels() -> None:
    image = picture(size=(20, 10))
    as_png, as_bmp = good(saved(image)), good(saved(image, "BMP"))
    assert as_png.id == as_bmp.id == good(saved(image, compress_level=0)).id
    assert as_png.id == hashlib.sha256(b"RGB 20x10\n" + image.tobytes()).hexdigest()
    assert as_png.id == good(saved(image), GREY).id == good(saved(image), (3, 5, 3)).id
    assert as_png.id != good(saved(picture(size=(20, 10), seed=1))).id
    assert as_png.id != good(saved(Image.frombytes("RGB", (10, 20), image.tobytes()))).id


def test_the_palette_is_part_of_the_id() -> None:
    """The same indices under two palettes are two images."""
    ids = set()
    for blue in (0, 255):
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, 10, 20, blue])
        ids.add(good(saved(image)).id)
    assert len(ids) == 2


def test_facts_are_plain_and_exact() -> None:
    image = picture(size=(8, 8))
    facts = good(saved(image)).facts
    values = np.asarray(image, np.float64)
    assert facts == {
        "width": 8, "height": 8, "channels": 3, "format": "PNG", "bytes": len(saved(image)),
        "brightness": round(float(values.mean()), 3), "contrast": round(float(values.std()), 3),
    }  # fmt: skip
    assert all(type(value) in (int, float, str) for value in facts.values())


def test_a_request_is_encoded_as_training_data_is() -> None:
    kinds = [("RGB", "JPEG"), ("RGBA", "PNG"), ("L", "PNG"), ("CMYK", "JPEG"), ("P", "GIF")]
    for number, (mode, kind) in enumerate(kinds):
        data = saved(picture(size=(50, 31), seed=number).convert(mode), kind)
        for shape in (COLOUR, GREY, (31, 50, 3)):
            served = example.request(data, shape)
            assert served.dtype == np.uint8 and served.shape == shape
            assert served.tobytes() == good(data, shape).encoded


def test_a_request_that_is_no_image_says_why() -> None:
    with pytest.raises(LeptonflowError, match="empty-file") as caught:
        example.request(b"", COLOUR)
    assert caught.value.exit_status == 1


# --- rows of arrays ----------------------------------------------------------------------------------


def test_a_row_has_the_id_of_the_same_image_as_a_file() -> None:
    image = picture(size=(8, 8))
    row = example.examine_array(np.asarray(image), COLOUR, BYTES)
    assert row.id == good(saved(image)).id and row.encoded == image.tobytes()
    grey = picture("L")
    for values in (np.asarray(grey), np.asarray(grey)[:, :, None]):
        assert example.examine_array(values, GREY, BYTES).id == good(saved(grey), GREY).id


def test_rows_too_small() -> None:
    for shape in ((1, 1), (1, 9), (0, 5), (5, 0, 3)):
        assert example.examine_array(np.zeros(shape, np.uint8), GREY, BYTES).rule == "too-small"

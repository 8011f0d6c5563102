"""The id of a picture: one, in whatever file or array it comes, and another for another picture."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leptonflow.workloads.media.image import canonical, example, scale

SHAPE = (8, 8, 3)
GREY = np.random.default_rng(0).integers(0, 256, (9, 11), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (9, 11, 3), dtype=np.uint8)


def of(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    found = example.examine(file.getvalue(), SHAPE)
    assert found.rule is None and found.id is not None, found.reason
    return found.id


def row(values: np.ndarray[Any, Any]) -> str:
    found = example.examine_array(values, SHAPE, scale.of(values[None]))
    assert found.rule is None and found.id is not None, found.reason
    return found.id


def test_a_grey_picture_is_one_in_every_mode() -> None:
    grey = Image.fromarray(GREY)
    palette = grey.convert("P")
    wide = Image.fromarray(GREY.astype(np.uint16) * 257)
    files = [
        of(grey), of(grey, "BMP"), of(grey, "TIFF"), of(grey, "GIF"), of(grey, "WEBP", lossless=True), of(palette),
        of(grey.convert("RGB")), of(grey.convert("RGB"), "TIFF"), of(grey.convert("RGBA")), of(grey.convert("LA")),
        of(grey.convert("CMYK"), "TIFF"), of(wide), of(wide, "TIFF"), of(grey.convert("RGB"), transparency=(1, 2, 3)),
        of(Image.fromarray(GREY.astype(np.float32) / np.float32(255)), "TIFF"),
    ]  # fmt: skip
    stacked = np.repeat(GREY[:, :, None], 3, axis=2)
    opaque = np.concatenate([stacked, np.full((9, 11, 1), 255, np.uint8)], axis=2)
    rows = [row(GREY), row(GREY[:, :, None]), row(stacked), row(opaque), row(GREY.astype(np.int64)),
            row(GREY.astype(np.uint16) * 257), row(stacked.astype(np.uint16) * 257), row(GREY.astype(np.float64)),
            row((GREY / 255).astype(np.float16)), row((GREY / 255).astype(np.float32)),
            row(GREY / 255), row(GREY * (1 / 255)), row(stacked / 255)]  # fmt: skip
    assert len({*files, *rows}) == 1


def test_a_colour_picture_is_one_in_every_mode() -> None:
    colour = Image.fromarray(COLOUR)
    few = colour.quantize(200)
    opaque = np.concatenate([COLOUR, np.full((9, 11, 1), 255, np.uint8)], axis=2)
    same = {of(colour), of(colour, "BMP"), of(colour.convert("RGBA")), of(colour.convert("CMYK"), "TIFF"),
            row(COLOUR),
            row(opaque), row(COLOUR.astype(np.uint16) * 257), row(COLOUR / 255)}  # fmt: skip
    assert len(same) == 1
    assert of(few) == of(few.convert("RGB")) == of(few, transparency=255)


def test_one_bit_is_black_and_white() -> None:
    bits = GREY > 128
    image = Image.fromarray(bits.astype(np.uint8) * 255)
    two = image.convert("1")
    assert len({of(image), of(two), of(two, "TIFF"), row(bits), row(bits.astype(float))}) == 1


def test_the_orientation_is_applied_first() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.rot90(COLOUR, 1).copy())
    assert of(turned, exif=exif) == of(Image.fromarray(COLOUR))


def test_what_alpha_hides_does_not_count_and_what_it_shows_does() -> None:
    alpha = np.where(GREY > 100, 255, 0).astype(np.uint8)
    one, other = (np.dstack([COLOUR, alpha]) for _ in range(2))
    other[alpha == 0, :3] = 7
    assert of(Image.fromarray(one)) == of(Image.fromarray(other)) == row(one) == row(other)
    half = np.dstack([COLOUR, np.full_like(GREY, 128)])
    assert len({of(Image.fromarray(one)), of(Image.fromarray(half)), of(Image.fromarray(COLOUR))}) == 3
    grey = np.dstack([GREY, alpha])
    assert of(Image.fromarray(grey, "LA")) == of(Image.fromarray(np.dstack([GREY, GREY, GREY, alpha])))


def test_other_pictures_have_other_ids() -> None:
    fine = GREY.astype(np.uint16) * 257
    fine[0, 0] ^= 1
    ids = [of(Image.fromarray(GREY)), of(Image.fromarray(GREY.T.copy())), of(Image.fromarray(255 - GREY)),
           of(Image.fromarray(fine)), of(Image.fromarray(COLOUR)), of(Image.fromarray(COLOUR[:, :, ::-1].copy())),
           of(Image.fromarray(GREY.reshape(11, 9)))]  # fmt: skip
    assert len(set(ids)) == len(ids)
    assert of(Image.fromarray(fine)) == row(fine) == row(fine / 65535)
    odd = GREY / 255 + 1e-5 * (GREY < 200)
    assert row(odd) == row(odd.astype(np.float32)) not in ids


def test_a_nearly_grey_picture_keeps_its_colour() -> None:
    almost = np.repeat(np.full((64, 64, 1), 9, np.uint8), 3, axis=2)
    grey = of(Image.fromarray(almost))
    almost[-1, -1, 2] = 10
    assert of(Image.fromarray(almost)) != grey


@pytest.mark.parametrize(("values", "mode"), [(GREY, "L"), (COLOUR, "RGB")])
def test_plain_images_keep_the_id_that_they_had(values: np.ndarray[Any, Any], mode: str) -> None:
    import hashlib

    assert canonical.of_values(values, 255) == hashlib.sha256(f"{mode} 11x9\n".encode() + values.tobytes()).hexdigest()

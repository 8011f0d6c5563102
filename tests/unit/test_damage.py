"""Files of which a part is missing, in every format: refused as truncated, and whole ones never."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leptonflow.workloads.media.image import damage, example
from schemas.errors import LeptonflowError

SHAPE = (16, 16, 3)
EOI = b"\xff\xd9"
BASELINE: list[tuple[str, str, dict[str, Any]]] = [
    ("JPEG", "RGB", {}), ("JPEG", "L", {}), ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"quality": 95, "subsampling": 0}),
    ("JPEG", "RGB", {"optimize": True}), ("JPEG", "RGB", {"restart_marker_rows": 1}),
]  # fmt: skip
JPEGS = [*BASELINE, ("JPEG", "RGB", {"progressive": True}), ("JPEG", "L", {"progressive": True})]
OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("PNG", "RGB", {}), ("PNG", "RGB", {"compress_level": 0}), ("GIF", "P", {}), ("WEBP", "RGB", {}),
    ("WEBP", "RGB", {"lossless": True}), ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}), ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "RGB", {"compression": "packbits"}), ("TIFF", "1", {"compression": "group3"}),
    ("TIFF", "1", {"compression": "group4"}), ("TIFF", "1", {"compression": "tiff_ccitt"}),
]  # fmt: skip
RAW: list[tuple[str, str, dict[str, Any]]] = [("BMP", "RGB", {}), ("TIFF", "RGB", {})]


def photo(size: int = 96, seed: int = 2) -> Image.Image:
    """Smooth colours with noise, as a camera gives."""
    y, x = np.mgrid[0:size, 0:size] * (200 / size)
    noise = np.random.default_rng(seed).integers(0, 50, (size, size, 3))
    return Image.fromarray((np.stack([x, y, (x + y) / 2], -1) + noise).clip(0, 255).astype(np.uint8))


def saved(kind: str, mode: str, options: dict[str, Any], image: Image.Image | None = None) -> bytes:
    file = io.BytesIO()
    (image or photo()).convert(mode).save(file, kind, **options)
    return file.getvalue()


def cut(data: bytes, part: float) -> bytes:
    return data[: int(len(data) * part)]


def zero_tail(data: bytes, part: float) -> bytes:
    return cut(data, part).ljust(len(data), b"\0")


def hole(data: bytes, part: float = 0.1) -> bytes:
    half, size = len(data) // 2, int(len(data) * part)
    return data[:half] + bytes(size) + data[half + size :]


def refused(data: bytes) -> str:
    """The reason, which a served file gets as well."""
    found = example.examine(data, SHAPE)
    assert found.rule == "unreadable-image" and found.encoded is None, found.reason
    with pytest.raises(LeptonflowError, match="unreadable-image"):
        example.request(data, SHAPE)
    return str(found.reason)


@pytest.mark.parametrize(("kind", "mode", "options"), [*JPEGS, *OTHERS, *RAW])
def test_a_whole_file_is_accepted_with_whatever_follows_it(kind: str, mode: str, options: dict[str, Any]) -> None:
    data = saved(kind, mode, options)
    for more in (b"", b"\0" * 100, b"rubbish" * 50):
        assert example.examine(data + more, SHAPE).rule is None


@pytest.mark.parametrize("part", [0.5, 0.9])
@pytest.mark.parametrize(("kind", "mode", "options"), [*JPEGS, *OTHERS, *RAW])
def test_a_file_that_is_cut_off(
    kind: str, mode: str, options: dict[str, Any], part: float, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "truncated" in refused(cut(saved(kind, mode, options), part))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", [0.5, 0.9])
@pytest.mark.parametrize(("kind", "mode", "options"), [*JPEGS, *OTHERS])
def test_zeros_at_the_end(
    kind: str, mode: str, options: dict[str, Any], part: float, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "truncated" in refused(zero_tail(saved(kind, mode, options), part))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("kind", "mode", "options"), [*JPEGS, *OTHERS])
def test_zeros_in_the_middle(kind: str, mode: str, options: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert "truncated" in refused(hole(saved(kind, mode, options)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", [0.5, 0.9, 0.97])
@pytest.mark.parametrize(("kind", "mode", "options"), JPEGS)
@pytest.mark.parametrize("size", [64, 200])
def test_a_jpeg_that_is_cut_and_closed(kind: str, mode: str, options: dict[str, Any], part: float, size: int) -> None:
    assert "truncated" in refused(cut(saved(kind, mode, options, photo(size)), part) + EOI)


@pytest.mark.parametrize("colour", ["black", "#c81e28"])
@pytest.mark.parametrize(("kind", "mode", "options"), [*JPEGS, *OTHERS, *RAW])
def test_flat_images_are_whole(kind: str, mode: str, options: dict[str, Any], colour: str) -> None:
    """Their data is little but zeros, or the same few bits again and again."""
    half = Image.new("RGB", (120, 200), colour)
    half.paste(photo(60), (0, 0))
    for image in (half, Image.new("RGB", (200, 150), colour), Image.new("RGB", (5, 3), colour)):
        found = example.examine(saved(kind, mode, options, image), SHAPE)
        assert found.rule is None, found.reason


def test_a_jpeg_may_be_padded_before_its_end_and_hold_a_thumbnail() -> None:
    data = saved("JPEG", "RGB", {})
    assert example.examine(data[:-2] + bytes(40) + EOI, SHAPE).rule is None
    exif = Image.Exif()
    exif[0x010E] = "x"
    small = saved("JPEG", "RGB", {}, photo(16))
    segment = b"\xff\xe1" + (len(small) + 8).to_bytes(2, "big") + b"Other\0" + small
    whole = data[:2] + segment + data[2:]
    assert example.examine(whole, SHAPE).rule is None
    assert "truncated" in refused(zero_tail(whole, 0.7)), "the thumbnail's end is not the image's"


def test_the_first_picture_of_a_multi_picture_jpeg() -> None:
    file = io.BytesIO()
    photo().save(file, "MPO", save_all=True, append_images=[photo(seed=3)])
    data = file.getvalue()
    assert example.examine(data, SHAPE).rule is None
    end = data.index(EOI + b"\xff\xd8")
    assert "truncated" in refused(data[: end // 2] + EOI + data[end + 2 :])


def test_a_lost_restart_interval() -> None:
    data = saved("JPEG", "RGB", {"restart_marker_rows": 1})
    first, second = data.index(b"\xff\xd2"), data.index(b"\xff\xd3")
    assert "truncated" in refused(data[:first] + data[second:])


def test_a_jpeg_with_a_scan_a_component() -> None:
    """Sequential scans of one component each: the last ones are missing."""
    data = saved("JPEG", "RGB", {"progressive": True})
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    assert "truncated: scans are missing" in refused(data[: scans[-1]] + EOI)


def test_thousands_of_scans_take_no_time() -> None:
    data = saved("JPEG", "L", {"progressive": True})
    at = data.index(b"\xff\xda")
    refused(data[:at] + b"\xff\xda\0\x08\x01\x01\0\0\0\0" * 20_000)


def test_a_png_without_its_end_or_with_a_wrong_checksum() -> None:
    data = saved("PNG", "RGB", {})
    assert "truncated" in refused(data[:-12])
    at = data.index(b"IDAT")
    size = int.from_bytes(data[at - 4 : at], "big")
    assert "checksum" in refused(data[: at + 4 + size] + b"\0\0\0\0" + data[at + 8 + size :])
    assert zlib.crc32(data[at : at + 4 + size]).to_bytes(4, "big") == data[at + 4 + size : at + 8 + size]


def test_strips_that_lie_beyond_the_end() -> None:
    """A TIFF whose directory comes first, as most programs write it, loses its last strips."""
    from tests.unit.test_scale import tags

    data = tags(bytes(range(16)), 8, 1)
    moved = data.replace((8).to_bytes(4, "little") + b"\x15", len(data).to_bytes(4, "little") + b"\x15")
    assert "truncated" in refused(moved)


def test_what_libtiff_says_is_heard_and_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with damage.listening("TIFF") as said:
        os.write(2, b"progress 3 of 9\nFax3Decode1D: Bad code word at line 127 of strip 0 (x 18).\n")
    assert said == ["Fax3Decode1D: Bad code word at line 127 of strip 0 (x 18)."]
    assert capfd.readouterr().err == "progress 3 of 9\n"


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_raises_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    for kind, mode, options in [*JPEGS, *OTHERS]:
        data = bytearray(saved(kind, mode, options, photo(32)))
        for at in random.integers(0, len(data), 12):
            data[at] = random.integers(0, 256)
        assert example.examine(bytes(data), SHAPE).rule in (None, "unreadable-image", "too-small", "too-large",
                                                            "out-of-range")  # fmt: skip


@pytest.mark.parametrize(("kind", "mode", "options"), JPEGS)
def test_a_jpeg_whose_zeros_are_closed(kind: str, mode: str, options: dict[str, Any]) -> None:
    assert "truncated" in refused(zero_tail(saved(kind, mode, options), 0.5)[:-2] + EOI)

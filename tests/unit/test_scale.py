"""What a value means: one scale for a whole source, and what fits none is refused with the range seen."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leptonflow.data.ingest import array_files
from leptonflow.workloads.base import Examined
from leptonflow.workloads.media.image import example, scale

GREY = (4, 4, 1)
RAMP = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
Values = np.ndarray[Any, Any]


def tiff(values: Values) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


def tags(pixels: bytes, bits: int, photometric: int, kind: int = 1, order: str = "<", samples: int = 1) -> bytes:
    """A 4 x 4 TIFF of uncompressed samples, as Pillow itself writes none."""
    entries = [(256, 3, 4), (257, 3, 4), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
               (277, 3, samples), (278, 3, 4), (279, 4, len(pixels)), (339, 3, kind)]  # fmt: skip
    directory = struct.pack(order + "H", len(entries))
    for tag, size, value in entries:
        directory += struct.pack(order + "HHI", tag, size, 1)
        directory += struct.pack(order + ("HH" if size == 3 else "I"), *((value, 0) if size == 3 else (value,)))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(pixels))
    return head + pixels + directory + b"\0\0\0\0"


def seen(found: Examined) -> list[int]:
    assert found.rule is None, found.reason
    return list(found.encoded or b"")


def rows(values: Values) -> list[Examined]:
    """A whole `.npy` array, row by row."""
    data, labels = io.BytesIO(), io.BytesIO()
    np.save(data, values)
    np.save(labels, np.zeros(len(values), np.int64))
    pair = array_files.read(data.getvalue(), labels.getvalue(), None)
    return [example.examine_array(pair.row(n), GREY, pair.scale) for n in range(len(pair))]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (RAMP * 2 - 1, "from -1 to 1; floats all lie in 0..1, or are whole numbers in 0..255"),
        (RAMP * np.float32(1.02), "from 0 to 1.02; floats"),
        (RAMP * 4095, "from 0 to 4095; floats"),
        (RAMP * 254.5, "from 0 to 254.5; floats"),
        (np.rint(RAMP * 4095), "from 0 to 4095; floats"),
        ((RAMP * 4000 - 1000).astype(np.int32), "from -1000 to 3000; integers lie in 0..255"),
        ((RAMP * 65535).astype(np.int32), "from 0 to 65535; integers lie in 0..255"),
        ((RAMP * 255).astype(np.uint16), "from 0 to 255; 16-bit values lie in 0..65535, on which"),
        ((RAMP * 4095).astype(np.uint16), "from 0 to 4095; 16-bit values lie in 0..65535, on which"),
    ],
)
def test_what_fits_no_scale_is_refused_in_files_and_arrays_alike(values: Values, words: str) -> None:
    for found in (example.examine(tiff(values), GREY), *rows(np.stack([values, values.T]))):
        assert found.rule == "out-of-range" and words in str(found.reason), found
        assert found.encoded is None


@pytest.mark.parametrize(
    ("values", "want"),
    [
        (RAMP, 255 * RAMP),
        (np.rint(RAMP * 255), 255 * RAMP),
        ((RAMP * 255).astype(np.int32), np.floor(255 * RAMP)),
        ((RAMP * 65535).astype(np.uint16), 255 * RAMP),
    ],
)
def test_what_fits_has_the_same_pixels_in_files_and_arrays(values: Values, want: Values) -> None:
    file = example.examine(tiff(values), GREY)
    assert np.abs(np.array(seen(file)) - want.ravel()).max() <= 0.5
    row = rows(np.stack([values, values]))[1]
    assert (row.id, row.encoded) == (file.id, file.encoded)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_white_is_zero_is_turned_over_at_every_depth(order: str, photometric: int) -> None:
    ramp = RAMP.astype(np.float64)
    want = np.rint(255 * (ramp if photometric else 1 - ramp)).ravel()
    files = [(tags(np.rint(ramp * 65535).astype(order + "u2").tobytes(), 16, photometric, order=order)),
             (tags(np.rint(ramp * 255).astype(np.uint8).tobytes(), 8, photometric, order=order)),
             (tags(ramp.astype(order + "f4").tobytes(), 32, photometric, 3, order))]  # fmt: skip
    read = 0
    for data in files:
        found = example.examine(data, GREY)
        if found.rule == "unreadable-image":  # Pillow knows no such combination
            continue
        assert np.abs(np.array(seen(found)) - want).max() <= 1
        read += 1
    assert read >= 2


def test_twelve_bits_reach_white() -> None:
    values = np.rint(RAMP * 4095).astype(int).ravel()
    packed = bytearray()
    for first, second in zip(values[::2], values[1::2], strict=True):
        packed += bytes([first >> 4, (first & 15) << 4 | second >> 8, second & 255])
    pixels = seen(example.examine(tags(bytes(packed), 12, 1), GREY))
    assert np.abs(np.array(pixels) - 255 * RAMP.ravel()).max() <= 0.51


def test_signed_sixteen_bits_are_no_scale() -> None:
    values = np.rint(RAMP * 4000 - 1000).astype("<i2")
    found = example.examine(tags(values.tobytes(), 16, 1, 2), GREY)
    assert found.rule == "out-of-range" and "from -1000 to 3000" in str(found.reason)


def test_sixteen_bit_colours_that_are_nearly_black_are_refused() -> None:
    import zlib

    def png(values: Values) -> bytes:
        lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
        header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
        packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
        return b"\x89PNG\r\n\x1a\n" + b"".join(packed)

    colours = np.repeat(RAMP[:, :, None], 3, axis=2)
    assert max(seen(example.examine(png(colours * 65535), GREY))) == 255
    for top in (255, 4095):
        found = example.examine(png(colours * top), GREY)
        assert found.rule == "out-of-range" and f"no pixel is above {top}" in str(found.reason)


def test_one_row_out_of_range_does_not_change_the_scale_of_the_others() -> None:
    values = np.stack([RAMP, RAMP.T, RAMP[::-1], RAMP])
    values[2, 0, 0] = -0.01
    found = rows(values)
    assert [row.rule for row in found] == [None, None, "out-of-range", None]
    assert "from -0.01 to 1; the source's floats lie in 0..1" in str(found[2].reason)
    assert all(max(seen(row)) == 255 for row in found if row.rule is None)


def test_rows_of_another_scale_than_most_are_refused() -> None:
    byte = np.rint(RAMP * 255)
    dark = np.zeros_like(RAMP)
    dark[0, 0] = 1
    found = rows(np.stack([byte, byte, RAMP, dark]))
    assert [row.rule for row in found] == [None, None, "out-of-range", None]
    assert max(seen(found[3])) == 1, "a dark picture on the scale of its source"
    assert {row.rule for row in rows(np.stack([byte, RAMP, dark]))} == {"out-of-range"}
    assert max(seen(rows(np.stack([RAMP, RAMP, dark]))[2])) == 255
    assert {row.rule for row in rows(np.stack([RAMP * 2 - 1, RAMP * 2 - 1, RAMP]))} == {"out-of-range"}


def test_a_dark_row_of_a_sixteen_bit_array_is_accepted() -> None:
    bright = (RAMP * 65535).astype(np.uint16)
    found = rows(np.stack([bright, bright // 256]))
    assert [row.rule for row in found] == [None, None] and max(seen(found[1])) == 1


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int64, np.uint32, np.uint64])
def test_integers_of_every_width_lie_in_0_to_255(kind: type[np.generic]) -> None:
    values = np.rint(RAMP * 100).astype(kind)
    assert seen(rows(np.stack([values, values]))[0]) == values.ravel().tolist()


def test_true_and_false_are_white_and_black() -> None:
    assert seen(rows(np.stack([RAMP > 0.5] * 2))[0]) == ((RAMP > 0.5) * 255).ravel().tolist()


def test_not_finite_rows_are_refused_and_count_for_no_scale() -> None:
    values = np.stack([RAMP, RAMP])
    values[1, 0, 0] = np.nan
    assert [row.rule for row in rows(values)] == [None, "not-finite"]
    assert example.examine(tiff(values[1]), GREY).rule == "not-finite"


def test_an_array_of_0_and_1_alone_is_told() -> None:
    bits = (RAMP > 0.5).astype(np.uint8)
    assert "0 and 1 alone" in str(scale.of(np.stack([bits, bits])).note)
    assert scale.of(np.stack([bits, bits * 9])).note is None
    assert scale.of(bits[None]).note is None, "one dark picture says nothing"


def test_a_source_without_a_value() -> None:
    for kind in (np.uint8, np.uint16, np.int64, np.float32):
        assert scale.of(np.zeros((0, 4, 4), kind)) and scale.of(np.zeros((3, 0, 5), kind))

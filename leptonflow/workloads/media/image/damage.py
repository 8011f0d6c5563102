"""Whether a file holds all of its image, where its decoder would not say so: by checksums, lengths and codes.

Raw samples (BMP, uncompressed TIFF) carry nothing that zeros could contradict. JPEG has a module of its own.
What does not belong here: what a decoder refuses by itself.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from leptonflow.workloads.media.image import jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

CUT = "truncated: the file ends before its image does"
HOLE = jpeg.HOLE
CHECKSUM = "truncated: a checksum of the image data does not fit"

_IMAGE, _END = b"IDAT", b"IEND"
# TIFF's tags
_COMPRESSION, _TABLES = 259, 347
_STRIPS, _TILES = (273, 279), (324, 325)  # offsets, byte counts
_RAW, _CCITT, _LZW, _JPEG, _DEFLATE, _PACKBITS = 1, (2, 3, 4), 5, 7, (8, 32946), 32773
_PHOTOMETRIC, _YCBCR = 262, 6  # whose rows may be subsampled
# Zeros that no encoder writes: CCITT has 18 zero bits and a little fill at most, LZW has another code for a zero more.
_IMPOSSIBLE = {**dict.fromkeys(_CCITT, bytes(16)), _LZW: bytes(8)}
_SAID = re.compile(
    rb"(?:_?TIFF\w*|Fax\w+|LZW\w+|PackBits\w+|ZIP\w+|O?JPEG\w*|Predictor\w*|MissingRequired|\w*\.tif): [^\n]*\n?"
)
_STDERR = threading.Lock()  # file descriptor 2 is of the process


def before(image: Image, kind: str, data: bytes) -> str | None:
    """Why an opened image of these bytes is not whole, as far as they tell before it is decoded."""
    if kind == "PNG":
        return png(data)
    if kind == "WEBP":
        return webp(data)
    return tiff(image, data) if kind == "TIFF" else None


def cut(data: bytes) -> str | None:
    """Whether a file that could not be opened is one that was cut off: CUT, or None."""
    if data[:4] == b"RIFF":
        # The padding byte after an odd length may be lacking.
        return CUT if int.from_bytes(data[4:8], "little") + 8 > len(data) + 1 else None
    if data[:4] in (b"II*\0", b"MM\0*"):
        order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
        at = int.from_bytes(data[4:8], order)  # of the first directory, which often stands last
        end = at + 2 + 12 * int.from_bytes(data[at : at + 2], order)
        return CUT if end == at + 2 or end > len(data) or not any(data[end - 12 : end]) else None
    return None


def png(data: bytes) -> str | None:
    """Why a PNG is not whole: its chunks' lengths, the image data's checksums, its end."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind == _END:
            return None
        if kind == _IMAGE and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return CHECKSUM if end + 4 <= len(data) else CUT
        at = end + 4
    return CUT


def webp(data: bytes) -> str | None:
    """Why a WebP is not whole: the length that its header gives, and whether its last bytes are needed at all.

    Entropy-coded zeros are an image as well, but one that ends before its data does.
    """
    if cut(data):
        return CUT
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            less = max(0, size - jpeg.TAIL) & ~1
            chunk = kind + less.to_bytes(4, "little") + data[at + 8 : at + 8 + less]
            return HOLE if _decodes(b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk) else None
        at += 8 + size + size % 2
    return None  # an animation


def tiff(image: Image, data: bytes) -> str | None:
    """Why the page at hand of a TIFF is not whole: its strips or tiles lie in the file, and their codes are valid."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    compression, tables = tags.get(_COMPRESSION, 1), tags.get(_TABLES, b"")
    where = _TILES if _TILES[0] in tags else _STRIPS
    if compression == _RAW:  # the decoder asks for every byte, and some programs write lengths that are too long
        return None
    pieces = zip(_numbers(tags, where[0]), _numbers(tags, where[1]), strict=False)
    for number, (offset, count) in enumerate(pieces):
        if offset + count > len(data):
            return CUT
        piece = data[offset : offset + count]
        impossible = _IMPOSSIBLE.get(compression)
        if impossible and impossible in piece.rstrip(b"\0"):
            return HOLE
        counted = compression == _PACKBITS and tags.get(_PHOTOMETRIC) != _YCBCR
        if counted and not _unpacks(piece, _raw_bytes(tags, number)):
            return HOLE
        if compression in _DEFLATE and not _inflates(piece):
            return CHECKSUM
        if compression == _JPEG:
            missing = _jpeg(tables[:-2] + piece[2:] if tables else piece)
            if missing:
                return missing
    return None


@contextmanager
def listening(kind: str) -> Iterator[list[str]]:
    """What libtiff complains of in this block, which it writes to standard error and Pillow drops.

    What others write there meanwhile is passed on.
    """
    said: list[str] = []
    if kind != "TIFF":
        yield said
        return
    with _STDERR, tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(2)
        except OSError:  # closed: nothing can be written there
            yield said
            return
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            file.seek(0)
            text = file.read()
            said += [line.decode(errors="replace").strip() for line in _SAID.findall(text)]
            with suppress(OSError):
                os.write(kept, _SAID.sub(b"", text))
            os.close(kept)


def _numbers(tags: Any, tag: int) -> tuple[int, ...]:
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _raw_bytes(tags: Any, number: int) -> int:
    """Bytes of a strip or tile once it is unpacked."""
    bits, samples = _numbers(tags, 258) or (1,), tags.get(277, 1)
    planes = samples if tags.get(284, 1) == 2 else 1  # each sample in strips of its own
    if 322 in tags:
        width, rows = int(tags[322]), int(tags[323])
    else:
        width, height = int(tags[256]), int(tags[257])
        most = min(int(tags.get(278, height)), height) or 1
        rows = min(most, height - number % ceil(height / most) * most)
    return ceil(width * int(bits[0]) * int(samples) / planes / 8) * rows


def _unpacks(piece: bytes, size: int) -> bool:
    """Whether PackBits runs give exactly `size` bytes and leave no more than a few of their own."""
    at = got = 0
    while got < size and at < len(piece):
        head = piece[at]
        got += head + 1 if head < 128 else 257 - head if head > 128 else 0
        at += head + 2 if head < 128 else 2 if head > 128 else 1
    return got == size and at <= len(piece) <= at + jpeg.TAIL


def _inflates(piece: bytes) -> bool:
    """Whether a zlib stream is whole. What it holds is thrown away, a little at a time."""
    stream = zlib.decompressobj()
    try:
        while piece and not stream.eof:
            stream.decompress(piece, 1 << 20)
            piece = stream.unconsumed_tail
    except zlib.error:
        return False
    return stream.eof


def _decodes(data: bytes) -> bool:
    from PIL.Image import open as opened

    try:
        opened(io.BytesIO(data), formats=("WEBP",)).load()
    except Exception:  # noqa: BLE001 - whatever it says, it does not decode
        return False
    return True


def _jpeg(data: bytes) -> str | None:
    from PIL.Image import open as opened

    try:
        return jpeg.load(opened(io.BytesIO(data), formats=("JPEG",)), data)
    except Exception:  # noqa: BLE001 - a stream of kinds that Pillow reads within a TIFF alone
        return None

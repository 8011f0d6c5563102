"""Whether a JPEG holds all of its image: libjpeg fills what is missing with grey, and Pillow passes no warning on.

The markers tell whether the file ends, and whether every scan and restart interval is there. Within a scan the
decoder itself tells: it must need the scan's last bytes, and nothing after them. What does not belong here: other
formats (damage).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_EOI = b"\xff\xd9"
_BETWEEN = (b"\xff\xda", b"\xff\xc4", b"\xff\xdd", b"\xff\xdb", b"\xff\xfe")  # what stands between scans
_SOS, _DHT, _DRI, _FILL = 0xDA, 0xC4, 0xDD, 0xFF
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xCA)

ENDS = "truncated: the file has no end-of-image marker"
MISSING = "truncated: scans are missing"
SHORT = "truncated: image data is missing before the end-of-image marker"
HOLE = "truncated: image data is missing in the middle"

TAIL = 64  # bytes before the end that an encoder may have added, and that a hole may have shifted
AHEAD = b"\xff\x00" * 8  # 64 set bits, no Huffman code: the decoder reads ahead so far, and decodes less than a block
ZEROS = bytes(48)  # what an encoder writes for nothing but a flat image
JUNK = bytes(range(1, 255)) * 2  # no marker, and other values than any that would follow
MOST_SCANS = 500  # each is looked for in all that follows: thousands would take for ever
_BAND = 256  # rows that are compared together


@dataclass(slots=True)
class Scan:
    """One scan: data[start:end], of these component ids, coefficients first..last down to the bit `low`.

    flat: zeros alone are a valid scan, that of a flat image
    """

    components: tuple[int, ...]
    first: int
    last: int
    low: int
    interval: int
    flat: bool
    start: int
    end: int


@dataclass(slots=True)
class Structure:
    """What the markers say. components: id -> sampling factors (horizontal, vertical)."""

    progressive: bool = False
    width: int = 0
    height: int = 0
    components: dict[int, tuple[int, int]] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)
    ended: bool = False


def load(image: Image, data: bytes) -> str | None:
    """Decode an opened JPEG of these bytes -> why it is not whole, or None."""
    ends = _plain(image, data)
    if ends is None:
        found = _structure(data)
        missing = _missing(found, data)
        if missing is not None:
            return missing
        if found.progressive or len(found.scans) != 1:
            image.load()
            return None if _same(image, data, found.scans[-1].end) else SHORT
        ends = found.scans[0].start, found.scans[0].end
    start, end = ends
    early = max(start, end - TAIL)
    while early > start and data[early + TAIL - 1] == _FILL:  # fill bytes before a marker
        early -= 1
    opened: Any = image
    opened.fp = opened._fp = steps = _Steps(data[:early], data[early:end] + AHEAD, data[end:])
    image.load()
    return {1: HOLE, 2: None}.get(steps.given, SHORT)


def _plain(image: Any, data: bytes) -> tuple[int, int] | None:
    """Where the scan of a JPEG as most are lies: baseline, one scan, no restarts, no zeros in it. Else None.

    A shortcut: of small images, reading the structure takes as long as decoding.
    """
    start, layers = image.fp.tell(), image.layers  # Pillow has read up to the first scan
    head = data[max(0, start - 8 - 2 * layers) : start]
    if "progressive" in image.info or head[:2] != b"\xff\xda" or head[4] != layers or b"\xff\xdd" in data[:start]:
        return None
    end = data.find(_EOI, start)
    return None if end < 0 or data.find(ZEROS, start, end) >= 0 else (start, end)


def _same(image: Image, data: bytes, end: int) -> bool:
    """Whether the image stays what it is with junk after its last scan: a scan that is whole takes none of it."""
    from PIL.Image import open as opened

    probe = opened(io.BytesIO(data[:end] + JUNK + data[end:]), formats=("JPEG",))
    probe.load()
    width, height = image.size
    bands = ((0, top, width, min(height, top + _BAND)) for top in range(0, height, _BAND))
    return all(image.crop(band).tobytes() == probe.crop(band).tobytes() for band in bands)


class _Steps(io.RawIOBase):
    """The bytes in three steps, of which the decoder takes as many as it needs to fill the image.

    The scan less TAIL is too little, the whole scan with bits to read ahead is enough.
    """

    def __init__(self, *steps: bytes) -> None:
        self.steps = steps
        self.given = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def read(self, size: int = -1) -> bytes:
        self.given += 1
        return b"".join(self.steps[self.given - 1 : self.given])


def _structure(data: bytes) -> Structure:
    found = Structure()
    first_codes: dict[int, int] = {}  # of each Huffman table: the symbol whose code is all zeros
    interval, at = 0, 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data) and len(found.scans) < MOST_SCANS:
        kind = data[at + 1]
        if kind == _FILL:
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == _SOS:
            body = data[at + 4 : end]
            if len(body) < 4 + 2 * body[0]:
                break
            at = _next(data, end)
            found.scans.append(_scan(body, first_codes, found.progressive, interval, end, at))
            continue
        if data[at : at + 2] == _EOI:
            found.ended = True
            break
        if kind == _DRI:
            interval = int.from_bytes(data[at + 4 : at + 6], "big")
        elif kind == _DHT:
            body = data[at + 4 : end]
            while len(body) > 17:
                first_codes[body[0]] = body[17]
                body = body[17 + sum(body[1:17]) :]
        elif kind in _FRAMES:
            _frame(found, data[at + 4 : end], kind in _PROGRESSIVE)
        at = end
    return found


def _next(data: bytes, at: int) -> int:
    """Where the marker that follows a scan stands; the end where there is none."""
    stop = data.find(_EOI, at)
    stop = len(data) if stop < 0 else stop
    places = (data.find(marker, at, stop) for marker in _BETWEEN)
    return min((place for place in places if place >= 0), default=stop)


def _frame(found: Structure, body: bytes, progressive: bool) -> None:
    """Take in a start-of-frame header."""
    found.progressive = progressive
    found.height, found.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    parts = (body[n : n + 3] for n in range(6, len(body) - 2, 3))
    found.components = {part[0]: (part[1] >> 4 or 1, part[1] & 15 or 1) for part in parts}


def _scan(body: bytes, first_codes: dict[int, int], progressive: bool, interval: int, start: int, end: int) -> Scan:
    """The scan of a start-of-scan header."""
    first, last, bits = body[-3:]
    names, tables = body[1 : 1 + 2 * body[0] : 2], body[2 : 2 + 2 * body[0] : 2]
    used = {table >> 4 for table in tables} if first == 0 else set()
    if first or not progressive:
        used |= {16 + (table & 15) for table in tables}
    flat = (first == 0 and bits >> 4 > 0) or not any(first_codes.get(table, 0) for table in used)
    return Scan(tuple(names), first, last, bits & 15, interval, flat, start, end)


def _missing(found: Structure, data: bytes) -> str | None:
    """What the markers show to be missing."""
    if not found.ended:
        return ENDS
    # The lowest bit that was sent of each coefficient; 1 stands for one that was not sent.
    sent = {name: [1] * 64 for name in found.components}
    for scan in found.scans:
        for name in scan.components:
            if name in sent:
                sent[name][scan.first : scan.last + 1] = [scan.low] * (scan.last + 1 - scan.first)
        if scan.interval and found.height:
            restarts = len(_RESTART.findall(data, scan.start, scan.end))
            if restarts < ceil(_units(found, scan) / scan.interval) - 1:
                return HOLE
        if not scan.flat and data.find(ZEROS, scan.start, scan.end) >= 0:
            return HOLE
    return MISSING if any(map(any, sent.values())) else None


def _units(found: Structure, scan: Scan) -> int:
    """The scan's minimum coded units: ITU T.81, A.2."""
    across = max(h for h, _ in found.components.values())
    down = max(v for _, v in found.components.values())
    if len(scan.components) > 1:
        return ceil(found.width / (8 * across)) * ceil(found.height / (8 * down))
    h, v = found.components.get(scan.components[0], (across, down))
    return ceil(ceil(found.width * h / across) / 8) * ceil(ceil(found.height * v / down) / 8)

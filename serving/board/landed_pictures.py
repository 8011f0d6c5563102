"""The bytes of a landed file, for a browser to show: of a closed list of picture formats, told by their first bytes.

Nothing is decoded here: quarantined files are damaged or hostile, and a browser decodes pictures in a sandbox.
"""

from __future__ import annotations

import re

from leptonflow.core.hashing import sha256
from leptonflow.data.ingest import landed_changes, landing
from leptonflow.storage.store import Store
from schemas.errors import NotFound

LARGEST = 16 << 20  # bytes of a file that is shown
KINDS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM"), "image/bmp"),
)


def media_type(data: bytes) -> str | None:
    """The media type of a picture that every browser shows, None of anything else."""
    return next((name for beginning, name in KINDS if beginning.match(data)), None)


def landed(store: Store, pipeline: str, batch: str, digest: str, source: str) -> tuple[bytes, str]:
    """(the bytes, their media type) of the landed file with this sha256.

    source: its name, where the batch has no listing.
    Raises NotFound where there is none that can be shown.
    """
    there = landed_changes.keys(store, pipeline, batch)
    listing = landing.listed(store, pipeline, batch)
    names = [source] if listing is None else [file.key for file in listing.files if file.sha256 == digest]
    for key in [there[name] for name in names if name in there]:
        if (store.size(key) or 0) > LARGEST:
            continue
        data = store.get(key)
        kind = media_type(data)
        if kind is not None and sha256(data) == digest:
            return data, kind
    raise NotFound("no picture of that row can be shown", received=digest)

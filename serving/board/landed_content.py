"""Where the content of quarantined rows lies among a pipeline's landed batches, and the beginning of what is text.

A file that was judged before is not landed again: it lies in the batch that it first came with. Pictures are sent
as they landed (landed_pictures), never decoded here. How anything looks does not belong here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from leptonflow.core import store_keys
from leptonflow.core.hashing import sha256
from leptonflow.data.ingest import label_tables, landed_changes, landing
from leptonflow.data.ingest.label_columns import Columns
from leptonflow.storage.store import Store
from schemas.config import NAME
from schemas.errors import Damaged, NotFound
from schemas.records import LandedFile, Listing
from schemas.text import shortened
from serving.board.batch_records import Row
from serving.board.landed_pictures import LARGEST, media_type

MOST_OTHERS = 24  # batches in which a page looks beside those of its own rows
LARGEST_TEXT = 64 << 10  # bytes of a file that is read for its text
LONGEST_TEXT = 300  # characters of it that are shown


@dataclass(frozen=True)
class Content:
    """Of one row. batch: where its file lies, None where it is a cell of a table; text: its beginning, if it is one."""

    batch: str | None
    text: str | None


def found(store: Store, pipeline: str, rows: Sequence[Row]) -> dict[str, Content]:
    """The content of these rows by its sha256, as far as a closed batch with a listing has it."""
    left = {row.sha256 for row in rows if row.sha256}
    contents: dict[str, Content] = {}
    for batch in _batches(store, pipeline, rows):
        if not left:
            break
        try:
            listing = landing.listed(store, pipeline, batch)
            there = {} if listing is None else _inside(store, pipeline, batch, listing, left)
        except (Damaged, NotFound):  # the page of its pipeline tells; a picture less is shown here
            continue
        contents |= there
        left -= there.keys()
    return contents


def _batches(store: Store, pipeline: str, rows: Sequence[Row]) -> Iterator[str]:
    own = dict.fromkeys(row.batch for row in rows)
    yield from own
    names = store.folders(store_keys.landing_folder(pipeline))
    yield from islice((name for name in names if NAME.fullmatch(name) and name not in own), MOST_OTHERS)


def _inside(store: Store, pipeline: str, batch: str, listing: Listing, digests: set[str]) -> dict[str, Content]:
    """Which of these digests a batch holds: as files, or as cells of its table."""
    keys = landed_changes.keys(store, pipeline, batch)
    if listing.layout == "table" and listing.images is None:
        return _cells(store, keys, listing, digests)
    files = {file.sha256: file for file in listing.files if file.sha256 in digests and file.key in keys}
    small = [file for file in files.values() if file.size <= LARGEST_TEXT]
    read = store.get_many([keys[file.key] for file in small])
    texts = {file.sha256: _text(file, data) for file, data in zip(small, read, strict=True)}
    return {digest: Content(batch, texts.get(digest)) for digest in files}


def _cells(store: Store, keys: Mapping[str, str], listing: Listing, digests: set[str]) -> dict[str, Content]:
    contents: dict[str, Content] = {}
    columns = Columns(*(listing.columns or (None, None)), listing.cells)
    for file in listing.files:
        if file.key in keys and (store.size(keys[file.key]) or 0) <= LARGEST:
            cells = label_tables.read(file.name, store.get(keys[file.key]), columns).cells or ()
            for cell in cells:
                digest = sha256(cell) if cell is not None else None
                if cell is not None and digest in digests:
                    contents[digest] = Content(None, text(cell))
    return contents


def _text(file: LandedFile, data: bytes) -> str | None:
    return text(data) if sha256(data) == file.sha256 else None


def text(data: bytes) -> str | None:
    """The beginning of a text in UTF-8, on one line; None for a picture and for what is no text."""
    try:
        words = data.decode("utf-8-sig").split()
    except UnicodeDecodeError:
        return None
    one = " ".join(words)
    if media_type(data) is not None or not one or "\0" in one:
        return None
    return shortened(one, LONGEST_TEXT)

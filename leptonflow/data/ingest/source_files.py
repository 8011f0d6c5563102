"""The files of a source after the first reading, and what is made of them: an arrival, its listing and its bytes.

What a source holds is decided elsewhere (source_rows, table_rows).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from leptonflow.core.hashing import digest, sha256
from leptonflow.data.ingest import label_tables
from leptonflow.data.ingest.folder_walk import Found, Refusal, changed, measure, read_file
from leptonflow.data.ingest.layouts import escape, shown
from schemas.records import LandedFile, Listing, SourceRow

KEPT = 64 << 20  # bytes of the first reading that are kept for the second
CHUNK = 64
THREADS = 4

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Seen:
    """A file of the source after the first reading. `data` are its bytes, where they were kept."""

    found: Found
    size: int
    sha256: str
    data: bytes | None = None

    @cached_property
    def name(self) -> str:
        """The name as it is recorded."""
        return shown(self.found.name)

    @cached_property
    def key(self) -> str:
        """The key that it is landed under, relative to the batch's folder."""
        return escape(self.found.name)

    def bytes(self) -> bytes:
        """The file's bytes, read again where they were not kept; the caller holds them against the sha256."""
        if self.data is not None:
            return self.data
        data = read_file(self.found.real)
        if isinstance(data, Refusal):
            raise changed(self.found.name)
        return data

    def landed(self) -> LandedFile:
        """Its line in the listing."""
        return LandedFile(key=self.key, name=self.name, size=self.size, sha256=self.sha256)


@dataclass(frozen=True)
class Arrival:
    """A source as a listing, and every file that was read, by its key: also those that are not to be landed.

    table  the label table and the bytes of all its rows, in that layout; rows: how many it has
    """

    listing: Listing
    sources: dict[str, Seen]
    table: Seen | None = None
    rows: int = 0

    def items(self, listing: Listing, prefix: str) -> Iterator[tuple[str, bytes]]:
        """(key on the store, bytes) of the files of a listing of this source, ours or an earlier landing's."""
        for number, file in enumerate(listing.files):
            if number == 0 and self.table is not None and listing.rows is not None:
                data = with_rows(self.table, listing.rows, self.rows)
            else:
                data = self.sources[file.key].bytes()
            if sha256(data) != file.sha256:
                raise changed(file.name)
            yield f"{prefix}/{file.key}", data


def with_rows(table: Seen, rows: Sequence[int], count: int) -> bytes:
    """The table with only these of its rows: its own bytes where they are all of them."""
    if list(rows) == list(range(count)):
        return table.bytes()
    return label_tables.some_rows(table.found.name, table.bytes(), rows)


def measured(files: Sequence[Found], progress: Progress) -> tuple[list[Seen], dict[str, Refusal]]:
    """Size and sha256 of each file, in the order given, and those that cannot be read."""
    left = KEPT
    lock = threading.Lock()

    def chunk(start: int) -> list[Seen | tuple[Found, Refusal]]:
        nonlocal left
        results: list[Seen | tuple[Found, Refusal]] = []
        for file in files[start : start + CHUNK]:
            result = measure(file.real)
            if isinstance(result, Refusal):
                if result.rule == "missing-file":
                    raise changed(file.name)
                results.append((file, result))
                continue
            size, digits, data = result
            with lock:
                keep = data is not None and size <= left
                left -= size if keep else 0
            results.append(Seen(file, size, digits, data if keep else None))
        return results

    seen: list[Seen] = []
    refused: dict[str, Refusal] = {}
    starts = range(0, len(files), CHUNK)
    progress("reading", 0, len(files))
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        try:
            for start, results in zip(starts, pool.map(chunk, starts), strict=True):
                for result in results:
                    if isinstance(result, Seen):
                        seen.append(result)
                    else:
                        refused[result[0].name] = result[1]
                progress("reading", min(start + CHUNK, len(files)), len(files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return seen, refused


def triples(seen: Iterable[Seen]) -> Iterator[tuple[str, int | None, str]]:
    """(name, size, sha256) of each file."""
    return ((file.name, file.size, file.sha256) for file in seen)


def content_digest(triples: Iterable[tuple[str, int | None, str]]) -> str:
    """The digest of everything that arrived, in whatever order it was found."""
    return digest("listing", sorted(triples, key=lambda triple: (triple[0], triple[2])))


def by_key(seen: Iterable[Seen]) -> dict[str, Seen]:
    """Each file by the key that it is landed under."""
    return {file.key: file for file in seen}


def source_row(source: str, label: str | None, file: str | None, rule: tuple[str, str]) -> SourceRow:
    """A row that is refused at the source."""
    return SourceRow(source=source, label=label, sha256=file, rule=rule[0], reason=rule[1])

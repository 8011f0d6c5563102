"""What a source holds: every file measured, every row told apart into landed, known and refused.

Reads the source and the index; writes nothing. What does not belong here: the batch's protocol on the
store (landing), and whether an image is any good (examining).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from leptonflow import arrays, label_tables, layouts
from leptonflow.digests import digest, sha256
from leptonflow.layouts import Index, Layout, escape, label_of, shown
from leptonflow.walking import Found, Refusal, changed, measure, read_file, resolve, walk
from schemas.errors import UsageError
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

    table  the label table and the bytes of all its rows, in that layout
    """

    listing: Listing
    sources: dict[str, Seen]
    table: Seen | None = None

    def items(self, listing: Listing, prefix: str) -> Iterator[tuple[str, bytes]]:
        """(key on the store, bytes) of the files of a listing of this source, ours or an earlier landing's."""
        for number, file in enumerate(listing.files):
            if number == 0 and self.table is not None and listing.rows is not None:
                data = _with_rows(self.table, listing.rows)
            else:
                data = self.sources[file.key].bytes()
            if sha256(data) != file.sha256:
                raise changed(file.name)
            yield f"{prefix}/{file.key}", data


def arrive(source: Path, index: Index, classes: Sequence[str] | None, progress: Progress) -> Arrival:
    """Read a source: a folder, or a table and the images that it names.

    Raises UsageError where it is neither or holds nothing, LeptonflowError where it changes meanwhile.
    """
    if os.path.isdir(source):
        return _arrive_folder(source, index, classes, progress)
    if os.path.isfile(source) and source.name.lower().endswith(layouts.TABLES):
        root = os.path.realpath(source.parent)
        return _arrive_table(root, source.name, index, progress, ignored=0, beside=None)
    raise UsageError(
        "this source cannot be ingested",
        expected="a folder with a folder per class, a folder with a .npy pair, or a .csv or .parquet table",
        received=f"{source} ({'another kind of file' if os.path.lexists(source) else 'there is nothing'})",
        hint="Check the path",
    )


def _arrive_folder(source: Path, index: Index, classes: Sequence[str] | None, progress: Progress) -> Arrival:
    try:
        found = walk(str(source))
    except OSError as error:
        raise UsageError(f"the source {source} cannot be read", received=error.strerror or str(error)) from None
    if not found.files and not found.refused:
        raise UsageError(
            "the source holds nothing",
            expected="a folder per class with images, a .npy pair, or a table",
            received=f"{source} with {found.ignored} hidden files" if found.ignored else f"{source}, empty",
        )
    names = [file.name for file in found.files]
    shape = layouts.layout(names)
    if shape.kind == "table":
        assert shape.table is not None
        return _arrive_table(found.root, shape.table, index, progress, ignored=found.ignored, beside=names)
    if shape.kind == "npy":
        return _arrive_npy(found.files, shape, index, classes, progress, found.ignored)
    seen, refused = _measured(found.files, progress)
    rows = [_refused_file(name, why) for name, why in {**found.refused, **refused}.items()]
    content = _content([*_triples(seen), *((row.source, None, row.rule) for row in rows)])
    known, landed = 0, []
    for file in seen:
        label = label_of(file.name)
        before = index.recalled.get((file.sha256, label or ""))
        if index.has(file.sha256, label):
            known += 1
        elif before is not None:
            rows.append(_row(file.name, label, file.sha256, before))
        else:
            landed.append(file.landed())
    listing = Listing(
        digest=content,
        layout="folders",
        files=tuple(landed),
        known=known,
        ignored=found.ignored,
        refused=tuple(sorted(rows, key=lambda row: row.source)),
        warnings=(*shape.warnings, *found.warnings()),
    )
    return Arrival(listing, _by_key(seen))


def _arrive_npy(
    files: Sequence[Found],
    shape: Layout,
    index: Index,
    classes: Sequence[str] | None,
    progress: Progress,
    ignored: int,
) -> Arrival:
    """The pair is landed whole, unless each of its rows is known or was quarantined before."""
    pair = [file for file in files if file.name in (shape.data, shape.labels)]
    beside = layouts.extras(shape, [file.name for file in files])
    seen, refused = _measured(pair, progress)
    if refused:
        name, why = next(iter(refused.items()))
        raise UsageError(f"{shown(name)} cannot be read", expected="a readable file", received=why.reason)
    listing = Listing(
        digest=_content(_triples(seen)),
        layout="npy",
        files=tuple(file.landed() for file in seen),
        known=0,
        ignored=ignored + len(beside),
        warnings=(layouts.extras_warning(beside),) if beside else (),
    )
    arrival = Arrival(listing, _by_key(seen))
    if not index.known and not index.recalled:
        return arrival
    by_name = {file.found.name: file.found.real for file in seen}
    rows = arrays.read(by_name[shape.data or ""], by_name[shape.labels or ""], classes or index.classes)
    if rows.values is None or not len(rows):
        return arrival
    known, recalled = 0, []
    for number in range(len(rows)):
        label, digits = rows.labels[number], arrays.row_sha256(rows.row(number))
        before = index.recalled.get((digits, label or ""))
        if rows.rules[number] is None and index.has(digits, label):
            known += 1
        elif before is not None:
            recalled.append(_row(f"{shown(shape.data or '')}[{number}]", label, digits, before))
        else:
            return arrival
    update = {"files": (), "known": known, "refused": tuple(recalled)}
    return replace(arrival, listing=listing.model_copy(update=update))


def _arrive_table(
    root: str, table: str, index: Index, progress: Progress, *, ignored: int, beside: Sequence[str] | None
) -> Arrival:
    """The table with its rows that are not known and not refused, and each image they name once."""
    itself = _whole(root, table)
    data = itself.bytes()
    found = label_tables.read(table, data)
    if not len(found) and not found.broken:
        raise UsageError("the table has no rows", expected="a row per image", received=shown(table))
    if found.broken or found.missing:
        listing = Listing(
            digest=_content(_triples([itself])),
            layout="table",
            files=(itself.landed(),),
            known=0,
            ignored=ignored,
            rows=None if found.broken else tuple(range(len(found))),
        )
        return Arrival(listing, _by_key([itself]), itself)
    meant = [label_tables.name_of(path) for path in found.paths]
    places = {name: resolve(root, name) for name, _ in meant if name is not None}
    files = [Found(name, place) for name, place in places.items() if isinstance(place, str)]
    seen, unread = _measured(files, progress)
    by_name = {file.found.name: file for file in seen}
    kept: list[int] = []
    landed: dict[str, Seen] = {}
    refused: list[SourceRow] = []
    known = 0
    for number, (name, rule) in enumerate(meant):
        row_label, source = found.labels[number], f"{shown(table)}[{number}]"
        file = by_name.get(name) if name is not None else None
        if file is None:
            place = unread.get(name or "") or places.get(name or "")
            broken = rule or ((place.rule, place.reason) if isinstance(place, Refusal) else ("missing-file", ""))
            refused.append(_row(source, row_label, None, broken))
            continue
        before = index.recalled.get((file.sha256, row_label or ""))
        if index.has(file.sha256, row_label):
            known += 1
        elif before is not None:
            refused.append(_row(source, row_label, file.sha256, before))
        else:
            kept.append(number)
            landed[file.found.name] = file
    left = layouts.extras(Layout("table", data=table), [n for n in beside or () if n not in places])
    records = [file.landed() for file in sorted(landed.values(), key=_name) if file.found.name != table]
    if kept:
        part = _with_rows(itself, kept)
        records.insert(0, itself.landed().model_copy(update={"size": len(part), "sha256": sha256(part)}))
    listing = Listing(
        digest=_content(_triples([itself, *(file for file in seen if file.found.name != table)])),
        layout="table",
        files=tuple(records),
        known=known,
        ignored=ignored + len(left),
        rows=tuple(kept),
        refused=tuple(refused),
        warnings=(layouts.extras_warning(left),) if left else (),
    )
    return Arrival(listing, _by_key([*seen, itself]), itself)


def _whole(root: str, name: str) -> Seen:
    """A table, read at once."""
    real = resolve(root, name)
    data = real if isinstance(real, Refusal) else read_file(real)
    if isinstance(data, Refusal) or isinstance(real, Refusal):
        reason = data.reason if isinstance(data, Refusal) else ""
        raise UsageError(f"the table {shown(name)} cannot be read", expected="a readable file", received=reason)
    return Seen(Found(name, real), len(data), sha256(data), data)


def _with_rows(table: Seen, rows: Sequence[int]) -> bytes:
    """The table with only these rows: its own bytes where they are all of them."""
    data = table.bytes()
    if list(rows) == list(range(len(label_tables.read(table.found.name, data)))):
        return data
    return label_tables.some_rows(table.found.name, data, rows)


def _measured(files: Sequence[Found], progress: Progress) -> tuple[list[Seen], dict[str, Refusal]]:
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


def _triples(seen: Iterable[Seen]) -> Iterator[tuple[str, int | None, str]]:
    return ((file.name, file.size, file.sha256) for file in seen)


def _content(triples: Iterable[tuple[str, int | None, str]]) -> str:
    """The digest of everything that arrived, in whatever order it was found."""
    return digest("listing", sorted(triples, key=lambda triple: (triple[0], triple[2])))


def _by_key(seen: Iterable[Seen]) -> dict[str, Seen]:
    return {file.key: file for file in seen}


def _name(file: Seen) -> tuple[str, str]:
    return file.name, file.found.name


def _refused_file(name: str, why: Refusal) -> SourceRow:
    return _row(shown(name), label_of(shown(name)), None, (why.rule, why.reason))


def _row(source: str, label: str | None, file: str | None, rule: tuple[str, str]) -> SourceRow:
    return SourceRow(source=source, label=label, sha256=file, rule=rule[0], reason=rule[1])

"""What a source holds: every file measured, every row told apart into landed, known and refused.

Reads the source and the index; writes nothing. What does not belong here: the batch's protocol on the
store (landing), and whether an image is any good (examining).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from leptonflow import arrays, label_tables, layouts, table_paths, table_rows
from leptonflow.digests import digest, sha256
from leptonflow.layouts import Index, escape, label_of, shown
from leptonflow.sources import Source
from leptonflow.walking import Found, Refusal, changed, measure, read_file
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
                data = _with_rows(self.table, listing.rows, self.rows)
            else:
                data = self.sources[file.key].bytes()
            if sha256(data) != file.sha256:
                raise changed(file.name)
            yield f"{prefix}/{file.key}", data


def arrive(source: Source, index: Index, classes: Sequence[str] | None, progress: Progress) -> Arrival:
    """Read a source: a folder, arrays, or a table and the images that it names.

    Raises UsageError where it holds nothing, LeptonflowError where it changes meanwhile.
    """
    if source.layout.kind == "table":
        return _arrive_table(source, index, classes, progress)
    if source.layout.kind == "npy":
        return _arrive_npy(source, index, classes, progress)
    return _arrive_folder(source, index, progress)


def _arrive_folder(source: Source, index: Index, progress: Progress) -> Arrival:
    """The images that are neither known nor quarantined before."""
    roots = frozenset(source.layout.roots)
    seen, refused = _measured(source.files, progress)
    rows = [_refused_file(name, why, roots) for name, why in {**dict(source.refused), **refused}.items()]
    content = _content([*_triples(seen), *((row.source, None, row.rule) for row in rows)])
    known, landed = 0, []
    for file in seen:
        label = label_of(file.name, roots)
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
        ignored=source.ignored,
        refused=tuple(sorted(rows, key=lambda row: row.source)),
        warnings=source.warnings,
        roots=source.layout.roots,
        split=source.layout.split,
    )
    return Arrival(listing, _by_key(seen))


def _arrive_npy(source: Source, index: Index, classes: Sequence[str] | None, progress: Progress) -> Arrival:
    """The arrays are landed whole, unless each of their rows is known or was quarantined before."""
    seen, refused = _measured(source.files, progress)
    if refused:
        name, why = next(iter(refused.items()))
        raise UsageError(f"{shown(name)} cannot be read", expected="a readable file", received=why.reason)
    listing = Listing(
        digest=_content(_triples(seen)),
        layout="npy",
        files=tuple(file.landed() for file in seen),
        known=0,
        ignored=source.ignored,
        warnings=source.warnings,
    )
    arrival = Arrival(listing, _by_key(seen))
    if not index.known and not index.recalled:
        return arrival
    known, recalled = 0, []
    files = {file.found.name: file.found.real for file in seen}
    every = (
        arrays.read_each(data, files[data], None if data == labels else files[labels], classes or index.classes)
        for data, labels in source.layout.pairs
    )
    for name, rows in (each for pair in every for each in pair):
        if rows.values is None or not len(rows):
            return arrival
        for number in range(len(rows)):
            label, digits = rows.labels[number], arrays.row_sha256(rows.row(number))
            before = index.recalled.get((digits, label or ""))
            if rows.rules[number] is None and index.has(digits, label):
                known += 1
            elif before is not None:
                recalled.append(_row(f"{shown(name)}[{number}]", label, digits, before))
            else:
                return arrival
    update = {"files": (), "known": known, "refused": tuple(recalled)}
    return replace(arrival, listing=listing.model_copy(update=update))


def _arrive_table(source: Source, index: Index, classes: Sequence[str] | None, progress: Progress) -> Arrival:
    """The table with its rows that are not known and not refused, and each image they name once."""
    table = source.layout.table or ""
    itself = _whole(source)
    found = label_tables.read(itself.found.name, itself.bytes(), source.columns, classes or index.classes)
    if not len(found) and not found.broken:
        raise UsageError("the table has no rows", expected="a row per image", received=shown(table))
    if found.missing and source.columns != label_tables.DEFAULT:
        raise UsageError(
            "the table has no such column",
            expected=", ".join(found.header),
            received=", ".join(filter(None, source.columns)),
            hint="--path-column and --label-column name two of its columns",
        )
    if found.broken or found.missing:
        listing = Listing(
            digest=_content(_triples([itself])),
            layout="table",
            files=(itself.landed(),),
            known=0,
            ignored=source.hidden,
            rows=None if found.broken else tuple(range(len(found))),
            warnings=source.warnings,
        )
        return Arrival(listing, _by_key([itself]), itself, len(found))
    rows = _table_rows(source, found, progress)
    kept: list[int] = []
    names: list[str] = []
    landed: dict[str, Seen] = {}
    refused: list[SourceRow] = []
    known = 0
    for number, row in enumerate(rows.rows):
        row_label, at = found.labels[number], f"{itself.name}[{number}]"
        if not isinstance(row, Seen | Inside):
            refused.append(_row(at, row_label, None, row))
            continue
        before = index.recalled.get((row.sha256, row_label or ""))
        if index.has(row.sha256, row_label):
            known += 1
        elif before is not None:
            refused.append(_row(at, row_label, row.sha256, before))
        else:
            kept.append(number)
            if isinstance(row, Seen):
                landed[row.found.name] = row
                names.append(row.name)
    records = [file.landed() for file in sorted(landed.values(), key=_name) if file.found.name != itself.found.name]
    if kept:
        part = _with_rows(itself, kept, len(found))
        records.insert(0, itself.landed().model_copy(update={"size": len(part), "sha256": sha256(part)}))
    own = source.columns != label_tables.DEFAULT
    listing = Listing(
        digest=_content(_triples([itself, *(file for file in rows.seen if file.found.name != itself.found.name)])),
        layout="table",
        files=tuple(records),
        known=known,
        ignored=source.hidden + len(rows.left),
        rows=tuple(kept),
        refused=tuple(refused),
        warnings=(*source.warnings, *((layouts.beside_warning(rows.left),) if rows.left else ())),
        columns=(source.columns.path, source.columns.label) if own else None,
        images=None if found.images is not None else tuple(names),
    )
    return Arrival(listing, _by_key([*rows.seen, itself]), itself, len(found))


class Inside(NamedTuple):
    """A picture that lies in the table itself."""

    sha256: str


class _Rows(NamedTuple):
    """What each row of a table names: a file, a picture inside, or the rule why there is none.

    seen  every file that a row names
    left  the names beside the table that no row means
    """

    rows: list[Seen | Inside | tuple[str, str]]
    seen: list[Seen]
    left: list[str]


def _table_rows(source: Source, found: label_tables.LabelTable, progress: Progress) -> _Rows:
    others = [file.name for file in source.files if file.name != source.layout.table]
    if found.images is not None:
        inside: list[Seen | Inside | tuple[str, str]] = [
            Inside(sha256(data)) if data is not None else table_rows.NO_PICTURE for data in found.images
        ]
        return _Rows(inside, [], others)
    meant = table_paths.Paths(source, found.paths)
    files = [Found(name, place) for name, place in meant.places.items() if isinstance(place, str)]
    seen, unread = _measured(files, progress)
    by_name = {file.found.name: file for file in seen}
    rows: list[Seen | Inside | tuple[str, str]] = []
    for number, (name, rule) in enumerate(meant.rows):
        broken = found.ragged.get(number) or rule
        if broken is None and name in by_name:
            rows.append(by_name[name])
            continue
        place = unread.get(name or "") or meant.places.get(name or "")
        why = (place.rule, place.reason) if isinstance(place, Refusal) else table_paths.NOWHERE
        rows.append(broken or why)
    return _Rows(rows, seen, [name for name in others if name not in meant.places and name not in meant.spelt])


def _whole(source: Source) -> Seen:
    """A table, read at once. Where its paths are relative to another folder, its name is the last part alone."""
    table = source.layout.table or ""
    name = os.path.basename(table) if os.path.isabs(table) else table
    real = table_paths.real(source)
    data = real if isinstance(real, Refusal) else read_file(real)
    if isinstance(data, Refusal) or isinstance(real, Refusal):
        reason = data.reason if isinstance(data, Refusal) else ""
        raise UsageError(f"the table {shown(table)} cannot be read", expected="a readable file", received=reason)
    return Seen(Found(name, real), len(data), sha256(data), data)


def _with_rows(table: Seen, rows: Sequence[int], count: int) -> bytes:
    """The table with only these of its rows: its own bytes where they are all of them."""
    if list(rows) == list(range(count)):
        return table.bytes()
    return label_tables.some_rows(table.found.name, table.bytes(), rows)


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


def _refused_file(name: str, why: Refusal, roots: Collection[str]) -> SourceRow:
    return _row(shown(name), label_of(shown(name), roots), None, (why.rule, why.reason))


def _row(source: str, label: str | None, file: str | None, rule: tuple[str, str]) -> SourceRow:
    return SourceRow(source=source, label=label, sha256=file, rule=rule[0], reason=rule[1])

"""What a table as a source holds: its rows told apart into landed, known and refused, and the files that they name.

Reads the source and the index; writes nothing. How paths are looked up is table_paths' business.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from leptonflow.core.hashing import sha256
from leptonflow.data.ingest import example_groups, label_columns, label_tables, layouts, table_paths
from leptonflow.data.ingest.folder_walk import Found, Refusal, read_file
from leptonflow.data.ingest.layouts import Index, shown
from leptonflow.data.ingest.source_files import (
    Arrival,
    Progress,
    Seen,
    by_key,
    content_digest,
    measured,
    source_row,
    triples,
    with_rows,
)
from leptonflow.data.ingest.sources import Source
from leptonflow.data.validation import landed_tables
from schemas.errors import UsageError
from schemas.records import Listing, SourceRow


def arrive_table(source: Source, index: Index, classes: Sequence[str] | None, progress: Progress) -> Arrival:
    """The table with its rows that are not known and not refused, and each file they name once."""
    table = source.layout.table or ""
    itself = _whole(source)
    found = label_tables.read(itself.found.name, itself.bytes(), source.columns, classes or index.classes)
    if not len(found) and not found.broken:
        raise label_columns.no_rows(shown(table))
    if found.missing:
        raise label_columns.unknown(found.header, source.columns)
    label_columns.check_texts(found.header, source.columns)
    if found.broken:
        listing = Listing(
            digest=content_digest(triples([itself])),
            layout="table",
            files=(itself.landed(),),
            known=0,
            ignored=source.hidden,
            rows=None,
            warnings=source.warnings,
        )
        return Arrival(listing, by_key([itself]), itself, len(found))
    rows = _table_rows(source, found, progress)
    if found.cells is None and not rows.seen and source.columns.path is None:
        label_columns.check_no_texts(found.header)
    new = _new_rows(rows, itself, found, index)
    if index.ungrouped(row.sha256 for row in rows.rows if isinstance(row, Seen | Inside)):
        example_groups.check(index.group, "table", inside=found.cells is not None)
        named = zip(rows.rows, found.labels, strict=True)
        example_groups.check_names(index.group, ((r.name, each) for r, each in named if isinstance(r, Seen)), None)
    landed = {file.found.name: file for file in new.files if file.found.name != itself.found.name}
    records = [file.landed() for file in sorted(landed.values(), key=_name)]
    if new.kept:
        part = with_rows(itself, new.kept, len(found))
        records.insert(0, itself.landed().model_copy(update={"size": len(part), "sha256": sha256(part)}))
    own = source.columns.path is not None or source.columns.label is not None
    listing = Listing(
        digest=content_digest(triples([itself, *(file for file in rows.seen if file.found.name != itself.found.name)])),
        layout="table",
        files=tuple(records),
        known=new.known,
        ignored=source.hidden + len(rows.left),
        rows=tuple(new.kept),
        refused=tuple(new.refused),
        warnings=(
            *source.warnings,
            *((layouts.beside_warning(rows.left),) if rows.left else ()),
            *label_columns.doubled(found.header, source.columns),
            *layouts.lookalikes(found.written, index.classes or ()),
            *example_groups.warnings(new.moved),
        ),
        columns=(source.columns.path, source.columns.label) if own else None,
        cells=source.columns.cells,
        images=None if found.cells is not None else tuple(file.name for file in new.files),
    )
    return Arrival(listing, by_key([*rows.seen, itself]), itself, len(found))


class _New(NamedTuple):
    """A table's rows held against the index.

    kept   the numbers of the rows that are landed; files: what each of them names, where it is a file
    """

    kept: list[int]
    files: list[Seen]
    refused: list[SourceRow]
    known: int
    moved: list[example_groups.Moved]


def _new_rows(rows: _Rows, itself: Seen, found: label_columns.LabelTable, index: Index) -> _New:
    kept: list[int] = []
    files: list[Seen] = []
    refused: list[SourceRow] = []
    known = 0
    moved: list[example_groups.Moved] = []
    for number, row in enumerate(rows.rows):
        label, at = found.labels[number], f"{itself.name}[{number}]"
        if not isinstance(row, Seen | Inside):
            refused.append(source_row(at, label, None, row))
            continue
        before = index.recalled.get((row.sha256, label or ""))
        if index.has(row.sha256, label):
            known += 1
            if index.group is not None:
                name = row.name if isinstance(row, Seen) else None
                group = example_groups.of_row(index.group, found.groups, number, name, label)
                moved += example_groups.moved(at, index.groups.get(row.sha256), group)
        elif before is not None:
            refused.append(source_row(at, label, row.sha256, before))
        else:
            kept.append(number)
            if isinstance(row, Seen):
                files.append(row)
    return _New(kept, files, refused, known, moved)


class Inside(NamedTuple):
    """An example that lies in the table itself."""

    sha256: str


class _Rows(NamedTuple):
    """What each row of a table names: a file, an example inside, or the rule why there is none.

    seen  every file that a row names
    left  the names beside the table that no row means
    """

    rows: list[Seen | Inside | tuple[str, str]]
    seen: list[Seen]
    left: list[str]


def _table_rows(source: Source, found: label_columns.LabelTable, progress: Progress) -> _Rows:
    others = [file.name for file in source.files if file.name != source.layout.table]
    if found.cells is not None:
        inside: list[Seen | Inside | tuple[str, str]] = [
            Inside(sha256(data)) if data is not None else found.ragged.get(number, landed_tables.NO_EXAMPLE)
            for number, data in enumerate(found.cells)
        ]
        return _Rows(inside, [], others)
    meant = table_paths.Paths(source, found.paths)
    files = [Found(name, place) for name, place in meant.places.items() if isinstance(place, str)]
    seen, unread = measured(files, progress)
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


def _name(file: Seen) -> tuple[str, str]:
    return file.name, file.found.name

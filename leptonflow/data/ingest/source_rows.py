"""What a source holds: every file measured, every row told apart into landed, known and refused.

Reads the source and the index; writes nothing. What does not belong here: the batch's protocol on the
store (landing), and whether an example is any good (examination).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from leptonflow.data.ingest import array_files, example_groups, layouts
from leptonflow.data.ingest.folder_walk import Refusal
from leptonflow.data.ingest.layouts import Index, label_of, shown
from leptonflow.data.ingest.source_files import (
    Arrival,
    Progress,
    by_key,
    content_digest,
    measured,
    source_row,
    triples,
)
from leptonflow.data.ingest.sources import Source
from leptonflow.data.ingest.table_rows import arrive_table
from leptonflow.data.validation.acceptance import BY_SOURCE
from schemas.errors import UsageError
from schemas.records import Listing, SourceRow


def arrive(source: Source, index: Index, classes: Sequence[str] | None, progress: Progress) -> Arrival:
    """Read a source: a folder, arrays, or a table and the files that it names.

    Raises UsageError where it holds nothing, LeptonflowError where it changes meanwhile.
    """
    if source.layout.kind == "table":
        return arrive_table(source, index, classes, progress)
    if source.layout.kind == "npy":
        return _arrive_npy(source, index, classes, progress)
    return _arrive_folder(source, index, progress)


def _arrive_folder(source: Source, index: Index, progress: Progress) -> Arrival:
    """The files that are neither known nor quarantined before."""
    roots = frozenset(source.layout.roots)
    seen, refused = measured(source.files, progress)
    rows = [_refused_file(name, why, roots) for name, why in {**dict(source.refused), **refused}.items()]
    content = content_digest([*triples(seen), *((row.source, None, row.rule) for row in rows)])
    known, landed = 0, []
    moved: list[example_groups.Moved] = []
    folders = {layouts.class_folder(file.name, roots) for file in seen}
    for file in seen:
        label = label_of(file.name, roots)
        before = index.recalled.get((file.sha256, label or ""))
        if index.has(file.sha256, label):
            known += 1
            if index.group is not None:
                found = example_groups.of_name(index.group, file.name, label, roots)
                moved += example_groups.moved(file.name, index.groups.get(file.sha256), found)
        elif before is not None:
            rows.append(source_row(file.name, label, file.sha256, before))
        else:
            landed.append(file.landed())
    if index.ungrouped(file.sha256 for file in seen):
        example_groups.check(index.group, "folders", inside=False)
        example_groups.check_names(index.group, ((file.name, label_of(file.name, roots)) for file in seen), roots)
    listing = Listing(
        digest=content,
        layout="folders",
        files=tuple(landed),
        known=known,
        ignored=source.ignored,
        refused=tuple(sorted(rows, key=lambda row: row.source)),
        warnings=(
            *source.warnings,
            *layouts.lookalikes(filter(None, folders), index.classes or ()),
            *example_groups.warnings(moved),
        ),
        roots=source.layout.roots,
        split=source.layout.split,
    )
    return Arrival(listing, by_key(seen))


def _arrive_npy(source: Source, index: Index, classes: Sequence[str] | None, progress: Progress) -> Arrival:
    """The arrays are landed whole, unless each of their rows is known or was quarantined before."""
    example_groups.check(index.group, "npy", inside=False)
    seen, refused = measured(source.files, progress)
    if refused:
        name, why = next(iter(refused.items()))
        raise UsageError(f"{shown(name)} cannot be read", expected="a readable file", received=why.reason)
    listing = Listing(
        digest=content_digest(triples(seen)),
        layout="npy",
        files=tuple(file.landed() for file in seen),
        known=0,
        ignored=source.ignored,
        warnings=source.warnings,
    )
    arrival = Arrival(listing, by_key(seen))
    if not index.known and not index.recalled:
        return arrival
    known, recalled = 0, []
    files = {file.found.name: file.found.real for file in seen}
    every = (
        array_files.read_each(data, files[data], None if data == labels else files[labels], classes or index.classes)
        for data, labels in source.layout.pairs
    )
    for name, rows in (each for pair in every for each in pair):
        if rows.values is None or not len(rows) or not array_files.is_plain(rows):
            return arrival
        for number in range(len(rows)):
            label, digits = rows.labels[number], array_files.row_sha256(rows.row(number))
            before = index.recalled.get((digits, label or ""))
            if rows.rules[number] is None and index.has(digits, label):
                known += 1
            elif before is not None and before[0] not in BY_SOURCE:
                recalled.append(source_row(f"{shown(name)}[{number}]", label, digits, before))
            else:
                return arrival
    update = {"files": (), "known": known, "refused": tuple(recalled)}
    return replace(arrival, listing=listing.model_copy(update=update))


def _refused_file(name: str, why: Refusal, roots: Collection[str]) -> SourceRow:
    return source_row(shown(name), label_of(shown(name), roots), None, (why.rule, why.reason))

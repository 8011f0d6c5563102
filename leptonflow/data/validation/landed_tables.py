"""The rows of a landed table: each names a file of the batch, or holds its example.

Files are read and examined by the caller (examination).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from leptonflow.core.hashing import sha256
from leptonflow.data.ingest import example_groups, label_tables, table_paths
from leptonflow.data.ingest.label_columns import DEFAULT, Columns, LabelTable, Rule
from leptonflow.data.ingest.layouts import Batch, Item
from leptonflow.data.validation.examined_rows import Looked, Row, example_row
from leptonflow.workloads.base import Examined
from schemas.groups import Group

NO_EXAMPLE = (table_paths.MISSING, "the row holds no example")


def rows(
    batch: Batch,
    table: Item,
    data: bytes,
    classes: Sequence[str] | None,
    look: Callable[[Sequence[Item]], list[Looked]],
    examine: Callable[[bytes], Examined],
    columns: Columns = DEFAULT,
    group: Group | None = None,
) -> list[Row]:
    """Every row of a landed table, in its order, but those that were refused at the source.

    look     each file examined, in the order given
    examine  an example that lies in the table
    columns  the pipeline's, for a batch without a listing
    group    how each row's group is found, where the pipeline has groups
    """
    if batch.listing is not None:
        columns = Columns(*(batch.listing.columns or (None, None)), batch.listing.cells)
    columns = columns._replace(group=group.column if group else None)
    found = label_tables.read(table.name, data, columns, classes)
    if found.broken:
        return [Row(table.name, None, table.key, None, sha256(data), *found.broken)]
    told = batch.listing.rows if batch.listing is not None else None
    numbers = told if told is not None else tuple(range(len(found)))
    if found.missing:
        return [refused(table, number, None, found.missing) for number in numbers]
    if found.cells is not None:
        return list(_inside(table, numbers, found, examine, group))
    landed = batch.listing.images if batch.listing is not None else None
    named = {item.name: item for item in batch.items}
    there = table_paths.Names(named, table.name, batch.shape.suffixes)
    meant = [(name, None) for name in landed] if landed is not None else [there.find(path) for path in found.paths]
    files = {name: named[name] for name, _ in meant if name is not None and name in named}
    escaped = {} if batch.listing is not None else {row.source: (row.rule, row.reason) for row in batch.refused}
    looked = dict(zip(files, look(list(files.values())), strict=True))
    found_rows: list[Row] = []
    for at, (name, broken) in enumerate(meant):
        label = found.labels[at]
        if name is not None and name in looked:
            source = f"{table.name}[{numbers[at]}]"
            row = example_row(source, label, files[name].key, numbers[at], looked[name])
            if group is not None:
                row = row.grouped(example_groups.of_row(group, found.groups, at, name, label))
            found_rows.append(row)
        else:
            link = _escape(label_tables.name_of(found.paths[at])[0] or "", escaped)
            missing = ("missing-file", f"{name!r} is not in the batch")
            found_rows.append(refused(table, numbers[at], label, found.ragged.get(at) or link or broken or missing))
    return found_rows


def _inside(
    table: Item, numbers: Sequence[int], found: LabelTable, examine: Callable[[bytes], Examined], group: Group | None
) -> Iterator[Row]:
    """The rows of a table that holds the examples themselves."""
    for at, (number, label, data) in enumerate(zip(numbers, found.labels, found.cells or (), strict=True)):
        if data is None:
            yield refused(table, number, label, found.ragged.get(at, NO_EXAMPLE))
        else:
            row = example_row(f"{table.name}[{number}]", label, table.key, number, (sha256(data), examine(data)))
            yield row if group is None else row.grouped(example_groups.of_row(group, found.groups, at, None, label))


def _escape(name: str, escaped: dict[str, tuple[str, str]]) -> tuple[str, str] | None:
    """The rule of a link that stands in this name, if one does."""
    parts = name.split("/")
    return next((escaped[p] for p in ("/".join(parts[: n + 1]) for n in range(len(parts))) if p in escaped), None)


def refused(table: Item, number: int, label: str | None, rule: Rule) -> Row:
    """A row that names no file which could be examined."""
    return Row(f"{table.name}[{number}]", label, None, number, None, *rule)

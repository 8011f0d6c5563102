"""Which workload takes a source of which nobody has said it: what `init` chooses, and why.

A file of an example is known by its name, a table by its columns. What does not belong here: classes, and what is
proposed for them (source_summary).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from leptonflow.data.ingest import label_columns, source_summary, table_paths
from leptonflow.data.ingest.label_columns import Columns, LabelTable
from leptonflow.data.ingest.sources import Source, open_source
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Workload
from schemas.config import WORKLOADS
from schemas.errors import UsageError
from schemas.text import counted

ROWS = 200  # of a table whose paths are looked up
UNNAMED = 4  # files whose suffix says nothing, such as DICOM's, that count as one that is an example by its suffix
IDS = ("id", "id_code", "image_id")  # columns that need not hold paths


class Chosen(NamedTuple):
    """A source as a workload reads it. why: why this one, where another could be meant."""

    workload: Workload
    source: Source
    why: str | None


class _Read(NamedTuple):
    """examples: how many there are, of a table in its first rows. columns: of a table, with the examples or paths.

    named: how many files are examples by their suffix. table: where it is one.
    """

    workload: Workload
    source: Source
    examples: int
    columns: tuple[str, ...] = ()
    named: int = 0
    table: LabelTable | None = None


def choose(path: Path, columns: Columns, root: Path | None) -> Chosen:
    """The first workload that finds at least half as many examples as the one that finds most.

    A column that was named decides. Raises UsageError where no workload can read the source.
    """
    if columns.path and columns.cells:
        raise UsageError(
            "a row of a table holds its example or names its file", expected="--path-column or --text-column",
            received="both",
        )  # fmt: skip
    found: list[_Read] = []
    refused: list[UsageError] = []
    for name in WORKLOADS:
        workload = catalog.load(name)
        if (columns.cells and workload.cells is None) or (columns.path and workload.cells is not None):
            continue
        own = columns if workload.cells is None or columns.cells else columns._replace(cells=())
        try:
            source = open_source(path, None, own, root, workload.suffixes)
        except UsageError as error:
            refused.append(error)
        else:
            if source.layout.kind in workload.layouts:
                found.append(_read(workload, source))
    if not found:
        raise refused[0]
    if all(each.table is not None and (each.table.broken or each.table.missing) for each in found):
        raise _unfit(found)
    if all(each.table is not None and not len(each.table) for each in found):
        raise label_columns.no_rows(found[0].source.layout.table or "")
    most = max(each.examples for each in found)
    best = next(each for each in found if 2 * each.examples >= most)
    others = [each for each in found if each is not best and (each.named or set(each.columns) - set(IDS))]
    return Chosen(best.workload, best.source, _why(best, others[0]) if others else None)


def _read(workload: Workload, source: Source) -> _Read:
    if source.layout.kind == "npy":
        return _Read(workload, source, len(source.layout.pairs))
    if source.layout.kind == "folders":
        held = tuple(workload.suffixes.held)
        named = sum(file.name.lower().endswith(held) for file in source.files)
        return _Read(workload, source, named + (len(source.files) - named) // UNNAMED, named=named)
    table = source_summary.table(source)
    at = label_columns.find_examples(table.header, source.columns)[0]
    examples = len(table) if table.cells is not None else _files(source, table)
    columns = tuple(table.header[each] for each in at or ())
    return _Read(workload, source, examples, columns, table=table)


def _unfit(found: Sequence[_Read]) -> UsageError:
    """A table that no workload can read: damaged, or without a column of examples or labels."""
    damaged = next((each for each in found if each.table is not None and each.table.broken), found[0])
    best = next((each for each in found if each.columns), damaged)
    assert best.table is not None
    if best.table.broken:
        return UsageError(
            f"the table {best.source.layout.table} cannot be read",
            expected="a whole CSV, TSV or JSON Lines table in UTF-8, or Parquet", received=best.table.broken[1],
        )  # fmt: skip
    return label_columns.unknown(best.table.header, best.source.columns)


def _files(source: Source, table: LabelTable) -> int:
    """How many of the first rows name a file that is there."""
    paths = table_paths.Paths(source, table.paths[:ROWS])
    return sum(isinstance(paths.places.get(name or ""), str) for name, _ in paths.rows)


def _why(best: _Read, other: _Read) -> str:
    if best.source.layout.kind != "table":
        return (
            f"read as {best.workload.noun}: by their names, {counted(best.named, 'file is', 'files are')} of "
            f"{best.workload.noun}, and {other.named} of {other.workload.noun}"
        )
    theirs, mine = " and ".join(map(repr, other.columns)), " and ".join(map(repr, best.columns))
    if best.workload.cells is None:
        return f"read as {best.workload.noun}, since {mine or 'a column'} leads to them; --text-column takes {theirs}"
    return f"read as {best.workload.noun} in {mine}, since {theirs} leads to no files; --path-column takes it for paths"

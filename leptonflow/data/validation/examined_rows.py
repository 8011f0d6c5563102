"""One row of a batch after examination, as examining hands it to judging.

How a row is come by belongs to examining and table_rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from leptonflow.data.ingest.example_groups import Grouped
from leptonflow.workloads.base import Examined
from schemas.records import SourceRow
from schemas.text import counted, nfc

NOTES = 5  # told of a batch, the most frequent first
Looked = tuple[str | None, Examined]  # the file's sha256, what was seen


class Row(NamedTuple):
    """One row that arrived. Either `rule` and `reason`, or `id`, `facts` and `encoded`.

    source the original name, or `file.npy[i]`, `labels.csv[i]`
    key    of the landed file, relative to the batch's folder; row: its number in `.npy` or a table
    sha256 of the file, or of a `.npy` row's raw bytes
    note   what a person should know of an example that is accepted
    group  what it belongs to, and no_group why that is not known; both None where the pipeline has no groups
    """

    source: str
    label: str | None
    key: str | None
    row: int | None
    sha256: str | None
    rule: str | None
    reason: str | None
    id: str | None = None
    facts: dict[str, Any] | None = None
    encoded: bytes | None = None
    note: str | None = None
    group: str | None = None
    no_group: str | None = None

    def grouped(self, found: Grouped) -> Row:
        """The same row with its group."""
        return self._replace(group=found.group, no_group=found.why)


def notes(rows: Sequence[Row]) -> list[str]:
    """What a person should know of these rows: one sentence for each note, with its count and an example."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.note is not None:
            found.setdefault(row.note, []).append(row.source)
    most = sorted(found, key=lambda note: -len(found[note]))
    every = counted(len(rows), "example")
    told = [f"{note}: {len(found[note])} of {every}, such as {found[note][0]}" for note in most[:NOTES]]
    rest = sum(len(found[note]) for note in most[NOTES:])
    return told + ([f"{counted(rest, 'more example has', 'more examples have')} other notes"] if rest else [])


def example_row(source: str, label: str | None, key: str | None, number: int | None, looked: Looked) -> Row:
    """A row whose example was looked at."""
    digits, found = looked
    seen = (found.rule, found.reason, found.id, found.facts, found.encoded, found.note)
    return Row(nfc(source), label, key, number, digits, *seen)


def source_row(row: SourceRow, numbered: bool) -> Row:
    """A row that was refused at the source. `numbered`: its source ends with its number in brackets."""
    number = int(row.source.rpartition("[")[2].rstrip("]")) if numbered else None
    label = nfc(row.label) if row.label else row.label
    return Row(nfc(row.source), label, None, number, row.sha256, row.rule, row.reason)


def row_number(row: Row) -> int:
    """What rows of arrays and tables are sorted by."""
    return -1 if row.row is None else row.row

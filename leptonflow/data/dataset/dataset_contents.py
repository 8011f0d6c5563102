"""What the dataset holds after its records: parts, newer labels, retracted examples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from leptonflow.core import parquet
from leptonflow.core.hashing import canonical
from leptonflow.data.dataset.part_files import read_columns, read_part, read_rows
from leptonflow.storage.commit_log import Entry
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from schemas.groups import Group
from schemas.records import ChangesRef, PartRef
from schemas.text import nfc

if TYPE_CHECKING:
    import pyarrow as pa

RELABELLED, RETRACTED = "relabelled", "retracted"  # kinds of records that change accepted examples


def accepted_parts(entries: Iterable[Entry]) -> list[PartRef]:
    """The parts of each accepted batch, as it was first encoded."""
    return [PartRef.model_validate(p) for entry in entries if entry.kind == "batch" for p in entry.body["parts"]]


def accepted_batches(entries: Iterable[Entry]) -> list[str]:
    """The names of the accepted batches, oldest first."""
    return [entry.body["batch"] for entry in entries if entry.kind == "batch"]


def changes(entries: Iterable[Entry]) -> tuple[ChangesRef, ...]:
    """What the records changed about accepted examples, oldest first."""
    found = (entry.body for entry in entries if entry.kind in (RELABELLED, RETRACTED))
    return tuple(ChangesRef.model_validate(body["changes"]) for body in found)


def read_changes(store: Store, changes: Iterable[ChangesRef]) -> dict[str, str | None]:
    """Example id -> its label now, None where it was retracted; the newest record decides. Raises Damaged."""
    found: dict[str, str | None] = {}
    for change in changes:
        table = parquet.read(recorded(store, change.key, change.sha256), ("id", "label"))
        found.update(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return found


def tables(
    store: Store,
    parts: Iterable[PartRef],
    changes: Iterable[ChangesRef],
    columns: Sequence[str],
    *,
    verified: bool = False,
    rows: int | None = None,
) -> Iterator[pa.Table]:
    """Some columns of each part, `id` among them, as the records say: newer labels, and nothing that was retracted.

    verified: the whole part is read at once, for its examples; rows: so many of its rows at a time.
    """
    import pyarrow as pa

    changed = read_changes(store, changes)
    read = read_part if verified else read_columns
    for table in (
        table
        for part in parts
        for table in ([read(store, part, columns)] if rows is None else read_rows(store, part, columns, rows))
    ):
        ids = table["id"].to_pylist() if changed else []
        touched = any(example in changed for example in ids)
        if "label" in columns:
            labels = table["label"].to_pylist()
            if touched or not all(label.isascii() for label in labels):
                if touched:
                    labels = [changed.get(example, label) for example, label in zip(ids, labels, strict=True)]
                now = pa.array([label and nfc(label) for label in labels], pa.string())  # older parts have other forms
                table = table.set_column(table.schema.get_field_index("label"), "label", now)
        if touched:
            table = table.filter(pa.array([changed.get(example, "") is not None for example in ids], pa.bool_()))
        yield table


def groups(store: Store, parts: Iterable[PartRef], group: Group | None) -> dict[str, str]:
    """Example id -> its group; empty where the pipeline has no groups, and every example is one by itself."""
    found: dict[str, str] = {}
    for part in parts if group is not None else ():
        table = read_columns(store, part, ("id", "group"))
        found.update(zip(table["id"].to_pylist(), table["group"].to_pylist(), strict=True))
    return found


def pairs(store: Store, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(example id, label) of all that the dataset holds after these records."""
    found: list[tuple[str, str]] = []
    for table in tables(store, accepted_parts(entries), changes(entries), ("id", "label")):
        found += zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)
    return found


def content_digest(
    pairs: Iterable[tuple[str, str]], preprocessing: str, groups: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The snapshot's content: sorted (example id, label), with its group where it has one, and the preprocessing."""
    state = hashlib.sha256()
    state.update(canonical(preprocessing))
    for example, label in sorted(pairs):
        state.update(f"\n{example} {label}".encode())
        if example in groups:
            state.update(b"\0" + canonical(groups[example]))
    return state.hexdigest()

"""An accepted example as it arrived: its original name, its label, its bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from leptonflow.core import store_keys
from leptonflow.core.hashing import sha256
from leptonflow.data.dataset import change_records, dataset_state
from leptonflow.data.ingest import array_files, label_tables, landed_changes, landing
from leptonflow.data.ingest.label_columns import DEFAULT, Columns, of_pipeline
from leptonflow.registry import packages
from leptonflow.storage.objects import BACK
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.errors import Damaged, NotFound

COLUMNS = ("id", "label", "batch", "source", "sha256", "key", "row")


@dataclass(frozen=True)
class Example:
    """label: now, None where it was retracted. bytes: the file; of a row of an array, its values in C order."""

    id: str
    pipeline: str
    batch: str
    label: str | None
    source: str
    bytes: bytes = field(repr=False)


def example(store: Store, pipelines: list[str], name: str) -> Example:
    """The example whose id is, or begins with, `name`, of the first of these pipelines that holds it.

    Raises UsageError where the name is too short or fits several, NotFound where it fits none, Damaged where the landed
    bytes are not those that were accepted.
    """
    for pipeline in pipelines:
        rows = change_records.rows(store, dataset_state.snapshots(store, pipeline), retracted=True, columns=COLUMNS)
        row = change_records.with_id(rows, name)
        if row is not None:
            data = _original(store, pipeline, row)
            return Example(row["id"], pipeline, row["batch"], row["label"], row["source"], data)
    raise NotFound(
        "no example has that id", expected="an id, or its beginning, such as predictions.example_id", received=name
    )


def _original(store: Store, pipeline: str, row: dict[str, Any]) -> bytes:
    """The bytes whose sha256 was recorded: a landed file, or a row of a landed array or table."""
    missing = store_keys.landed_key(pipeline, row["batch"], row["key"])
    key = landed_changes.keys(store, pipeline, row["batch"]).get(row["key"])
    if key is not None:
        data = store.get(key)
        if sha256(data) != row["sha256"] and row["row"] is not None:
            data = _row(store, pipeline, row, data)
        if sha256(data) == row["sha256"]:
            return data
    raise Damaged(
        f"{missing} is not what was accepted", expected=f"sha256 {row['sha256']}",
        received="no such object" if key is None else "other bytes", hint=BACK,
    )  # fmt: skip


def _row(store: Store, pipeline: str, row: dict[str, Any], file: bytes) -> bytes:
    """A row of a landed file; empty where it has no such row."""
    import numpy as np

    name, number = row["source"].rpartition("[")[0], row["row"]
    if row["key"].lower().endswith(".npy"):
        values = np.load(io.BytesIO(file), allow_pickle=False)
        return np.ascontiguousarray(values[number]).tobytes() if number < len(values) else b""
    if row["key"].lower().endswith(".npz"):
        pairs = array_files.read_each(name.rpartition("/")[0], file, None, None)
        rows = next((pair for called, pair in pairs if called == name and number < len(pair)), None)
        return rows.row(number).tobytes() if rows is not None and rows.values is not None else b""
    listing = landing.listed(store, pipeline, row["batch"])
    if listing is not None:
        tried = [Columns(*(listing.columns or (None, None)), listing.cells)]
    else:  # landed by hand: the columns that a YAML named are told by the pipeline's versions alone
        versions, _ = packages.readable(store, pipeline)
        own = (of_pipeline(catalog.load(each.workload), each.input) for each in versions)
        tried = [DEFAULT, Columns(cells=()), *own]
    for columns in dict.fromkeys(tried):
        cells = label_tables.read(name, file, columns).cells or []
        landed = listing.rows if listing is not None and listing.rows is not None else range(len(cells))
        found = dict(zip(landed, cells, strict=False)).get(number) or b""
        if sha256(found) == row["sha256"]:
            return found
    return b""

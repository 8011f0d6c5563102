"""The examples that a fit learns from and the holdout, read from their parts into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leptonflow.data.dataset.dataset_contents import tables
from leptonflow.data.dataset.holdout_split import in_holdout
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.records import SnapshotRef
from schemas.text import nfc

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """N examples, sorted by id. labels: true values, such as class numbers. inputs: N of them, by the codec.

    groups: what each belongs to; None in a pipeline without groups.
    """

    ids: list[str]
    labels: NDArray[Any]
    inputs: NDArray[Any]
    batches: list[str]
    sources: list[str]
    groups: list[str] | None = None


def training_set(store: Store, config: Pipeline, snapshot: SnapshotRef) -> Examples:
    """The examples outside the holdout."""
    return _load(store, config, snapshot, lambda e: not in_holdout(e, snapshot.holdout))


def holdout_set(store: Store, config: Pipeline, snapshot: SnapshotRef) -> Examples:
    """The holdout's examples, encoded as the pipeline's `input` says. The snapshot's parts must be so encoded."""
    return _load(store, config, snapshot, lambda e: in_holdout(e, snapshot.holdout))


def _load(store: Store, config: Pipeline, snapshot: SnapshotRef, keep: Callable[[str], bool]) -> Examples:
    import numpy as np
    import pyarrow as pa

    workload = catalog.load(config.workload)
    codec = workload.codec
    rows: list[tuple[str, ...]] = []
    blocks: list[NDArray[Any]] = []
    unit = "id" if snapshot.group is None else "group"
    columns = ("id", "label", "batch", "source", *(() if unit == "id" else (unit,)), codec.column)
    for table in tables(store, snapshot.parts, snapshot.changes, columns, verified=True):
        table = table.filter(pa.array([keep(each) for each in table[unit].to_pylist()], pa.bool_()))
        rows += zip(*(c.to_pylist() for c in table.columns[:-1]), strict=True)
        blocks += [codec.read(chunk, config.input) for chunk in table[codec.column].chunks]
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])
    places = np.empty(len(rows), np.int64)  # where each row, in the order of the parts, belongs
    places[order] = np.arange(len(rows))
    inputs = codec.empty(len(rows), config.input)
    done = 0
    while blocks:  # examples are the bulk of the memory: each block goes as soon as it is copied
        block = blocks.pop(0)
        inputs[places[done : done + len(block)]] = block
        done += len(block)
    rows = [rows[i] for i in order]
    return Examples(
        ids=[row[0] for row in rows],
        labels=workload.target.read([row[1] for row in rows], [nfc(name) for name in snapshot.classes]),
        inputs=inputs,
        batches=[row[2] for row in rows],
        sources=[row[3] for row in rows],
        groups=None if snapshot.group is None else [row[4] for row in rows],
    )

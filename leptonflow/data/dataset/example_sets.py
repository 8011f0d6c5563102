"""Preprocessed examples as Parquet parts, the snapshots they make up, and how a snapshot is split.

A part is immutable and lies under the digest of its bytes. Pixels are train-ready: uint8, height x
width x channels, as fixed-size binary. What does not belong here: which examples are accepted
(admission), and what is learned from them (training).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leptonflow.data.dataset.dataset_contents import tables
from leptonflow.data.dataset.holdout_split import in_holdout
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.records import SnapshotRef
from schemas.text import nfc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """N examples, sorted by id. labels: class numbers in the snapshot's order. pixels: uint8 N x H x W x C."""

    ids: list[str]
    labels: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    batches: list[str]
    sources: list[str]


def training_set(store: Store, config: Pipeline, snapshot: SnapshotRef) -> Examples:
    """The examples outside the holdout. The last one asked for is kept, since every fold needs it."""
    key = (store.uri, snapshot.content, snapshot.holdout, snapshot.classes)
    if _KEPT.get("key") != key:
        _KEPT.clear()
        _KEPT.update(
            key=key, examples=_load(store, snapshot, config.input, lambda e: not in_holdout(e, snapshot.holdout))
        )
    kept: Examples = _KEPT["examples"]
    return kept


_KEPT: dict[str, Any] = {}


def holdout_set(
    store: Store, config: Pipeline, snapshot: SnapshotRef, shape: tuple[int, int, int] | None = None
) -> Examples:
    """The holdout's examples; with `shape`, encoded for another input (a champion's own)."""
    if shape is not None and shape != config.input:
        from leptonflow.data.dataset import reencoding

        snapshot = reencoding.reencoded(store, config, snapshot, shape)
    return _load(store, snapshot, shape or config.input, lambda e: in_holdout(e, snapshot.holdout))


def _load(store: Store, snapshot: SnapshotRef, shape: tuple[int, int, int], keep: Callable[[str], bool]) -> Examples:
    import numpy as np
    import pyarrow as pa

    numbers = {nfc(name): n for n, name in enumerate(snapshot.classes)}
    rows: list[tuple[str, str, str, str]] = []
    blocks: list[NDArray[np.uint8]] = []
    columns = ("id", "label", "batch", "source", "pixels")
    for table in tables(store, snapshot.parts, snapshot.changes, columns, verified=True):
        table = table.filter(pa.array([keep(e) for e in table["id"].to_pylist()], pa.bool_()))
        rows += zip(*(c.to_pylist() for c in table.columns[:-1]), strict=True)
        for chunk in table["pixels"].chunks:
            width = chunk.type.byte_width
            flat = np.frombuffer(chunk.buffers()[1], np.uint8)
            blocks.append(flat[chunk.offset * width : (chunk.offset + len(chunk)) * width].reshape(-1, *shape))
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])
    places = np.empty(len(rows), np.int64)  # where each row, in the order of the parts, belongs
    places[order] = np.arange(len(rows))
    pixels = np.empty((len(rows), *shape), np.uint8)
    done = 0
    while blocks:  # images are the bulk of the memory: each block goes as soon as it is copied
        block = blocks.pop(0)
        pixels[places[done : done + len(block)]] = block
        done += len(block)
    rows = [rows[i] for i in order]
    return Examples(
        ids=[row[0] for row in rows],
        labels=np.array([numbers[row[1]] for row in rows], np.int64),
        pixels=pixels,
        batches=[row[2] for row in rows],
        sources=[row[3] for row in rows],
    )



"""The examples that a fit learns from and the holdout, read from their parts into memory, or into a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leptonflow.core import progress, spools
from leptonflow.data.dataset.dataset_contents import tables
from leptonflow.data.dataset.holdout_split import example_place, in_holdout
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Codec
from schemas.config import Pipeline
from schemas.errors import ConfigurationError
from schemas.records import SnapshotRef
from schemas.text import nfc

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ROWS = 1024  # of a part, that are in memory while they go into a file


@dataclass(frozen=True)
class Examples:
    """N examples, sorted by id. labels: true values, such as class numbers. inputs: N of them, by the codec, in
    memory or, where they do not fit, in a file that `core.spools` reads.

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
    import pyarrow as pa
    import pyarrow.compute as pc

    workload = catalog.load(config.workload)
    codec, in_memory = workload.codec, example_place(config, snapshot).in_memory
    blocks: list[NDArray[Any]] = []
    kept: list[pa.Array] = []
    unit = "id" if snapshot.group is None else "group"
    columns = ("id", "label", "batch", "source", *(() if unit == "id" else (unit,)))
    read = (*columns, codec.column) if in_memory else columns
    parts: list[pa.Table] = []
    for table in tables(store, snapshot.parts, snapshot.changes, read, verified=in_memory):
        kept.append(pa.array([keep(each) for each in table[unit].to_pylist()], pa.bool_()))
        table = table.filter(kept[-1])
        parts.append(table.select(columns).cast(pa.schema([(name, pa.string()) for name in columns])))
        blocks += [codec.read(chunk, config.input) for chunk in table[codec.column].chunks] if in_memory else ()
    rows = pa.concat_tables(parts)
    order = pc.sort_indices(rows["id"]).to_numpy()  # as Python sorts them: by code points
    inputs = _ordered(order, blocks, codec, config) if in_memory else _spooled(store, config, snapshot, kept, order)
    rows = rows.take(order)
    return Examples(
        ids=rows["id"].to_pylist(),
        labels=workload.target.read(rows["label"].to_pylist(), [nfc(name) for name in snapshot.classes]),
        inputs=inputs,
        batches=rows["batch"].to_pylist(),
        sources=rows["source"].to_pylist(),
        groups=None if snapshot.group is None else rows["group"].to_pylist(),
    )


def _places(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each row, in the order of the parts, belongs."""
    import numpy as np

    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def _ordered(order: NDArray[np.int64], blocks: list[NDArray[Any]], codec: Codec, config: Pipeline) -> NDArray[Any]:
    """The examples in that order, in memory. Takes the blocks out of their list."""
    inputs, places = codec.empty(len(order), config.input), _places(order)
    done = 0
    while blocks:  # examples are the bulk of the memory: each block goes as soon as it is copied
        block = blocks.pop(0)
        inputs[places[done : done + len(block)]] = block
        done += len(block)
    return inputs


def _spooled(
    store: Store, config: Pipeline, snapshot: SnapshotRef, kept: Sequence[pa.Array], order: NDArray[np.int64]
) -> NDArray[Any]:
    """The examples in that order, in a file: read from the parts in small pieces. kept: which rows of each part.

    Raises ConfigurationError where the disk is full.
    """
    codec, places = catalog.load(config.workload).codec, _places(order)
    one = codec.empty(0, config.input)
    try:
        inputs = spools.create((len(order), *one.shape[1:]), one.dtype)
    except OSError as error:
        raise ConfigurationError(
            "the training set fits neither into memory nor onto the disk",
            expected=f"{len(order) * codec.bytes(config.input) / 1e9:.1f} GB in {spools.folder()}",
            received=str(error),
            hint="Set TMPDIR to a folder with more room, or make `input` smaller in the pipeline's YAML",
        ) from error
    done = 0
    for part, chosen in zip(snapshot.parts, kept, strict=True):
        start = 0
        for table in tables(store, (part,), snapshot.changes, ("id", codec.column), rows=ROWS):
            progress.pulse()
            mine = table.filter(chosen[start : start + len(table)])
            start += len(table)
            for chunk in mine[codec.column].chunks:
                inputs[places[done : done + len(chunk)]] = codec.read(chunk, config.input)
                done += len(chunk)
            spools.release(inputs)
    return inputs

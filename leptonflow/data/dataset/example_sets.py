"""The examples that a fit learns from and the holdout, read from their parts into memory, or into a file."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

READ = 32 << 20  # bytes of a part's examples that are in memory at once while they go into a file


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
    unit = "id" if snapshot.group is None else "group"
    columns = ("id", "label", "batch", "source", *(() if unit == "id" else (unit,)))
    count = None if in_memory else max(1, READ // codec.bytes(config.input))
    parts: list[pa.Table] = []

    def pieces() -> Iterator[NDArray[Any]]:
        found = tables(store, snapshot.parts, snapshot.changes, (*columns, codec.column), verified=True, rows=count)
        for table in found:
            progress.pulse()
            table = table.filter(pa.array([keep(each) for each in table[unit].to_pylist()], pa.bool_()))
            parts.append(table.select(columns).cast(pa.schema([(name, pa.string()) for name in columns])))
            yield from (codec.read(chunk, config.input) for chunk in table[codec.column].chunks)

    one = codec.empty(0, config.input)
    with _room(2 * snapshot.examples * codec.bytes(config.input)):
        blocks = list(pieces()) if in_memory else [spools.write(pieces(), one.shape[1:], one.dtype)]
        rows = pa.concat_tables(parts)
        order = pc.sort_indices(rows["id"]).to_numpy()  # as Python sorts them: by code points
        inputs = _ordered(order, blocks, codec, config) if in_memory else spools.ordered(blocks.pop(), order)
    rows = rows.take(order)
    return Examples(
        ids=rows["id"].to_pylist(),
        labels=workload.target.read(rows["label"].to_pylist(), [nfc(name) for name in snapshot.classes]),
        inputs=inputs,
        batches=rows["batch"].to_pylist(),
        sources=rows["source"].to_pylist(),
        groups=None if snapshot.group is None else rows["group"].to_pylist(),
    )


@contextmanager
def _room(size: int) -> Iterator[None]:
    """A disk that has no room for so many bytes any more, in this block, is the user's to change."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigurationError(
            "the training set fits neither into memory nor onto the disk",
            expected=f"{size / 1e9:.1f} GB in {spools.folder()}",
            received=str(error),
            hint="Set TMPDIR to a folder with more room, or make `input` smaller in the pipeline's YAML",
        ) from error


def _ordered(order: NDArray[np.int64], blocks: list[NDArray[Any]], codec: Codec, config: Pipeline) -> NDArray[Any]:
    """The examples in that order, in memory. Takes the blocks out of their list."""
    import numpy as np

    inputs = codec.empty(len(order), config.input)
    places = np.empty(len(order), np.int64)  # where each row, in the order of the parts, belongs
    places[order] = np.arange(len(order))
    done = 0
    while blocks:  # examples are the bulk of the memory: each block goes as soon as it is copied
        block = blocks.pop(0)
        inputs[places[done : done + len(block)]] = block
        done += len(block)
    return inputs

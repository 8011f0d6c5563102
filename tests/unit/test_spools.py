"""Examples that do not fit into memory are read from a file, and what is learned from them is the same."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow.core import progress, spools
from leptonflow.core.hashing import sha256
from leptonflow.data.dataset import example_sets
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from leptonflow.training.workspace import Workspace
from schemas.config import Pipeline
from schemas.errors import ConfigurationError
from schemas.records import ChangesRef, SnapshotRef
from tests.fit_examples import land, pipeline

TRAINING = {"epochs": 2, "batch_size": 16, "folds": 3, "early_stopping": {"fraction": 0.2}}


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less memory for the examples than these tests' take."""
    monkeypatch.setenv("LEPTONFLOW_TRAINING_MEMORY", "1MB")


def spooled(examples: example_sets.Examples) -> bool:
    return isinstance(examples.inputs, np.memmap)


def changed(store: Store, config: Pipeline, snapshot: SnapshotRef) -> ChangesRef:
    """A record that retracts ten examples and gives ten others another label."""
    ids = pq.read_table(pa.BufferReader(store.get(snapshot.parts[0].key)), columns=["id"])["id"].to_pylist()[40:60]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ids, "label": [None, "left"] * 10}), sink)
    data = sink.getvalue().to_pybytes()
    store.create("changes.parquet", data)
    return ChangesRef(key="changes.parquet", sha256=sha256(data), rows=20)


@pytest.mark.parametrize("local", [True, False])
def test_what_lies_in_a_file_is_what_would_lie_in_memory(
    local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pipeline(input=[64, 64, 1])
    store: Store = open_store(tmp_path.as_uri()) if local else MemoryStore("memory://spools")
    snapshot = land(store, config, count=200).snapshot
    assert snapshot is not None
    monkeypatch.setattr(example_sets, "READ", 7 * 64 * 64)
    monkeypatch.setattr(spools, "MAPPED", 11 * spools.AROUND)
    snapshot = snapshot.model_copy(update={"changes": (changed(store, config, snapshot),)})
    before = [read(store, config, snapshot) for read in (example_sets.training_set, example_sets.holdout_set)]
    few(monkeypatch)
    after = [read(store, config, snapshot) for read in (example_sets.training_set, example_sets.holdout_set)]
    for one, other in zip(before, after, strict=True):
        assert (spooled(one), spooled(other)) == (False, True)
        assert (one.ids, one.sources, one.batches) == (other.ids, other.sources, other.batches)
        assert one.ids == sorted(one.ids)
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert sum(len(one.ids) for one in before) == 190


def test_a_fit_from_a_file_learns_what_it_learns_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config, stores = pipeline(input=[64, 64, 1], training=TRAINING), [MemoryStore(f"memory://{n}") for n in (1, 2)]
    found, said = [], list[str]()
    for store in stores:
        plan, workspace = land(store, config), Workspace()
        with progress.listen(to_note=said.append):
            found.append(model_fits.train_fold(store, config, plan, 1, workspace))
            workspace.examples(store, config, plan.snapshot)  # type: ignore[arg-type]
            Workspace().examples(store, config, plan.snapshot)  # type: ignore[arg-type] # as another process would
        few(monkeypatch)
    strip = [[(each.epoch, each.metric, each.value) for each in fit.epochs] for fit in found]
    assert strip[0] == strip[1]
    assert found[0].metrics == found[1].metrics
    told = [line for line in said if "examples" in line]
    assert len(told) == 2, "once for a run, before its first step"
    assert told[0] == "140 examples of 64 x 64 x 1 (0.6 MB) are kept in memory"
    assert "(0.6 MB) are read from a file in" in told[1] and "LEPTONFLOW_TRAINING_MEMORY" in told[1]


@pytest.mark.slow
def test_folds_take_no_more_memory_than_the_first_of_them() -> None:
    model = {"filters": [1], "dense": 2, "dropout": 0.0}
    config = pipeline(input=[64, 64, 3], model=model, training={"epochs": 1, "batch_size": 256, "folds": 4})
    store, workspace = MemoryStore("memory://folds"), Workspace()
    plan = land(store, config, count=4000)
    costs = [model_fits.train_fold(store, config, plan, fold, workspace).cost for fold in range(4)]
    peaks = [cost.peak_memory for cost in costs if cost is not None]
    assert peaks[3] - peaks[1] < 12 << 20, "a copy of what one of them holds out, and less than a copy of the rest"


def test_the_file_has_no_name_and_its_memory_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pieces = (np.full((1600, 64, 64), 7 * n, np.uint8) for n in range(10))  # 64 MB
    rows = spools.write(pieces, (64, 64), np.uint8)
    assert os.listdir(tmp_path) == [], "nothing is left of it, however the process ends"
    monkeypatch.setattr(spools, "MAPPED", 8 << 20)
    numbers = np.random.default_rng(0).permutation(16_000)
    out = np.zeros((4000, 64, 64), np.uint8)
    out[:] = 1  # its own memory is there before
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = np.ones(before * 1024 - _resident() + (1 << 20), np.uint8)  # up to the largest that this process has been
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for start in range(0, 16_000, 4000):
        spools.gather(rows, numbers[start : start + 4000], out)
        np.testing.assert_array_equal(out[:, 3, 5], numbers[start : start + 4000] // 1600 * 7)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 << 10, "of 64 MB that were read"
    assert held[-1] == 1


def _resident() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Rss:"))) * 1024


def test_a_disk_that_is_full_is_exit_2_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    config, store = pipeline(input=[64, 64, 1]), MemoryStore("memory://full")
    snapshot = land(store, config).snapshot
    assert snapshot is not None
    few(monkeypatch)

    def full(pieces: object, shape: object, dtype: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spools, "write", full)  # it can fill up between the look at the disk and this
    with pytest.raises(ConfigurationError, match=r"neither into memory nor onto the disk.*No space left.*TMPDIR"):
        example_sets.training_set(store, config, snapshot)

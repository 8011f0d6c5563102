"""Epochs of fits that are under way: in the table `epochs` and in `status` at once, and each row once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leptonflow.core import store_keys
from leptonflow.core.hashing import canonical
from leptonflow.runs import pipeline_status, recording
from leptonflow.storage import run_lock
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.tables import compaction, queries
from schemas.fit_status import FitStatus
from schemas.records import EpochValue
from tests import run_examples

SQL = "select run_id, version, fold, epoch, value from epochs where metric = 'loss' order by all"


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore("memory://under-way") if request.param == "memory" else open_store(tmp_path.as_uri())


def say(store: Store, fold: int | None, epochs: int, **changes: Any) -> str:
    """The key of a status in the epoch after so many of 10."""
    values = [EpochValue(epoch=n, metric="loss", value=1 / n, seconds=0.5) for n in range(1, epochs + 1)]
    status = FitStatus(
        pipeline="digits", version="c3" * 6, run_id="d4" * 6, fold=fold, at=f"2026-11-28T12:00:{epochs:02d}.000000Z",
        epoch=epochs + 1, epochs=10, done=epochs / 10, loss=0.25, metric="val_accuracy", value=0.875,
        examples_per_second=1234.5, seconds=12.0, left=90.0, peak_memory=3 * 2**29, values=tuple(values),
    )  # fmt: skip
    key = store_keys.fit_status_key("digits", status.version, fold, 100 * epochs)
    store.create(key, status.model_copy(update=changes).model_dump_json().encode())
    return key


def rows(store: Store) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in queries.query(store, SQL).to_pylist()]


def test_the_rows_of_a_run_under_way_become_those_of_its_file(store: Store) -> None:
    earlier = run_examples.make(store)
    recording.record(store, earlier.config, earlier.plan, earlier.results())
    before = rows(store)
    assert len(before) == 24
    same = ("d4" * 6, "c3" * 6)
    assert rows(store) == before
    older = say(store, 0, 1)
    assert rows(store) == [*before, (*same, 0, 1, 1.0)]
    say(store, 0, 2)  # the one before is removed after that
    assert rows(store) == [*before, (*same, 0, 1, 1.0), (*same, 0, 2, 0.5)]
    store.remove_scratch(older)
    say(store, None, 1)

    later = run_examples.make(store, version="c3" * 6, run_id="d4" * 6, seed=1)
    for fit in later.fits[:2]:
        store.create(store_keys.fit_key("digits", fit.version, fit.fold, "manifest.json"), canonical(fit))
    found = rows(store)
    assert [row[:4] for row in found if row[1] == "c3" * 6] == [
        *[(*same, fold, epoch) for fold in (0, 1) for epoch in range(1, 7)], (*same, None, 1),
    ]  # fmt: skip
    assert ("d4" * 6, "c3" * 6, 0, 2, 0.5) not in found, "a finished fit's own values"

    recorded = recording.record(store, later.config, later.plan, later.results())
    assert recorded["verdict"] == "promoted" and not store.keys(store_keys.SCRATCH)
    say(store, None, 1)  # as of a process that was slower
    assert len(rows(store)) == 48
    assert compaction.compact(store, "epochs", most=1)
    assert len(rows(store)) == 48


def test_a_status_that_cannot_be_read_is_no_row(store: Store) -> None:
    store.create(store_keys.fit_status_key("digits", "c3" * 6, 0, 7), b"garbage")
    assert rows(store) == []


def test_status_says_how_far_the_run_is(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    run = run_examples.make(store)
    begun = {"version": "c3" * 6, "started_at": "2026-11-28T12:00:00.000000Z", "number": 1}
    store.create(store_keys.run_key("digits", "d4" * 6, "started.json"), canonical(begun))
    with run_lock.one_at_a_time(store, "digits"):
        assert pipeline_status.status(store, run.config)["running"]["progress"] is None
        say(store, 0, 10, at="2026-11-28T12:00:01.000000Z")
        say(store, 1, 3)
        told = pipeline_status.status(store, run.config)["running"]["progress"]
    assert told["sentence"] == (
        "fold 2, epoch 4 of 10, loss 0.2500, val_accuracy 0.8750, 1,234 examples/s, 90 s left, 1.5 GiB"
    )
    assert set(told) == set(FitStatus.model_fields) - {"pipeline", "version", "run_id", "values"} | {"sentence"}

"""Epochs of fits that are under way: in the table `epochs` and in `status` at once, and each row once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from leptonflow.core import store_keys
from leptonflow.core.hashing import canonical
from leptonflow.runs import pipeline_status
from leptonflow.storage import run_lock
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.tables import compaction, queries, table_files
from leptonflow.training import checkpoints
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


def write(store: Store, version: str, run_id: str, fold: int | None = 0) -> None:
    """The file of a recorded version in `epochs`, with one row."""
    row = {"pipeline": "digits", "version": version, "run_id": run_id, "fold": fold, "epoch": 1, "metric": "loss"}
    key = store_keys.table_key("epochs", "digits", version)
    table_files.write(store, [(key, table_files.arrow("epochs", [{**row, "value": 4.0, "seconds": 1.0}]))])


def test_the_rows_of_a_run_under_way_become_those_of_its_file(store: Store) -> None:
    write(store, "a1" * 6, "b2" * 6)
    before, same = [("b2" * 6, "a1" * 6, 0, 1, 4.0)], ("d4" * 6, "c3" * 6)
    assert rows(store) == before
    older = say(store, 0, 1)
    assert rows(store) == [*before, (*same, 0, 1, 1.0)]
    say(store, 0, 2)  # the one before is removed after that
    assert rows(store) == [*before, (*same, 0, 1, 1.0), (*same, 0, 2, 0.5)]
    store.remove_scratch(older)
    say(store, None, 1)

    for fit in run_examples.make(store, version="c3" * 6, run_id="d4" * 6).fits[:2]:
        store.create(store_keys.fit_key("digits", fit.version, fit.fold, "manifest.json"), canonical(fit))
    found = rows(store)
    assert [row[:4] for row in found if row[1] == "c3" * 6] == [
        *[(*same, fold, epoch) for fold in (0, 1) for epoch in range(1, 7)], (*same, None, 1),
    ]  # fmt: skip
    assert (*same, 0, 2, 0.5) not in found, "a finished fit's own values"

    write(store, "c3" * 6, "d4" * 6)  # what it still said by then is not read any more
    after = [*before, (*same, 0, 1, 4.0)]
    assert rows(store) == after
    assert compaction.compact(store, "epochs", most=1)
    assert rows(store) == after


def test_the_folds_of_a_run_that_was_stopped_early_have_their_rows_once(store: Store) -> None:
    """Also where a later run of the same version uses them again, with the others under way and then recorded."""
    run = run_examples.make(store, version="c3" * 6, run_id="d4" * 6)

    def stopped(run_id: str, folds: int) -> None:
        fits = run.fits[:folds]
        table_files.write(store, table_files.fold_files(store, "digits", run.verdict.version, run_id, fits))

    def found(table: str) -> list[tuple[Any, ...]]:
        sql = f"select fold, run_id, count(*) as rows from {table} group by all order by fold"
        return [tuple(row.values()) for row in queries.query(store, sql).to_pylist()]

    stopped("e5" * 6, 1)
    stopped("f6" * 6, 2)  # by another bound
    assert compaction.compact(store, "epochs", most=1)
    first = [(0, "e5" * 6, 24), (1, "f6" * 6, 24)]
    assert found("epochs") == first
    say(store, 1, 1)  # the run that uses them again
    say(store, 2, 2)
    assert found("epochs") == [*first, (2, "d4" * 6, 2)]

    table_files.write(store, table_files.version_files(store, run.manifest, run.package, run.fits, run.final))
    stopped("a7" * 6, 3)
    assert found("epochs") == [*first, (2, "d4" * 6, 24), (None, "d4" * 6, 12)]
    assert found("fits") == [(0, "e5" * 6, 1), (1, "f6" * 6, 1), (2, "d4" * 6, 1), (None, "d4" * 6, 1)]


def test_what_a_recorded_version_left_and_what_is_abandoned_is_swept(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    keys = {version: f"scratch/digits/{version}/fold-0/checkpoints/1.npz" for version in ("done", "fresh", "old")}
    for key in keys.values():
        store.create(key, b"data")
    week = time.time() - checkpoints.ABANDONED.total_seconds()
    os.utime(tmp_path / keys["old"], (week - 60, week - 60))
    os.utime(tmp_path / keys["fresh"], (week + 3600, week + 3600))
    checkpoints.sweep(store, "digits", "done")
    assert store.keys(store_keys.SCRATCH) == [keys["fresh"]]


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

"""The prediction log: every row that was added is on the store once, or counted; a store that is away delays nobody."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.monitoring.prediction_log import PredictionLog
from leptonflow.storage import store_identity
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import queries
from schemas.errors import StoreUnreachable
from schemas.served import REQUEST_ID, Served, inputs_chosen, new_request_id, requested_at

AT = datetime(2026, 11, 28, 23, 59, 59, tzinfo=UTC)


def row(**changed: Any) -> Served:
    found = Served(
        pipeline="digits", request_id=new_request_id(AT), at=AT, version="0" * 12, predicted="7", probability=0.75,
        outputs=np.array([0.25, 0.75]), metadata={"width": 8, "format": "PNG"}, features=np.ones(4, np.float32),
        seconds=0.001, runtime="onnxruntime", source="predict",
    )  # fmt: skip
    return replace(found, **changed)


class Away:
    """A store that cannot be written until `back` is set; `held`: until `let` is set, `create` does not return."""

    def __init__(self, store: Store, back: bool = False) -> None:
        self._store, self.back, self.let, self.tried = store, back, threading.Event(), threading.Event()
        self.let.set()

    def create(self, key: str, data: bytes) -> None:
        self.tried.set()
        self.let.wait(60)
        if not self.back:
            raise StoreUnreachable("no space left on device")
        self._store.create(key, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store((tmp_path / "store").as_uri())
    store_identity.store_id(store)
    return store


def test_what_was_added_is_in_the_table_served(store: Store) -> None:
    log = PredictionLog(store)
    other = row(
        pipeline="cats", request_id=new_request_id(AT.replace(day=27)), probability=None, features=None,
        inputs=b"\0\1", metadata={},
    )  # fmt: skip
    first = row(input_statistics={"noise": 1.5})
    log.add(first)
    log.add(other)
    log.close()
    found = queries.query(store, "FROM served ORDER BY pipeline DESC").to_pylist()
    assert found[0] == {
        "pipeline": "digits", "request_id": first.request_id, "at": AT, "version": "0" * 12, "predicted": "7",
        "probability": 0.75, "outputs": [0.25, 0.75], "metadata": '{"format": "PNG", "width": 8}',
        "input_statistics": '{"noise": 1.5}',
        "features": [1.0] * 4, "inputs": None, "seconds": 0.001, "runtime": "onnxruntime", "source": "predict",
    }  # fmt: skip
    assert (found[1]["inputs"], found[1]["features"], found[1]["metadata"]) == (b"\0\1", None, "{}")
    asked = queries.query(store, "SELECT metadata ->> 'width' AS width FROM served WHERE features IS NOT NULL")
    assert asked.to_pylist() == [{"width": "8"}]
    folders = {key.rsplit("/", 1)[0] for key in store.keys("served")}
    assert folders == {"served/digits/date=2026-11-28", "served/cats/date=2026-11-27"}
    assert (log.written, log.dropped, log.waiting, log.problem) == (2, 0, 0, None)


def test_a_file_is_written_when_enough_rows_wait_and_when_the_oldest_has_waited(store: Store) -> None:
    for limits in ({"rows": 3, "seconds": 600.0}, {"rows": 600, "seconds": 0.05}):
        log = PredictionLog(store, **limits)  # type: ignore[arg-type]
        for _ in range(3):
            log.add(row())
        ends = time.monotonic() + 30
        while log.waiting and time.monotonic() < ends:
            time.sleep(0.01)
        assert log.written == 3
        log.close()


def test_a_store_that_is_away_delays_nobody_and_its_rows_come_later_or_are_counted(store: Store) -> None:
    away = Away(store)
    away.let.clear()
    log = PredictionLog(away, rows=1, seconds=0.05, most_rows=10)  # type: ignore[arg-type]
    log.add(row())
    assert away.tried.wait(30)
    began = time.monotonic()
    for _ in range(1000):
        log.add(row())
    assert time.monotonic() - began < 1.0, "add waited for the store"
    assert (log.waiting, log.dropped) == (10, 991)
    away.let.set()
    ends = time.monotonic() + 30
    while log.problem is None and time.monotonic() < ends:
        time.sleep(0.01)
    assert log.problem is not None and "no space left" in log.problem
    away.back = True
    log.close(30)
    assert (log.written, log.waiting, log.dropped) == (10, 0, 991)
    assert queries.query(store, "SELECT count(DISTINCT request_id) AS n FROM served").to_pylist() == [{"n": 10}]


def test_close_returns_within_its_bound_and_counts_what_is_lost(store: Store) -> None:
    away = Away(store)
    away.let.clear()
    log = PredictionLog(away)  # type: ignore[arg-type]
    log.add(row())
    began = time.monotonic()
    log.close(0.1)
    assert time.monotonic() - began < 5
    log.add(row())
    assert (log.dropped, log.written, log.waiting) == (2, 0, 0)
    away.let.set()


def test_a_folder_without_its_store_takes_no_rows_and_they_come_once_it_is_back(store: Store, tmp_path: Path) -> None:
    there, away = tmp_path / "store", tmp_path / "unmounted"
    there.rename(away)
    there.mkdir()  # the mount point
    log = PredictionLog(store, rows=1, seconds=0.05)
    log.add(row())
    ends = time.monotonic() + 30
    while log.problem is None and time.monotonic() < ends:
        time.sleep(0.01)
    assert "there is no store" in (log.problem or "")
    assert not list(there.iterdir())
    there.rmdir()
    away.rename(there)
    log.close(30)
    assert (log.written, log.waiting, log.dropped) == (1, 0, 0)


def test_large_rows_are_bounded_by_bytes(store: Store) -> None:
    log = PredictionLog(store, seconds=600, most_bytes=10_000_000)
    for _ in range(20):
        log.add(row(inputs=bytes(1_000_000)))
    assert (log.waiting, log.dropped) == (9, 11)
    log.close()


class Broken:
    def keys(self) -> Any:
        raise RuntimeError("broken")


def test_a_row_that_cannot_be_written_is_dropped_alone(store: Store) -> None:
    log = PredictionLog(store, seconds=600)
    broken: Any = ({"metadata": {"a": object()}}, {"metadata": Broken()}, {"request_id": "../x"})
    for changed in ({}, {"predicted": "\ud800"}, *broken):
        log.add(row(**changed))
    log.close()
    assert (log.written, log.dropped) == (1, 4)


def test_an_id_tells_its_time_and_whether_its_inputs_are_kept() -> None:
    ids = [new_request_id(AT) for _ in range(4000)]
    assert len(set(ids)) == 4000 and all(REQUEST_ID.fullmatch(each) for each in ids)
    assert requested_at(ids[0]) == int(AT.timestamp() * 1000)
    assert 120 < sum(inputs_chosen(each, 0.05) for each in ids) < 290
    assert all(inputs_chosen(each, 1.0) and not inputs_chosen(each, 0.0) for each in ids)

"""S3 servers that are wrong: they ignore conditions, answer with conflicts, cut bodies or flip bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from leptonflow.core.hashing import sha256
from leptonflow.storage import object_store
from leptonflow.storage.address import open_store
from leptonflow.storage.objects import recorded
from leptonflow.storage.s3 import patient
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import store_id
from schemas.errors import AlreadyExists, StoreRefused, StoreUnreachable
from tests import fake_s3, servers
from tests.fake_s3 import Faults

URI = "s3://bucket/p"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    with fake_s3.serve() as served:
        server = servers.Server("fake", served.endpoint, "bucket", 0, Path())
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(object_store, "_honouring", set())
        yield served


@pytest.fixture
def store(faults: Faults) -> Store:
    return open_store(URI)


def test_a_server_that_ignores_conditions_is_refused_before_anything_is_written(store: Store, faults: Faults) -> None:
    faults.ignores_conditions = True
    for write in (
        lambda: store.create("k", b"1"),
        lambda: store.create_many([("k", b"1")]),
        lambda: store_id(store),
        lambda: store.replace_identity(b"1"),
    ):
        with pytest.raises(StoreRefused, match=r"overwrote an object that existed.*If-None-Match.*MinIO or SeaweedFS"):
            write()
    assert list(faults.objects) == [f"p/{object_store.PROBE}"]
    assert list(store.list("")) == []


def test_a_process_asks_once_whether_conditions_are_honoured(store: Store, faults: Faults) -> None:
    store.create("a", b"1")
    store.create("b", b"1")
    open_store(URI).create("c", b"1")
    probe = ("PUT", f"p/{object_store.PROBE}")
    assert faults.asked == [probe, probe, ("PUT", "p/a"), ("PUT", "p/b"), ("PUT", "p/c")]
    object_store._honouring.clear()  # the next process: the probe lies there
    faults.asked.clear()
    store.create("d", b"1")
    assert faults.asked == [probe, ("PUT", "p/d")]
    assert sorted(store.keys("")) == ["a", "b", "c", "d"]


def test_reading_asks_nothing_more(store: Store, faults: Faults) -> None:
    faults.objects["p/k"] = b"1"
    assert (store.get("k"), store.size("k"), store.keys(""), store.folders("")) == (b"1", 1, ["k"], [])
    assert "PUT" not in {method for method, _ in faults.asked}


def test_a_conflict_means_try_again(store: Store, faults: Faults) -> None:
    faults.conflicts = 3
    store.create("k", b"1")
    assert faults.objects["p/k"] == b"1"
    faults.conflicts = 1
    with pytest.raises(AlreadyExists):
        store.create("k", b"2")
    assert store.create_many([("k", b"2"), ("l", b"3")]) == ["k"]
    assert (faults.objects["p/k"], faults.objects["p/l"]) == (b"1", b"3")


def test_a_conflict_that_lasts_is_not_an_object_that_exists(faults: Faults) -> None:
    with patient(0.5):
        store = open_store(URI)
    store.create("a", b"1")
    faults.conflicts = 10_000
    with pytest.raises(StoreUnreachable, match="ConditionalRequestConflict"):
        store.create("k", b"1")
    assert "p/k" not in faults.objects


@pytest.mark.parametrize("tagged", [True, False])
def test_a_body_that_is_cut_is_asked_for_again(store: Store, faults: Faults, tagged: bool) -> None:
    faults.tagged = tagged  # obstore itself goes on only where there is an ETag
    data = bytes(range(256)) * 1000
    store.create("k", data)
    for faults.cut in (1, 2):
        assert store.get("k") == data
    faults.cut = 1
    assert list(store.get_many(["k"] * 3)) == [data] * 3
    faults.cut = 1
    assert store.keys("") == ["k"]
    faults.cut = 1
    assert store.folders("") == []


@pytest.mark.parametrize("fault", ["short", "flipped"])
def test_bytes_that_are_not_those_recorded_are_asked_for_again(store: Store, faults: Faults, fault: str) -> None:
    store.create("k", b"0123456789")
    setattr(faults, fault, 2)
    assert recorded(store, "k", sha256(b"0123456789")) == b"0123456789"

"""A run that is under way and runs that were lost: by the lock on a directory, by the last write elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from leptonflow.runs import summaries, unfinished
from leptonflow.storage import run_lock
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store


def begin(
    store: Store, run_id: str, at: str = "2026-11-24T10:00:00.000000Z", finished: bool = False, number: int = 0
) -> None:
    begun = {"started_at": at, "version": f"v{run_id}", "attempt": 0, "number": number}
    store.create(f"runs/p/{run_id}/started.json", json.dumps(begun).encode())
    if finished:
        store.create(f"runs/p/{run_id}/manifest.json", b"{}")


def ids(found: tuple[unfinished.Unfinished | None, list[unfinished.Unfinished]]) -> tuple[object, list[object]]:
    return found[0] and found[0].run_id, [run.run_id for run in found[1]]


def test_without_runs(place: Store) -> None:
    assert unfinished.runs(place, "p") == (None, [])
    begin(place, "done", finished=True)
    assert unfinished.runs(place, "p") == (None, [])


def test_the_lock_says_whether_a_run_is_under_way(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    begin(store, "lost")
    begin(store, "other")
    os.utime(tmp_path / "runs/p/lost/started.json", (1, 1))
    assert ids(unfinished.runs(store, "p")) == (None, ["lost", "other"])
    assert not (tmp_path / ".locks").exists()  # looking makes none
    with run_lock.one_at_a_time(store, "p"):
        assert ids(unfinished.runs(store, "p")) == ("other", ["lost"])
        store.create("fits/p/vlost/fold-0/manifest.json", b"{}")  # it is this one that goes on
        os.utime(tmp_path / "runs/p/other/started.json", (2, 2))
        assert ids(unfinished.runs(store, "p")) == ("lost", ["other"])
    assert ids(unfinished.runs(store, "p")) == (None, ["other", "lost"])


def test_a_run_that_prepares_its_data_has_no_id_yet(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    code = (
        "import sys; from leptonflow.storage import run_lock; from leptonflow.storage.address import open_store\n"
        f"with run_lock.one_at_a_time(open_store({store.uri!r}), 'p'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        running, lost = unfinished.runs(store, "p")
        other.kill()
    assert running is not None and running.run_id is None and lost == []
    assert unfinished.runs(store, "p") == (None, [])  # the kernel let go of it


def test_without_locks_the_last_write_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"memory://{os.urandom(8).hex()}")
    begin(store, "older", "2026-11-24T09:00:00.000000Z", number=1)
    begin(store, "newer", number=2)
    assert ids(unfinished.runs(store, "p")) == (None, ["older", "newer"])  # the store does not say when
    written = {"runs/p/older": timedelta(minutes=59), "runs/p/newer": timedelta(hours=2)}

    def modified(prefix: str) -> datetime | None:
        return datetime.now(UTC) - written[prefix] if prefix in written else None

    monkeypatch.setattr(store, "modified", modified)
    assert ids(unfinished.runs(store, "p")) == ("older", ["newer"])
    written["runs/p/older"] = timedelta(minutes=61)
    assert ids(unfinished.runs(store, "p")) == (None, ["newer", "older"])


def test_a_damaged_beginning_is_a_beginning(place: Store) -> None:
    place.create("runs/p/x/started.json", b"garbage")
    _, (lost,) = unfinished.runs(place, "p")
    assert lost.document() | {"last_change": None} == {
        "run_id": "x", "version": None, "attempt": 0, "started_at": None, "last_change": None,
    }  # fmt: skip


def rule(name: str, metric: str | None, value: float | None, passed: bool | None = True) -> dict[str, object]:
    return {"rule": name, "metric": metric, "value": value, "passed": passed, "sentence": f"{name} says so"}


CV = {"accuracy": {"mean": 0.8, "std": 0.1, "folds": [0.7, 0.9]}}


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ([rule("at_least", "accuracy", 0.9)], ("accuracy", "holdout", 0.9)),
        ([rule("at_least", "accuracy", 0.8)], ("accuracy", "cv", 0.8)),
        ([rule("against_champion", "f1", -0.01)], ("f1", "holdout", 0.7)),
        ([rule("latency", None, 3.0), rule("baseline", "f1", 0.1)], ("f1", "holdout", 0.7)),
        ([rule("latency", None, 3.0)], ("accuracy", "holdout", 0.9)),
        ([], ("accuracy", "holdout", 0.9)),
    ],
)
def test_the_key_metric(gate: list[dict[str, object]], expected: tuple[str, str, float]) -> None:
    found = summaries.key_metric({"holdout": {"accuracy": 0.9, "f1": 0.7}, "cv": CV, "gate": gate})
    assert found == dict(zip(("name", "on", "value"), expected, strict=True))
    assert summaries.key_metric({"holdout": None, "cv": None, "gate": None}) is None


def test_what_decided() -> None:
    failed = [rule("at_least", "accuracy", 0.1), rule("f1", "f1", 0, False), rule("latency", None, 9, False)]
    assert summaries.reason({"gate": failed}) == "f1: f1 says so (and 1 more)"
    assert summaries.reason({"gate": failed[:1], "sentence": "promoted over x: 2 passed; a warning"}) == (
        "promoted over x: 2 passed"
    )

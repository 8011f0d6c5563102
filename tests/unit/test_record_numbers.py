"""What is newest is what the records' numbers say: a clock that is set back changes nothing."""

from __future__ import annotations

import json
import uuid

import pytest

from leptonflow.core import clock
from leptonflow.core.hashing import canonical
from leptonflow.data.dataset import batch_outcomes
from leptonflow.registry import packages
from leptonflow.runs import pipeline_status, recording, run_explanation, unfinished
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from tests.run_examples import Run, make, outcome

EARLIER, LATER = "2026-11-24T10:00:00.000000Z", "2020-01-01T00:00:00.000000Z"  # the clock was set back between


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def recorded(store: Store, run_id: str, version: str, at: str, patch: pytest.MonkeyPatch, **given: object) -> Run:
    patch.setattr(clock, "now", lambda: at)
    run = make(store, run_id=run_id, version=version, created_at=at, **given)  # type: ignore[arg-type]
    recording.record(store, run.config, run.plan, run.results(started_at=at))
    return run


def test_runs_are_in_the_order_of_their_numbers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = recorded(store, "c" * 12, "1" * 12, EARLIER, monkeypatch)
    second = recorded(store, "b" * 12, "2" * 12, LATER, monkeypatch, seed=1)
    order = [run["run_id"] for run in recording.runs(store, "digits")]
    assert order == [first.verdict.run_id, second.verdict.run_id]
    assert pipeline_status.status(store, second.config)["last_run"]["run_id"] == second.verdict.run_id
    assert run_explanation.explain(store, second.config)["run_id"] == second.verdict.run_id


def test_runs_of_a_release_without_numbers_come_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(store, "c" * 12, "1" * 12, EARLIER, monkeypatch)
    key = f"runs/digits/{'c' * 12}/manifest.json"
    manifest = json.loads(store.get(key))
    objects = vars(store)["_objects"]
    objects[key] = canonical({name: manifest[name] for name in ("document", "started_at", "finished_at", "files")})
    recorded(store, "b" * 12, "2" * 12, LATER, monkeypatch, seed=1)
    assert [run["run_id"][0] for run in recording.runs(store, "digits")] == ["c", "b"]


def test_a_runs_manifest_is_held_against_its_own_digest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(store, "c" * 12, "1" * 12, EARLIER, monkeypatch)
    key = f"runs/digits/{'c' * 12}/manifest.json"
    objects = vars(store)["_objects"]
    objects[key] = objects[key].replace(b'"promoted"', b'"promotee"', 1)
    status = pipeline_status.status(store, run.config)
    assert f"{key} is not what leptonflow writes there" in status["damage"]


def test_versions_are_in_the_order_of_their_numbers(store: Store) -> None:
    """Then of their snapshots' numbers, and only then of time."""
    run = make(store, version="9" * 12)
    for name, number, snapshot, at in (
        ("a", None, 2, LATER), ("b", None, 1, EARLIER), ("c", 4, 2, LATER), ("d", 3, 2, EARLIER),
    ):  # fmt: skip
        update = {"version": name, "number": number, "snapshot_number": snapshot, "created_at": at}
        manifest = run.manifest.model_copy(update=update)
        store.create(f"models/digits/{name}/manifest.json", canonical(manifest))
    assert [each.version for each in packages.versions(store, "digits")][-3:] == ["a", "d", "c"]
    assert pipeline_status.status(store, run.config)["newest"] == "c"


def test_the_last_outcome_of_a_batch_is_that_of_the_highest_number() -> None:
    refused = outcome(verdict="refused")
    old, new = (refused.model_copy(update={"number": n, "at": at}) for n, at in ((1, EARLIER), (2, LATER)))
    assert batch_outcomes.newest_outcome([new, old]) == [new]
    assert batch_outcomes.newest_outcome([]) == []


def test_the_run_under_way_is_the_one_begun_last(store: Store) -> None:
    for run_id, number, at in (("a" * 12, 1, EARLIER), ("b" * 12, 2, LATER)):
        begun = {"started_at": at, "version": run_id, "attempt": 0, "number": number}
        store.create(f"runs/digits/{run_id}/started.json", canonical(begun))
    running, lost = unfinished.runs(store, "digits")
    assert [each.run_id for each in (*lost, *([running] if running else []))] == ["a" * 12, "b" * 12]

"""What a machine whose clock is ahead has left on a store is named, and decides no order that numbers tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli import health_checks
from leptonflow.core import clock
from leptonflow.monitoring import labels
from leptonflow.monitoring.labels import Given
from leptonflow.runs import approvals, future_records
from leptonflow.storage import store_identity
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.errors import LeptonflowError
from tests import run_examples
from tests.unit import test_approval, test_labels

AHEAD = "2099-01-01T00:00:00.000000Z"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store((tmp_path / "store").as_uri())
    store_identity.store_id(store)
    return store


def test_labels_and_approvals_from_the_future_are_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_examples.make(store)
    (one,) = test_labels.serve(store, 1)
    now = clock.now()
    labels.record(store, "digits", [Given(one.request_id, "1")], "bob")
    assert future_records.found(store, now) == []
    assert health_checks._clocks(store.uri) == "no record is dated in the future"
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: AHEAD)
        labels.record(store, "digits", [Given(one.request_id, "5")], "bob")
    (told,) = future_records.found(store, now)
    assert told.startswith("labels of digits at 2099-01-01")
    with pytest.raises(LeptonflowError, match=r"records are dated in the future. .* labels of digits at 2099"):
        health_checks._clocks(store.uri)


def test_the_newest_run_waits_whatever_the_clocks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    place: Any = test_approval.Interrupted("memory://future-runs")
    now = clock.now()
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: AHEAD)
        _, first = test_approval.waiting(place, 1)
    _, second = test_approval.waiting(place, 2)
    pending = approvals.pending(place, "digits", now)
    assert pending is not None and pending.request.run_id == second.run_id != first.run_id

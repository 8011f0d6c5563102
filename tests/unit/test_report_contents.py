"""What the report is made of: predictions are held against what was recorded of them before they are shown."""

from __future__ import annotations

import uuid

import pytest

from leptonflow.runs import recording
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.workloads import predictions
from leptonflow.workloads.classification import ONE_CLASS
from schemas.errors import Damaged
from schemas.records import ObjectRef
from tests.run_examples import Run, make


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def run(store: Store) -> Run:
    return make(store, champion="c1" * 6, page=None)


def swapped(store: Store, run: Run, file: ObjectRef) -> None:
    """Other predictions of the same examples: nothing but their bytes tells."""
    classes = run.manifest.classes
    ids, labels, probabilities = predictions.read(ONE_CLASS, store.get(file.key), classes)
    data = predictions.write(ONE_CLASS, ids, labels, probabilities[:, ::-1], classes, None)
    store._objects[file.key] = data  # type: ignore[attr-defined]


@pytest.mark.parametrize("whose", ["predictions", "champion_predictions"])
def test_predictions_that_were_changed_are_named_and_make_no_report(store: Store, run: Run, whose: str) -> None:
    file = getattr(run.evaluation, whose)
    whole = store.get(file.key)
    swapped(store, run, file)
    with pytest.raises(Damaged, match=rf"{file.key} is not what was recorded.*{file.sha256}"):
        recording.record(store, run.config, run.plan, run.results())
    assert recording.finished(store, "digits", run.plan.run_id or "") is None
    # Put back, the run is finished by the next attempt.
    store._objects[file.key] = whole  # type: ignore[attr-defined]
    assert recording.record(store, run.config, run.plan, run.results())["run_id"] == run.plan.run_id

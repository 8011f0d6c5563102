"""Retrainings that trained nothing leave a record, and `status` says the last one until a run finishes."""

from __future__ import annotations

from leptonflow.runs import pipeline_status, rejections
from leptonflow.storage.store import Store
from schemas.records import Split
from tests import run_examples

SPLIT = Split(train=4, holdout=0, train_per_class={}, holdout_per_class={}, rejected="the holdout is empty")


def test_a_rejected_retraining_leaves_its_reason_once(place: Store) -> None:
    run = run_examples.make(place)
    assert rejections.standing(place, "digits", 0) is None
    for _ in range(2):
        assert rejections.document(place, run.plan, SPLIT, [], {})["sentence"] == "the holdout is empty"
    assert len(place.keys("runs/digits/rejected-data")) == 1
    told = pipeline_status.rejected(place, run.config, [])
    assert told is not None and (told["snapshot"], told["sentence"]) == ("5aa5" * 3, "the holdout is empty")
    # Whatever the clock of the machine said on which it finished.
    assert pipeline_status.rejected(place, run.config, [{"finished_at": "2020-01-01T00:00:00.0Z"}]) is None
    assert pipeline_status.runs(place, run.config) == []  # it is no run


def test_without_any_data_there_is_nothing_to_record(place: Store) -> None:
    run = run_examples.make(place)
    plan = run.plan.model_copy(update={"snapshot": None})
    assert "there is no data yet" in rejections.document(place, plan, None, [], {})["sentence"]
    assert place.keys("runs/digits/rejected-data") == []

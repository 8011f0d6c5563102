"""`stop_early_if`: when the first folds refuse a candidate, what such a run leaves, and that it is not run again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from leptonflow.core import progress
from leptonflow.core.store_keys import fit_key
from leptonflow.gate import early_refusal, evidence, explanation
from leptonflow.runs import early_refusals, pipeline_status, planning, recording, unchanged
from leptonflow.statistics import folds
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.tables import queries
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError
from schemas.records import EpochValue, FitResult, Split
from tests.fit_examples import land, pipeline

TRAINING = {"epochs": 1, "batch_size": 16, "folds": 5}


def config(**rule: Any) -> Pipeline:
    return pipeline(training=TRAINING, stop_early_if={"metric": "accuracy", "below": 0.6, **rule})


def fit(fold: int, value: float | None, metric: str = "accuracy") -> FitResult:
    epochs = (EpochValue(epoch=1, metric="loss", value=0.5, seconds=2.0),)
    return FitResult(
        version="a" * 12, fold=fold, metrics={metric: value}, epochs=epochs, files=(), seconds=2.5, examples=80
    )


def fits(*values: float | None, metric: str = "accuracy") -> list[FitResult]:
    return [fit(number, value, metric) for number, value in enumerate(values)]


def test_the_interval_is_that_of_the_corrected_test() -> None:
    """Its ends are where the test of Nadeau and Bengio is just decided."""
    values = [0.5, 0.52, 0.47]
    found = folds.interval(values, 4, 1, 0.99)
    _, p = folds.corrected_t([found.high - value for value in values], 4, 1, 0.0)
    assert p == pytest.approx(0.005)
    assert (found.low + found.high) / 2 == pytest.approx(sum(values) / 3)
    assert (found.n, found.method) == (3, "corrected resampled t")


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ((0.30, 0.31, 0.29), True),
        ((0.30, 0.31), False),  # too few
        ((0.30, 0.31, 0.29, 0.3, 0.31), False),  # nothing is spared any more
        ((0.50, 0.55, 0.45), False),  # too uncertain
        ((0.30, 0.31, 0.62), False),
        ((0.30, 0.31, 0.29, None), False),
        ((0.6, 0.6, 0.6), False),  # on the bound
    ],
)
def test_folds_refuse_only_what_is_shown_to_be_hopeless(values: tuple[float | None, ...], stops: bool) -> None:
    row = early_refusal.judged(config(), fits(*values)[::-1])
    assert (row is not None) == stops
    assert early_refusal.judged(pipeline(training=TRAINING), fits(*values)) is None
    if row is not None:
        assert (row.rule, row.passed, row.bound, row.n) == ("stop_early_if", False, 0.6, 3)
        assert row.value == pytest.approx(0.3) and row.high is not None and row.high < 0.6
        assert row.sentence.startswith("accuracy is 0.3000 on average in folds 1, 2, 3 of 5; the upper end of its 0.99")


def test_a_metric_that_is_better_when_lower_has_its_bound_above() -> None:
    rule = {"metric": "log_loss", "below": None, "above": 1.0}
    assert early_refusal.judged(config(**rule), fits(2.0, 2.1, 1.9, metric="log_loss")) is not None
    assert early_refusal.judged(config(**rule), fits(0.5, 0.6, 0.7, metric="log_loss")) is None


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"metric": "acuracy", "below": 0.5}, r"stop_early_if\.metric"),
        ({"metric": "accuracy"}, r"stop_early_if is not valid.*one of below and above.*neither"),
        ({"metric": "accuracy", "below": 0.5, "above": 0.6}, r"one of below and above.*both"),
        ({"metric": "accuracy", "above": 0.5}, r"stop_early_if\.above.*below: accuracy is better when higher"),
        ({"metric": "log_loss", "below": 0.5}, r"stop_early_if\.below.*above: log_loss is better when lower"),
        ({"metric": "accuracy", "below": 0.5, "folds": 2}, r"stop_early_if\.folds.*greater than or equal to 3"),
        ({"metric": "accuracy", "below": 0.5, "folds": 5}, r"stop_early_if\.folds.*fewer than training\.folds, 5"),
        ({"metric": "accuracy", "under": 0.5}, r"unknown key stop_early_if\.under"),
        ({"metric": "recall[zebra]", "below": 0.5}, r"stop_early_if\.metric.*one of the classes left, right"),
    ],
)
def test_a_wrong_value_is_named(rule: dict[str, Any], told: str) -> None:
    document = pipeline(training=TRAINING, classes=["left", "right"]).model_dump(mode="json")
    with pytest.raises(ConfigurationError, match=told):
        parse({**document, "stop_early_if": rule}, where="p.yaml", folder=Path("."))


def test_it_is_in_the_run_and_not_in_the_version() -> None:
    plain = pipeline(training=TRAINING)
    plan = land(MemoryStore("memory://stop"), plain)
    assert plan.snapshot is not None
    code = {"data": "d", "train": "t", "gate": "g"}
    (version, run), (same, other) = (planning.ids(each, plan.snapshot, code, 0) for each in (plain, config()))
    assert same == version and other != run
    assert planning.asked(plain, "c") != planning.asked(config(), "c")
    assert "stop_early_if" not in plain.model_dump_json()


def test_a_stopped_run_is_a_finished_one_without_a_version() -> None:
    store, given = MemoryStore("memory://stopped"), config()
    plan = land(store, given)
    assert plan.snapshot is not None and plan.run_id is not None
    done = fits(0.3, 0.31, 0.29)
    row = early_refusal.judged(given, done)
    assert row is not None
    split = Split(
        train=100, holdout=50, train_per_class={}, holdout_per_class={}, rejected=None, train_groups=None,
        holdout_groups=None,
    )  # fmt: skip
    arguments = (row, done, split, ["first"], "2026-01-01T00:00:00+00:00", {"train-fold": 1.0})
    document = early_refusals.record(store, given, plan, *arguments)
    assert early_refusals.record(store, given, plan, *arguments) == document
    assert (document["verdict"], document["version"], document["holdout"]) == ("refused", None, None)
    assert document["cv"]["accuracy"]["folds"] == [0.3, 0.31, 0.29]
    assert [each["rule"] for each in document["gate"]] == ["stop_early_if"]
    assert document["sentence"].startswith("stopped early and refused by stop_early_if: accuracy is 0.3000 on average")
    (finished,) = recording.runs(store, given.name)
    assert finished["run_id"] == plan.run_id
    joined = "select fold, e.value, f.seconds from fits f join epochs e using (run_id, version, fold) order by fold"
    rows = [{"fold": fold, "value": 0.5, "seconds": 2.5} for fold in range(3)]
    assert queries.query(store, joined).to_pylist() == rows

    page = store.get(f"runs/{given.name}/{plan.run_id}/report.html").decode()
    assert "3 of 5 folds trained" in page and "0.31" in page
    verdict = recording.standing(store, given.name, plan.run_id)
    assert verdict is not None
    told = explanation.paragraph(given.name, verdict)
    assert "was stopped early and refused. Accuracy is 0.3000 on average" in told and "promote" not in told
    (change,) = explanation.would_change(verdict)
    assert change.rule == "stop_early_if"
    assert evidence.looks(store, given.name) == 0  # the holdout was not read
    why = unchanged.why_not_champion(given.name, {**document, "verdict": "unchanged"})
    assert why is not None and "was stopped early before" in why
    (listed,) = pipeline_status.runs(store, given)
    assert listed["key_metric"] == {"name": "accuracy", "on": "cv", "value": pytest.approx(0.3)}
    assert listed["reason"].startswith("stop_early_if: accuracy is 0.3000 on average in folds 1, 2, 3 of 5")


@pytest.mark.parametrize("killed_before", ["verdict.json", "report.html", "manifest.json"])
def test_a_run_that_is_killed_while_it_is_recorded_says_the_same_afterwards(
    killed_before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile another fold has ended, with which the candidate would have a chance."""
    store, given = MemoryStore(f"memory://killed-{killed_before}"), config()
    plan = land(store, given)
    assert plan.run_id is not None
    every = fits(0.3, 0.31, 0.29, 0.62)
    for each in every:
        store.create(fit_key(given.name, "a" * 12, each.fold, "manifest.json"), each.model_dump_json().encode())
    assert early_refusals.decided(store, given, plan) is None
    row = early_refusal.judged(given, every[:3])
    assert row is not None and early_refusal.judged(given, every) is None
    split = Split(
        train=100, holdout=50, train_per_class={}, holdout_per_class={}, rejected=None, train_groups=None,
        holdout_groups=None,
    )  # fmt: skip
    rest: tuple[Any, ...] = (split, ["first"], "2026-01-01T00:00:00+00:00", {"train-fold": 1.0})
    create = store.create

    def killed(key: str, data: bytes) -> None:
        if key.endswith(killed_before):
            raise KeyboardInterrupt
        create(key, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "create", killed)
        early_refusals.record(store, given, plan, row, every[:3], *rest)
    assert recording.finished(store, given.name, plan.run_id) is None
    found = early_refusals.decided(store, given, plan)
    assert found == (row, every[:3])
    document = early_refusals.record(store, given, plan, *found, *rest)
    assert document["cv"]["accuracy"]["folds"] == [0.3, 0.31, 0.29]
    assert "in folds 1, 2, 3 of 5" in document["sentence"]
    assert queries.query(store, "select distinct fold from fits order by fold")["fold"].to_pylist() == [0, 1, 2]


def test_a_part_of_the_work_ends_by_itself() -> None:
    with progress.listen() as stop:
        with progress.part() as end, progress.part():
            progress.pulse()
            threading.Thread(target=end).start()
            with pytest.raises(progress.Stopped):
                while True:
                    progress.pulse()
        progress.pulse()  # what comes after goes on
        stop()
        with pytest.raises(progress.Stopped):
            progress.pulse()

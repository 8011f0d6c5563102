"""Candidate and champion on the same holdout, from their packages; a champion that cannot be scored says why."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import numpy as np
import pytest

from leptonflow.data.dataset import example_sets, reencoding
from leptonflow.evaluation import holdout_evaluation
from leptonflow.gate import evidence
from leptonflow.registry import champion_log, package_builder, packages
from leptonflow.registry.champion_log import Champion
from leptonflow.storage import commit_log as commits
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import predictions
from leptonflow.workloads.classification import ONE_CLASS
from schemas.config import Pipeline
from schemas.records import Plan
from tests.fit_examples import CLASSES, land, pipeline, plan_of
from tests.verdicts import infra


@functools.cache
def workspace_of(config: str, snapshot: str) -> Workspace:
    """One for all versions of the same values on the same examples: a model is traced once for them."""
    return Workspace()


def train(store: Store, config: Pipeline, plan: Plan) -> str:
    """Train and package the plan's version; its manifest's sha256."""
    assert plan.snapshot is not None
    workspace = workspace_of(config.model_dump_json(), plan.snapshot.model_dump_json())
    for fold in range(config.training.folds):
        model_fits.train_fold(store, config, plan, fold, workspace)
    model_fits.fit_final(store, config, plan, workspace)
    return package_builder.build(store, config, plan).manifest_sha256


def champion_of(plan: Plan, manifest_sha256: str, number: int = 1) -> Champion:
    assert plan.version is not None and plan.snapshot is not None
    return Champion(
        version=plan.version, number=number, manifest_sha256=manifest_sha256, since="2026-01-01T00:00:00+00:00",
        run_id=plan.run_id, kind="promotion", previous=None, snapshot=plan.snapshot.snapshot, snapshot_number=1,
    )  # fmt: skip


FOLDS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "folds": 2}


@pytest.fixture(scope="module")
def trained() -> tuple[MemoryStore, Pipeline, Plan, str]:
    store, config = MemoryStore("memory://evaluation"), pipeline(training=FOLDS)
    plan = land(store, config)
    return store, config, plan, train(store, config, plan)


@pytest.fixture(scope="module")
def second(trained: tuple[MemoryStore, Pipeline, Plan, str]) -> tuple[Plan, str]:
    """Another version on the same store: its plan and its manifest's sha256."""
    store, config, plan, _ = trained
    assert plan.snapshot is not None
    other = plan_of(config, plan.snapshot, version="c" * 12, run_id="d" * 12)
    return other, train(store, config, other)


@pytest.fixture
def store(trained: tuple[MemoryStore, Pipeline, Plan, str], second: tuple[Plan, str]) -> MemoryStore:
    """A copy of the store with both versions and without any run."""
    copy = MemoryStore("memory://evaluation-copy")
    for key, _ in trained[0].list(""):
        if not key.startswith("runs/"):
            copy.create(key, trained[0].get(key))
    return copy


def test_the_candidate_is_scored_from_its_package_and_the_bytes_that_lie_there(store: Store, trained: Any) -> None:
    _, config, plan, _ = trained
    found = holdout_evaluation.evaluate(store, config, plan, None)
    examples = example_sets.holdout_set(store, config, plan.snapshot)
    ids, labels, rows = predictions.read(ONE_CLASS, store.get(found.predictions.key), CLASSES)
    assert ids == examples.ids
    np.testing.assert_array_equal(labels, examples.labels)
    np.testing.assert_array_equal(rows, packages.load(store, config.name, plan.version).predict(examples.inputs))
    accuracy = (rows.argmax(1) == labels).mean()
    assert found.candidate_scores.metrics["accuracy"] == pytest.approx(accuracy)
    assert np.trace(found.candidate_scores.confusion) == round(accuracy * len(labels))
    assert sum(map(sum, found.candidate_scores.confusion)) == found.candidate_scores.examples == len(labels)
    assert (found.champion, found.champion_scores, found.not_comparable) == (None, None, None)
    assert store.size(f"runs/{config.name}/{plan.run_id}/evaluation-0.json")
    before = dict(store.list(""))
    assert holdout_evaluation.evaluate(store, config, plan, None) == found
    assert dict(store.list("")) == before


def test_the_champion_itself_has_the_same_scores(store: Store, trained: Any) -> None:
    _, config, plan, sha = trained
    found = holdout_evaluation.evaluate(store, config, plan, champion_of(plan, sha, number=4))
    assert found.champion_scores == found.candidate_scores
    assert store.size(f"runs/{config.name}/{plan.run_id}/evaluation-4.json")


@pytest.mark.slow
def test_another_champion_is_scored_on_the_same_holdout(store: Store, trained: Any) -> None:
    _, config, plan, sha = trained
    again = pipeline(training={**FOLDS, "epochs": 1})
    other = plan_of(again, plan.snapshot, version="e" * 12, run_id="f" * 12)
    train(store, again, other)
    found = holdout_evaluation.evaluate(store, again, other, champion_of(plan, sha))
    alone = holdout_evaluation.evaluate(store, config, plan, None)
    assert found.champion_scores is not None
    assert found.champion_scores.version == plan.version
    assert found.champion_scores.metrics == pytest.approx(alone.candidate_scores.metrics)
    assert found.candidate_scores.metrics != found.champion_scores.metrics


def test_a_champion_with_its_classes_in_another_order_is_scored_by_name(store: Store, trained: Any) -> None:
    _, config, plan, sha = trained
    snapshot = plan.snapshot.model_copy(update={"classes": CLASSES[::-1]})
    turned = plan_of(config, snapshot, version="e" * 12, run_id="f" * 12)
    train(store, config, turned)
    found = holdout_evaluation.evaluate(store, config, turned, champion_of(plan, sha))
    alone = holdout_evaluation.evaluate(store, config, plan, None)
    assert found.champion_scores is not None
    assert found.champion_scores.metrics == pytest.approx(alone.candidate_scores.metrics)


@pytest.mark.slow
def test_a_champion_with_other_preprocessing_is_scored_through_its_own(
    store: Store, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, plan, sha = trained
    larger = pipeline(input=[18, 18, 1], training=FOLDS)
    other = land(store, larger)
    snapshot = other.snapshot.model_copy(update={"content": "e" * 64})
    other = plan_of(larger, snapshot, version="e" * 12, run_id="f" * 12)
    train(store, larger, other)
    asked = []
    real = example_sets.holdout_set

    def holdout_set(store: Store, config: Pipeline, snapshot: Any) -> Any:
        if config.input == larger.input:
            return real(store, config, snapshot)
        asked.append(config.input)
        examples = real(store, larger, snapshot)
        return example_sets.Examples(**{**vars(examples), "inputs": np.ascontiguousarray(examples.inputs[:, :12, :12])})

    monkeypatch.setattr(example_sets, "holdout_set", holdout_set)
    monkeypatch.setattr(reencoding, "reencoded", lambda store, config, snapshot: snapshot)
    found = holdout_evaluation.evaluate(store, larger, other, champion_of(plan, sha))
    assert asked == [(12, 12, 1)]
    assert found.champion_scores is not None and found.not_comparable is None


@pytest.mark.slow
def test_a_champion_with_other_classes_is_not_comparable(store: Store, trained: Any) -> None:
    _, config, plan, sha = trained
    four = (*CLASSES[:2], "top", "bottom")
    snapshot = land(store, config, classes=four).snapshot
    assert snapshot is not None
    other = plan_of(config, snapshot, version="e" * 12, run_id="f" * 12)
    train(store, config, other)
    found = holdout_evaluation.evaluate(store, config, other, champion_of(plan, sha))
    assert found.champion_scores is None
    assert re.search(r"other classes \(only its own: right; new: bottom, top\)", found.not_comparable or "")


@pytest.mark.parametrize("what", ["model.keras", "manifest.json", "missing"])
def test_a_damaged_champion_never_ends_the_run(store: MemoryStore, trained: Any, second: Any, what: str) -> None:
    _, config, plan, sha = trained
    other, _ = second
    name = "labels.json" if what == "missing" else what
    key = f"models/{config.name}/{plan.version}/{name}"
    data = store._objects.pop(key)
    if what != "missing":
        store._objects[key] = data[:-1] + bytes([data[-1] ^ 1])
    found = holdout_evaluation.evaluate(store, config, other, champion_of(plan, sha))
    assert found.champion_scores is None
    assert key in (found.not_comparable or "")
    assert "\n" not in (found.not_comparable or "")


def test_a_damaged_champion_names_the_last_whole_one(store: MemoryStore, trained: Any, second: Any) -> None:
    _, config, plan, sha = trained
    damaged, damaged_sha = second
    third = plan_of(config, plan.snapshot, version="e" * 12, run_id="f" * 12)
    train(store, config, third)
    shas = {plan.version: sha, damaged.version: damaged_sha}
    log = champion_log.promotions(store, config.name)
    for version in (plan.version, damaged.version):
        body = champion_log.Promotion(
            version=version, previous=None, run_id=None, manifest_sha256=shas[version], snapshot="s", snapshot_number=1
        )
        log = commits.commit(store, log, id=version, kind="override", body=body.model_dump(), who="kim", why="so")
    store._objects[f"models/{config.name}/{damaged.version}/labels.json"] += b" "
    found = holdout_evaluation.evaluate(store, config, third, champion_of(damaged, damaged_sha, number=2))
    assert "labels.json is not what was recorded" in (found.not_comparable or "")
    way = f"The newest undamaged one is {plan.version}: `leptonflow rollback squares --to {plan.version} --reason TEXT`"
    assert way in (found.not_comparable or "")
    store._objects[f"models/{config.name}/{plan.version}/labels.json"] += b" "
    again = plan_of(config, plan.snapshot, version="e" * 12, run_id="1" * 12)
    found = holdout_evaluation.evaluate(store, config, again, champion_of(damaged, damaged_sha, number=2))
    assert "No other earlier champion is undamaged" in (found.not_comparable or "")


def test_training_scores_and_baselines_are_measured_where_a_rule_asks(store: MemoryStore, trained: Any) -> None:
    _, _, plan, _ = trained
    asked = [{"rule": "overfit", "metric": "accuracy", "value": 1.0}, {"rule": "baseline", "metric": "accuracy"}]
    config = pipeline(gate=asked, training=FOLDS)
    found = holdout_evaluation.evaluate(store, config, plan, None)
    examples = example_sets.training_set(store, config, plan.snapshot)
    rows = packages.load(store, config.name, plan.version).predict(examples.inputs)
    assert found.training is not None
    assert found.training["accuracy"] == pytest.approx((rows.argmax(1) == examples.labels).mean())
    assert set(found.baselines) == {"majority", "logistic"}
    assert found.baselines["logistic"]["accuracy"] == 1.0
    assert holdout_evaluation.evaluate(store, config, plan, None) == found


class NoNumbers:
    """A package that answers its third example with NaN."""

    def __init__(self, package: packages.Package) -> None:
        self.manifest, self.preprocessing, self._package = package.manifest, package.preprocessing, package

    def predict(self, pixels: Any) -> Any:
        found = self._package.predict(pixels).copy()
        found[2] = np.nan
        return found


def test_answers_that_are_no_numbers_fail_the_rules_and_never_the_run(
    store: Store, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, plan, _ = trained
    load = packages.load
    monkeypatch.setattr(packages, "load", lambda *given, **named: NoNumbers(load(*given, **named)))
    rules = [{"rule": "overfit", "metric": "accuracy", "value": 1.0}, {"rule": "baseline", "metric": "accuracy"}]
    found = holdout_evaluation.evaluate(store, pipeline(gate=rules, training=FOLDS), plan, None)
    assert set(found.candidate_scores.metrics.values()) == {None}
    assert "accuracy" in found.candidate_scores.metrics and found.training is not None
    assert found.training["accuracy"] is None


def test_a_champion_whose_answers_are_no_numbers_is_not_comparable_and_says_so(
    store: Store, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config, plan, sha = trained
    load, champion = packages.load, champion_of(plan, sha, number=3)
    another = plan.model_copy(update={"version": "f" * 12})

    def loaded(store: Store, pipeline: str, version: str, *rest: Any, **named: Any) -> Any:
        found = load(store, pipeline, champion.version, *rest, **named)
        return NoNumbers(found) if rest else found  # the champion is loaded by its manifest's sha256

    monkeypatch.setattr(packages, "load", loaded)
    found = holdout_evaluation.evaluate(store, config, another, champion)
    assert found.candidate_scores.metrics["accuracy"] is not None
    assert found.champion_scores is None and found.not_comparable is not None
    assert f"the champion {champion.version} cannot be scored: 1 of its" in found.not_comparable
    assert "predictions are not finite numbers" in found.not_comparable


def test_the_best_proven_champion_is_scored_beside_the_last_one(store: MemoryStore, trained: Any, second: Any) -> None:
    _, config, plan, sha = trained
    other, _ = second
    damaged = dataclasses.replace(champion_of(plan, "0" * 64, number=7), version="e" * 12)
    found = holdout_evaluation.evaluate(store, config, other, None, [champion_of(plan, sha, number=3), damaged])
    best, gone = found.proven
    alone = holdout_evaluation.evaluate(store, config, plan, None)
    assert (best.version, best.scores) == (plan.version, alone.candidate_scores)
    assert best.predictions is not None and best.predictions.key.endswith("champion-predictions-3.parquet")
    assert (gone.scores, gone.predictions) == (None, None) and "cannot be scored" in (gone.not_comparable or "")
    gathered = evidence.gather(store, config, other, None, found, infra(version="c" * 12))
    assert gathered.proven[plan.version].outputs is not None
    assert gathered.proven[plan.version].disjoint is None
    assert "cannot be read" in (gathered.proven["e" * 12].disjoint or "")

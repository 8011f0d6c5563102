"""What the gate argues from, as it lies on a store: proofs from manifests, facts, folds, looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leptonflow.core import store_keys
from leptonflow.core.hashing import canonical
from leptonflow.data.dataset import example_sets, holdout_split
from leptonflow.gate import evidence
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.workloads import catalog
from leptonflow.workloads.image_classification import baselines
from schemas.errors import ConfigurationError, Damaged
from schemas.records import Evaluation, ModelManifest, Plan
from tests.fit_examples import land, pipeline
from tests.run_examples import make

HELD = {"holdout": {"fraction": 0.2}, "training": {"folds": 3, "seed": 0}}


def manifest(plan: Plan, **changes: object) -> ModelManifest:
    assert plan.snapshot is not None
    given = {
        "pipeline": "squares", "version": "c" * 12, "run_id": "r", "workload": "image_classification",
        "classes": plan.snapshot.classes, "input": (12, 12, 1), "preprocessing": "p",
        "snapshot": plan.snapshot.snapshot, "snapshot_number": 1, "config": HELD, "cv": {}, "code": {},
        "libraries": {}, "files": (), "created_at": "2026-01-01", **changes,
    }  # fmt: skip
    return ModelManifest.model_validate(given)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return land(MemoryStore("memory://evidence"), pipeline())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"config": {"holdout": {"fraction": 0.5}}}, None),
        ({"snapshot": "another", "input": (9, 9, 3)}, None),
        ({"config": {"holdout": {"fraction": 0.1}}}, "it held out 0.1 of the examples, the holdout is 0.2"),
        ({"config": {"holdout": {"fraction": float("nan")}}}, "it held out nan"),
        ({"config": {}}, "does not say what was held out"),
        ({"config": {"holdout": 3}}, "does not say what was held out"),
        ({"split_rule": 2}, "split by rule 2, the holdout by rule 1"),
    ],
)
def test_a_manifest_proves_that_its_version_never_learned_from_the_holdout(
    plan: Plan, changes: dict[str, object], why: str | None
) -> None:
    assert plan.snapshot is not None
    found = evidence.not_held_out(manifest(plan, **changes), plan.snapshot)
    if why is None:
        assert found is None
    else:
        assert found is not None and why in found and "c" * 12 in found


def test_who_held_out_more_held_out_all_of_it() -> None:
    """The proof's premise, of the split itself."""
    ids = [f"{n:064x}" for n in range(3000)]
    small, large = ({i for i in ids if holdout_split.in_holdout(i, fraction)} for fraction in (0.2, 0.3))
    assert len(small) > 400 and small < large


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"snapshot": "5aa5"}, "the champion on 5aa5"),
        ({"classes": ("left", "right")}, "other classes"),
        ({"config": {**HELD, "training": {"folds": 5, "seed": 0}}}, "in 5 folds of seed 0"),
        ({"config": {**HELD, "training": {"folds": 3, "seed": 7}}}, "in 3 folds of seed 7"),
        ({"config": {**HELD, "holdout": {"fraction": 0.3}}}, "other holdouts"),
        ({"config": {}}, "None folds"),
    ],
)
def test_the_same_folds_are_of_the_same_snapshot_count_seed_and_classes(
    plan: Plan, changes: dict[str, object], why: str | None
) -> None:
    found = evidence.not_same_folds(manifest(plan), manifest(plan, **changes))
    assert found is None if why is None else why in (found or "")


def test_looks_are_the_finished_verdicts_but_this_runs() -> None:
    store = MemoryStore("memory://looks")
    for key in ("digits/a/verdict.json", "digits/b/verdict.json", "digits/c/manifest.json", "digits/d/x/verdict.json",
                "digits2/a/verdict.json"):  # fmt: skip
        store.create(f"runs/{key}", b"{}")
    assert evidence.looks(store, "digits") == 2
    assert evidence.looks(store, "digits", "b") == 1
    assert evidence.looks(store, "none") == 0


def test_a_fact_that_no_example_has_is_told_before_any_training() -> None:
    store = MemoryStore("memory://facts")
    config = pipeline(gate=[{"rule": "slices", "by": ["class", "n", "newest"]}])
    plan = land(store, config)
    assert plan.snapshot is not None
    evidence.check_facts(store, config, plan.snapshot)
    wrong = pipeline(gate=[{"rule": "slices", "by": ["class", "britness"]}])
    with pytest.raises(ConfigurationError) as raised:
        evidence.check_facts(store, wrong, plan.snapshot)
    assert raised.value.exit_status == 2 and "gate.0.by" in raised.value.message
    assert raised.value.expected == "one of class, batch, newest, n" and raised.value.received == "britness"


def test_a_fact_may_be_a_word() -> None:
    """As an image's format is; an example without it has None, and among words a number is one too."""
    assert evidence.column([3, None, 0.5]).tolist() == pytest.approx([3, float("nan"), 0.5], nan_ok=True)
    assert evidence.column(["png", None, "jpeg"]).tolist() == ["png", None, "jpeg"]
    assert evidence.column(["png", 3]).tolist() == ["png", "3"]


def test_a_fact_may_follow_from_recorded_ones() -> None:
    size = catalog.load("image_classification").derived["size"]
    assert size.of({"width": 30, "height": 20, "n": 1}) == 600
    assert size.of({"width": 30}) is None and size.of({"width": None, "height": 20}) is None
    store = MemoryStore("memory://size")
    config = pipeline(gate=[{"rule": "slices", "by": ["size"]}])
    snapshot = land(store, config).snapshot  # whose examples have no width
    assert snapshot is not None
    with pytest.raises(ConfigurationError, match=r"gate\.0\.by names no slice"):
        evidence.check_facts(store, config, snapshot)


def test_what_a_slice_needs_is_gathered_in_the_order_of_the_predictions() -> None:
    store = MemoryStore("memory://gather")
    rules = [{"rule": "slices", "by": ["batch", "n"]},
             {"rule": "at_least", "metric": "accuracy", "value": 0.1, "confidence": 0.9}]  # fmt: skip
    config = pipeline(gate=rules)
    landed = land(store, config).snapshot
    assert landed is not None
    holdout = example_sets.holdout_set(store, config, landed)
    run = make(store, pipeline="squares", classes=landed.classes, examples=len(holdout.ids), champion="d" * 12)
    for fit in run.fits:
        store.create(store_keys.fit_key("squares", fit.version, fit.fold, "manifest.json"), canonical(fit))
    plan = run.plan.model_copy(update={"snapshot": landed})
    evaluation = _scored(store, run, holdout, landed.classes)
    found = evidence.gather(store, config, plan, None, evaluation, run.infra)
    assert found.labels.tolist() == holdout.labels.tolist()
    assert found.batches == tuple(holdout.batches) and found.newest == "first"
    assert found.facts["n"].tolist() == [1.0] * len(holdout.ids)
    assert found.oof is not None and len(found.oof[0]) == 3 * len(holdout.ids)
    plain = evidence.gather(store, pipeline(), plan, None, evaluation, run.infra)
    assert (plain.batches, plain.facts, plain.oof) == ((), {}, None), "read only where a rule asks"
    store._objects[evaluation.predictions.key] += b" "
    with pytest.raises(Damaged, match=r"holdout-predictions\.parquet"):
        evidence.gather(store, config, plan, None, evaluation, run.infra)


def _scored(store: MemoryStore, run: Any, holdout: example_sets.Examples, classes: tuple[str, ...]) -> Evaluation:
    from leptonflow.core.hashing import sha256
    from leptonflow.workloads import predictions
    from leptonflow.workloads.classification import ONE_CLASS
    from schemas.records import ObjectRef

    guesses = np.full((len(holdout.ids), len(classes)), 1 / len(classes))
    data = predictions.write(ONE_CLASS, holdout.ids, holdout.labels, guesses, classes, None)
    key = "runs/squares/x/holdout-predictions.parquet"
    store.create(key, data)
    reference = ObjectRef(key=key, sha256=sha256(data), bytes=len(data))
    found: Evaluation = run.evaluation.model_copy(update={"predictions": reference})
    return found


def test_baselines_learn_what_is_plain_to_see() -> None:
    store, config = MemoryStore("memory://baselines"), pipeline()
    snapshot = land(store, config).snapshot
    assert snapshot is not None
    train, holdout = (
        example_sets.training_set(store, config, snapshot),
        example_sets.holdout_set(store, config, snapshot),
    )

    sets = (train.inputs, train.labels, holdout.inputs, holdout.labels)
    found = baselines.scores(*sets, snapshot.classes, seed=0)
    assert found["logistic"]["accuracy"] == 1.0
    assert (found["majority"]["accuracy"] or 1) < 0.6
    assert found == baselines.scores(*sets, snapshot.classes, seed=0)


def test_thumbnails_are_the_means_of_their_share() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 13, 3), np.uint8)
    found = baselines.thumbnails(pixels).reshape(3, 8, 8)
    assert found[1, 0, 0] == pytest.approx(pixels[1, 0:2, 0:1].mean() / 255)
    assert found[2, 7, 7] == pytest.approx(pixels[2, 17:20, 11:13].mean() / 255)
    small = baselines.thumbnails(pixels[:, :4, :4, :1])
    assert small.reshape(3, 4, 4)[0] == pytest.approx(pixels[0, :4, :4, 0] / 255)

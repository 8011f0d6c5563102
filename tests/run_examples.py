"""A finished run of made-up numbers, for the tests of the tables, the report and analytics.

The shapes are those that training, evaluation and the gate leave; nothing here is trained.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leptonflow.core.hashing import canonical, sha256
from leptonflow.runs import recording
from leptonflow.storage.store import Store
from leptonflow.workloads import predictions
from leptonflow.workloads.classification import ONE_CLASS
from schemas.config import Pipeline
from schemas.records import (
    EpochValue,
    Evaluation,
    Expectation,
    FitCost,
    FitResult,
    HoldoutScores,
    InfraResult,
    ModelManifest,
    ObjectRef,
    Outcome,
    PackageRef,
    Plan,
    QuarantineRef,
    RuleResult,
    SnapshotRef,
    Split,
    Verdict,
)

CONTRACT = "c0ffee" * 10 + "c0ff"
COST = FitCost(
    device="gpu:0", compiled=True, steps=120, examples_per_second=1234.5, waiting=0.03, peak_memory=3 * 2**29,
    peak_device_memory=2**30, device_seconds=7.5,
)  # fmt: skip
PAGE = b"<!DOCTYPE html>\nThe report of an earlier call"
HOSTILE = "<script>alert(1)</script>\u202e$x^2$\n&amp;"


@dataclass(frozen=True)
class Run:
    """Everything that `recording.record` takes, and what lies on the store before it is called."""

    config: Pipeline
    plan: Plan
    verdict: Verdict
    evaluation: Evaluation
    fits: tuple[FitResult, ...]
    final: FitResult
    split: Split
    infra: InfraResult
    manifest: ModelManifest
    package: PackageRef
    holdout: Any

    def results(self, **changed: Any) -> recording.Results:
        """What `recording.record` takes."""
        same = {name: getattr(self, name) for name in ("verdict", "evaluation", "fits", "final", "split", "infra")}
        return recording.Results(**{
            **same,
            "champion_after": self.verdict.version,
            "batches": ["first"],
            "started_at": "2026-11-24T10:00:00.000000Z",
            "seconds": {"validate": 1.5, "train": 31.0, "evaluate": 0.4},
            "holdout": self.holdout,
            **changed,
        })  # fmt: skip


def outcome(
    pipeline: str = "digits",
    batch: str = "first",
    *,
    verdict: str = "accepted",
    quarantine: QuarantineRef | None = None,
    reasons: dict[str, int] | None = None,
) -> Outcome:
    """100 arrived: 90 accepted, 7 quarantined, 3 already ingested; or all of them quarantined."""
    accepted = verdict == "accepted"
    return Outcome(
        pipeline=pipeline, batch=batch, contract=CONTRACT, outcome=verdict, arrived=100, accepted=90 if accepted else 0,
        quarantined=7 if accepted else 97, known=3, ignored=1, snapshot="5aa5" * 3 if accepted else None,
        reasons=reasons or {"unreadable": 4, "duplicate": 3}, quarantine=quarantine,
        expectations=(
            Expectation(expectation="expect_column_values_to_be_between", column="brightness",
                        kwargs={"min_value": 1, "max_value": 254}, success=True, observed="3..211", unexpected=0),
            Expectation(expectation="expect_table_row_count_to_be_between", column=None, kwargs={"min_value": 1},
                        success=accepted, observed="90", unexpected=None),
        ),
        sentence="90 accepted, 7 quarantined, 3 already ingested", listing=None, at="2026-11-24T09:59:00.000000Z",
    )  # fmt: skip


def make(
    store: Store,
    *,
    pipeline: str = "digits",
    version: str = "a1" * 6,
    run_id: str = "b2" * 6,
    classes: Sequence[str] = tuple("0123456789"),
    shape: tuple[int, int, int] = (28, 28, 1),
    examples: int = 400,
    accuracy: float = 0.9,
    promoted: bool = True,
    champion: str | None = None,
    trained_by: str | None = None,
    sources: str = "{label}/scan {n}.png",
    seed: int = 0,
    batch_size: int = 32,
    created_at: str = "2026-11-24T10:00:40+00:00",
    page: bytes | None = PAGE,
) -> Run:
    """A run whose predictions and package lie on the store, as before `record`. One seed, one set of numbers.

    page: the report that lies there, as one that a killed call wrote, and that `record` keeps: its own takes it half
    a second. None: there is none yet.
    """
    from leptonflow.data.dataset.example_sets import Examples

    rng = np.random.default_rng(seed)
    count = len(classes)
    config = Pipeline.model_validate({
        "name": pipeline, "workload": "image_classification", "input": list(shape),
        "gate": [
            {"rule": "at_least", "metric": "accuracy", "value": 0.9},
            {"rule": "against_champion", "metric": "accuracy", "margin": 0.01},
        ],
        "training": {"folds": 3, "epochs": 6, "batch_size": batch_size},
    })  # fmt: skip
    snapshot = SnapshotRef(
        pipeline=pipeline, number=1, snapshot="5aa5" * 3, content="5aa5" * 16, classes=tuple(classes),
        preprocessing="p" * 12, holdout=0.2, parts=(), batches=("first",), examples=examples * 5,
    )  # fmt: skip
    plan = Plan(
        pipeline=pipeline, attempt=0, version=version, run_id=run_id, snapshot=snapshot, waiting=(), trained=True,
        finished=False,
    )  # fmt: skip

    fits = tuple(_fit(store, rng, plan, classes, fold, examples, accuracy) for fold in range(3))
    final = FitResult(version=version, fold=None, metrics={}, epochs=_epochs(rng, False), files=(), seconds=9.1,
                      examples=examples * 4, cost=COST)  # fmt: skip
    ids, labels, probabilities = _guesses(rng, examples, count, accuracy)
    key = f"runs/{pipeline}/{run_id}/holdout-predictions.parquet"
    names = [sources.format(label=classes[label], n=n) for n, label in enumerate(labels)]
    candidate = _scores(version, labels, probabilities, classes)
    theirs, kept = None, None
    if champion:
        other = _probabilities(rng, labels, count, accuracy - 0.02)
        theirs = _scores(champion, labels, other, classes)
        kept = _put(store, f"runs/{pipeline}/{run_id}/champion-predictions-1.parquet",
                    predictions.write(ONE_CLASS, ids, labels, other, classes, None))  # fmt: skip
    evaluation = Evaluation(
        run_id=run_id, version=version, champion=champion, candidate_scores=candidate, champion_scores=theirs,
        not_comparable=None,
        predictions=_put(store, key, predictions.write(ONE_CLASS, ids, labels, probabilities, classes, None, names)),
        champion_predictions=kept,
    )  # fmt: skip
    holdout = Examples(
        ids=ids, labels=labels, inputs=_pictures(rng, labels, shape), batches=["first"] * examples,
        sources=names,
    )  # fmt: skip
    mean = statistics.fmean(float(fit.metrics["accuracy"] or 0) for fit in fits)
    rules = (
        RuleResult(rule="at_least", metric="accuracy", value=mean, bound=0.9, passed=promoted,
                   sentence=f"accuracy over 3 folds is {mean:.3f} on average, at least 0.9 is required"),
        RuleResult(rule="against_champion", metric="accuracy", value=0.012 if champion else None, bound=-0.01,
                   passed=True if champion else None,
                   sentence="0.012 better" if champion else "there is no champion to compare with yet"),
        RuleResult(rule="infra_validate", metric=None, value=0.0, bound=1e-5, passed=True,
                   sentence="a fresh process reproduced 64 predictions"),
    )  # fmt: skip
    verdict = Verdict(
        run_id=run_id, version=version, verdict="promoted" if promoted else "refused", rules=rules,
        sentence=f"{pipeline}: {version} becomes the champion; every rule that applies has passed" if promoted
        else f"{pipeline}: {version} is refused: accuracy is {mean:.3f}, at least 0.9 is required",
        champion=champion, against=0,
    )  # fmt: skip
    cv = {name: _folded([fit.metrics[name] for fit in fits]) for name in fits[0].metrics}
    model = _put(store, f"models/{pipeline}/{version}/model.keras", b"not a model")
    manifest = ModelManifest(
        pipeline=pipeline, version=version, run_id=trained_by or run_id, workload="image_classification",
        classes=tuple(classes), input=shape, preprocessing="p" * 12, snapshot=snapshot.snapshot, snapshot_number=1,
        config=config.model_dump(mode="json"), cv=cv, code={"data": "d" * 64, "train": "e" * 64},
        libraries={"keras": "3.15.1", "tensorflow": "2.21.0"},
        files=(model.model_copy(update={"key": "model.keras"}),), created_at=created_at,
    )  # fmt: skip
    lying = _put(store, f"models/{pipeline}/{version}/manifest.json", canonical(manifest))
    package = PackageRef(pipeline=pipeline, version=version, manifest_sha256=lying.sha256, bytes=model.bytes)
    if page is not None:
        _put(store, f"runs/{pipeline}/{run_id}/report.html", page)
    per_class = {name: int((labels == n).sum()) for n, name in enumerate(classes)}
    split = Split(train=examples * 4, holdout=examples, train_per_class={n: c * 4 for n, c in per_class.items()},
                  holdout_per_class=per_class, rejected=None)  # fmt: skip
    infra = InfraResult(version=version, manifest_sha256=lying.sha256, passed=True, largest_difference=0.0,
                        tolerance=1e-5, examples=64, sentence="a fresh process reproduced 64 predictions",
                        seconds=8.0)  # fmt: skip
    return Run(config, plan, verdict, evaluation, fits, final, split, infra, manifest, package, holdout)


def _put(store: Store, key: str, data: bytes) -> ObjectRef:
    if store.size(key) is None:
        store.create(key, data)
    data = store.get(key)
    return ObjectRef(key=key, sha256=sha256(data), bytes=len(data))


def _guesses(rng: np.random.Generator, examples: int, count: int, accuracy: float) -> tuple[list[str], Any, Any]:
    labels = rng.integers(0, count, examples)
    # The last class has no example, as happens to a small holdout: its metrics are null.
    labels[labels == count - 1] = 0
    probabilities = _probabilities(rng, labels, count, accuracy)
    return sorted(sha256(rng.bytes(8)) for _ in range(examples)), labels, probabilities


def _probabilities(rng: np.random.Generator, labels: Any, count: int, accuracy: float) -> Any:
    examples = len(labels)
    said = np.where(rng.random(examples) < accuracy, labels, rng.integers(0, count, examples))
    odds = rng.random((examples, count)) * 0.3
    odds[np.arange(examples), said] += 0.6 + rng.random(examples) * 3
    return odds / odds.sum(axis=1, keepdims=True)


def _scores(version: str, labels: Any, probabilities: Any, classes: Sequence[str]) -> HoldoutScores:
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    metrics: dict[str, float | None] = _overall(labels, probabilities)
    for number, name in enumerate(classes):
        of, said = int(confusion[number].sum()), int(confusion[:, number].sum())
        right = int(confusion[number, number])
        metrics[f"precision[{name}]"] = right / said if said and of else None
        metrics[f"recall[{name}]"] = right / of if of else None
        metrics[f"f1[{name}]"] = 2 * right / (of + said) if of else None
    rows = tuple(tuple(int(n) for n in row) for row in confusion)
    return HoldoutScores(version=version, metrics=metrics, confusion=rows, examples=len(labels))


def _overall(labels: Any, probabilities: Any) -> dict[str, float | None]:
    right = float((probabilities.argmax(axis=1) == labels).mean())
    loss = float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())
    near = {"precision": right - 0.004, "recall": right - 0.007, "f1": right - 0.006}
    return {"accuracy": right, **near, "log_loss": loss}


def _folded(values: Sequence[float | None]) -> dict[str, Any]:
    there = [value for value in values if value is not None]
    return {"mean": statistics.fmean(there), "std": statistics.stdev(there), "folds": list(values)}


def _epochs(rng: np.random.Generator, held_out: bool) -> tuple[EpochValue, ...]:
    found = []
    for epoch in range(1, 7):
        loss = 2.2 * 0.55**epoch + rng.random() * 0.05
        values = {"loss": loss, "accuracy": 1 - loss / 3}
        if held_out:
            values |= {"val_loss": loss * 1.2 + 0.05, "val_accuracy": 1 - loss / 2.6}
        found += [EpochValue(epoch=epoch, metric=name, value=value, seconds=1.25) for name, value in values.items()]
    return tuple(found)


def _fit(
    store: Store, rng: np.random.Generator, plan: Plan, classes: Sequence[str], fold: int, examples: int, right: float
) -> FitResult:
    ids, labels, probabilities = _guesses(rng, examples, len(classes), right + (fold - 1) * 0.01)
    key = f"fits/{plan.pipeline}/{plan.version}/fold-{fold}/oof.parquet"
    file = _put(store, key, predictions.write(ONE_CLASS, ids, labels, probabilities, classes, fold))
    return FitResult(
        version=str(plan.version), fold=fold, metrics=_overall(labels, probabilities), epochs=_epochs(rng, True),
        files=(file,), seconds=8.0, examples=examples * 3, cost=COST,
    )  # fmt: skip


def _pictures(rng: np.random.Generator, labels: Any, shape: tuple[int, int, int]) -> Any:
    """A bright stroke per label on a dark ground: something to look at."""
    height, width, channels = shape
    pixels = rng.integers(0, 40, (len(labels), height, width, channels), dtype=np.uint8)
    for n, label in enumerate(labels):
        at = 2 + int(label) * (width - 6) // max(1, int(labels.max()))
        pixels[n, 3 : height - 3, at : at + 3] = rng.integers(150, 255, channels, dtype=np.uint8)
    return pixels

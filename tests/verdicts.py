"""What the gate is given, in small: one candidate, maybe a champion, their scores, a history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leptonflow.gate import decision
from leptonflow.gate.evidence import Evidence
from leptonflow.registry import champion_log
from leptonflow.registry.champion_log import Champion
from leptonflow.storage import commit_log
from leptonflow.storage.commit_log import Entry, Log
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.classification import ONE_CLASS
from schemas.config import Pipeline, parse
from schemas.records import Evaluation, HoldoutScores, InfraResult, ObjectRef, RuleResult, Verdict

CANDIDATE, CHAMPION = "c" * 12, "a" * 12


def pipeline(*rules: dict[str, Any]) -> Pipeline:
    document = {"name": "digits", "workload": "image_classification", "input": [28, 28, 1], "gate": list(rules)}
    return parse(document, where="digits.yaml", folder=Path())


def fold_scores(**metrics: tuple[float | None, float | None]) -> dict[str, dict[str, Any]]:
    return {name: {"mean": mean, "std": std, "folds": [mean] * 5} for name, (mean, std) in metrics.items()}


def scores(version: str, metrics: dict[str, float | None]) -> HoldoutScores:
    return HoldoutScores(version=version, metrics=metrics, confusion=((1, 0), (0, 1)), examples=2)


CLASSES = ("cat", "dog")
SURE = 0.8  # how sure the champion is: its predictions are never the candidate's own


def rows(labels: NDArray[np.int64], right: Sequence[bool] | NDArray[np.bool_], sure: float = 0.9) -> Any:
    """N x 2 probabilities that give the label where `right`, else the other class."""
    said = np.where(np.asarray(right, bool), labels, 1 - labels)
    found = np.full((len(labels), 2), 1 - sure)
    found[np.arange(len(labels)), said] = sure
    return found


def pairs(b: int, c: int, both: int, neither: int = 0) -> dict[str, Any]:
    """evaluation and evidence of b + c + both + neither examples that the two of them, or one, got right."""
    n = b + c + both + neither
    order = np.random.default_rng(0).permutation(n)
    mine = np.repeat([True, False, True, False], [b, c, both, neither])[order]
    theirs = np.repeat([False, True, True, False], [b, c, both, neither])[order]
    labels = np.arange(n) % 2
    return measured(labels, rows(labels, mine), rows(labels, theirs, SURE))


def measured(labels: NDArray[np.int64], mine: Any, theirs: Any = None, **known: Any) -> dict[str, Any]:
    """evaluation and evidence of these N x K probabilities; `known` are further fields of the evidence."""
    score = catalog.load("image_classification").score
    return {
        "evaluation": evaluation(
            score(labels, mine, CLASSES), None if theirs is None else score(labels, theirs, CLASSES)
        ),
        "evidence": Evidence(
            classes=CLASSES, target=ONE_CLASS, labels=labels, candidate=mine, champion=theirs, **known
        ),
    }


def imagined(found: Evaluation, n: int = 1000) -> Evidence:
    """Examples with the accuracies that the evaluation tells, each wrong one of the better model wrong in both."""
    labels = np.arange(n) % 2

    def of(told: HoldoutScores | None, sure: float = 0.9) -> Any:
        share = told.metrics.get("accuracy") if told is not None else None
        share = share if share is not None and math.isfinite(share) else 0.5
        return rows(labels, np.arange(n) < round(min(max(share, 0.0), 1.0) * n), sure)

    theirs = None if found.champion_scores is None else of(found.champion_scores, SURE)
    mine = of(found.candidate_scores)
    return Evidence(classes=CLASSES, target=ONE_CLASS, labels=labels, candidate=mine, champion=theirs)


def evaluation(
    candidate: dict[str, float | None], champion: dict[str, float | None] | None = None, *,
    of: str | None = None, not_comparable: str | None = None,
) -> Evaluation:  # fmt: skip
    of = of or (CHAMPION if champion is not None or not_comparable else None)
    return Evaluation(
        run_id="r1", version=CANDIDATE, champion=of,
        candidate_scores=scores(CANDIDATE, candidate),
        champion_scores=scores(of, champion) if of and champion is not None else None,
        not_comparable=not_comparable,
        predictions=ObjectRef(key="runs/digits/r1/holdout-predictions.parquet", sha256="0" * 64, bytes=1),
    )  # fmt: skip


def infra(passed: bool = True, version: str = CANDIDATE) -> InfraResult:
    return InfraResult(
        version=version, manifest_sha256="0" * 64, passed=passed, largest_difference=0.5 if not passed else 0.0,
        tolerance=1e-5, examples=2, sentence="a fresh process reproduced 2 predictions", seconds=1.0,
    )  # fmt: skip


def champion(version: str = CHAMPION, snapshot_number: int = 1) -> Champion:
    return Champion(
        version=version, number=1, manifest_sha256="0" * 64, since="2026-01-01T00:00:00Z", run_id="r0",
        kind="promotion", previous=None, snapshot="s", snapshot_number=snapshot_number,
    )  # fmt: skip


def records(*changes: tuple[str, str, str | None]) -> Log:
    """A log of (kind, version, previous)."""
    return Log("promotions/digits/log", tuple(
        Entry(
            number=n, id=str(n), kind=kind, who="kim@lab", why="too many\nsevens", at="2026-01-01T00:00:00Z",
            previous=None, store="s", body={"version": version, "previous": previous}, sha256=str(n),
        )
        for n, (kind, version, previous) in enumerate(changes, start=1)
    ))  # fmt: skip


def decide(config: Pipeline, **changes: Any) -> Verdict:
    given: dict[str, Any] = {
        "run_id": "r1", "version": CANDIDATE, "cv": fold_scores(accuracy=(0.9812, 0.01)),
        "evaluation": evaluation({"accuracy": 0.97}), "infra": infra(), "champion": None, "against": 0,
        "history": records(), "snapshot_number": 3, "champion_snapshot_number": None,
    }  # fmt: skip
    given.update(changes)
    given.setdefault("evidence", imagined(given["evaluation"]))
    if given["champion"] is not None and "champion_snapshot_number" not in changes:
        given["champion_snapshot_number"] = given["champion"].snapshot_number
    return decision.decide(config, **given)


def only(verdict: Verdict, name: str) -> RuleResult:
    (found,) = [rule for rule in verdict.rules if rule.rule == name]
    return found


def promoted_by_hand(store: Store, pipeline: str, version: str, manifest_sha256: str) -> None:
    """Make a version champion, as a person may."""
    body = champion_log.Promotion(
        version=version, previous=None, run_id=None, manifest_sha256=manifest_sha256, snapshot="s", snapshot_number=1
    )  # fmt: skip
    log = champion_log.promotions(store, pipeline)
    commit_log.commit(store, log, id=version, kind="override", body=body.model_dump(), who="me", why="urgent")

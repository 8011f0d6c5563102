"""Leaves the run behind: verdict, tables, report, manifest; or the document of a run that trained nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonflow.runs import recording, untrained, verdicts
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import Evaluation, FitResult, InfraResult, Outcome, Plan, Split, Verdict
from tasks import stage

Document = dict[str, Any]


@stage("record")
def record(
    store: str,
    config: Pipeline,
    plan: Plan,
    verdict: Verdict,
    evaluation: Evaluation,
    infra: InfraResult,
    fits: Sequence[FitResult],
    final: FitResult,
    split: Split,
    outcomes: Sequence[Outcome],
    started_at: str,
    seconds: dict[str, float],
) -> Document:
    """The document of `retrain --json`."""
    opened = open_store(store)
    results = recording.Results(
        verdict=verdict, evaluation=evaluation, infra=infra, fits=fits, final=final, split=split,
        champion_after=verdicts.champion_after(opened, config.name), batches=[o.batch for o in outcomes],
        started_at=started_at, seconds=seconds,
    )  # fmt: skip
    return recording.record(opened, config, plan, results)


@stage("unchanged")
def unchanged(store: str, config: Pipeline, plan: Plan) -> Document:
    """The document of the run that was finished before."""
    return untrained.unchanged(open_store(store), plan)


@stage("reject-data")
def reject_data(
    store: str,
    config: Pipeline,
    plan: Plan,
    split: Split | None,
    outcomes: Sequence[Outcome],
    seconds: dict[str, float],
) -> Document:
    """The document of data that cannot be trained."""
    return untrained.rejected_data(open_store(store), plan, split, outcomes, seconds)

"""Leaves the run behind: verdict, tables, report, manifest; or the document of a run that trained nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonflow.registry import champion_log
from leptonflow.runs import early_refusals, recording, rejections
from leptonflow.runs import unchanged as unchanged_run
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import Evaluation, FitResult, InfraResult, Outcome, Plan, RuleResult, Split, Verdict
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
        champion_after=champion_log.current_version(opened, config.name), batches=[o.batch for o in outcomes],
        started_at=started_at, seconds=seconds,
    )  # fmt: skip
    return recording.record(opened, config, plan, results)


@stage("record")
def refuse_early(
    store: str,
    config: Pipeline,
    plan: Plan,
    row: RuleResult,
    fits: Sequence[FitResult],
    split: Split,
    outcomes: Sequence[Outcome],
    started_at: str,
    seconds: dict[str, float],
) -> Document:
    """The document of a run that its first folds ended."""
    batches = [outcome.batch for outcome in outcomes]
    return early_refusals.record(open_store(store), config, plan, row, fits, split, batches, started_at, seconds)


@stage("unchanged")
def unchanged(store: str, config: Pipeline, plan: Plan) -> Document:
    """The document of the run that was finished before."""
    return unchanged_run.of_finished(open_store(store), plan)


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
    return rejections.document(open_store(store), plan, split, outcomes, seconds)

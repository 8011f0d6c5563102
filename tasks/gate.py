"""Evaluates the gate's rules: each with its value, its bound and whether it passed."""

from __future__ import annotations

from leptonflow.runs import verdicts
from leptonflow.runs.verdicts import Opponent
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import Evaluation, InfraResult, Plan, Verdict
from tasks import stage


@stage("gate")
def gate(
    store: str, config: Pipeline, plan: Plan, opponent: Opponent, evaluation: Evaluation, infra: InfraResult
) -> Verdict:
    """The verdict, made against one record of the promotions log."""
    return verdicts.decide(open_store(store), config, plan, opponent, evaluation, infra)

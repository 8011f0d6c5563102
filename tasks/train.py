"""Cross-validation, a task a fold, and the fit on all training data."""

from __future__ import annotations

from typing import Any

from leptonflow.core import deadlines
from leptonflow.core.deadlines import Limit
from leptonflow.training.runners.fit_runner import FitRunner
from schemas.config import Pipeline
from schemas.records import FitResult, Plan
from tasks import stage


def _fold(parameters: dict[str, Any]) -> str:
    """As progress and the report count them: from 1."""
    return f"train fold {parameters['fold'] + 1}"


@stage("train-fold", run_name=_fold)
def train_fold(store: str, config: Pipeline, plan: Plan, runner: FitRunner, limit: Limit, fold: int) -> FitResult:
    """The manifest of one fold; what lies there already is returned."""
    with deadlines.within(limit):
        return runner.fit(store, config, plan, fold)


@stage("fit-final")
def fit_final(store: str, config: Pipeline, plan: Plan, runner: FitRunner, limit: Limit) -> FitResult:
    """The manifest of the final fit; what lies there already is returned."""
    with deadlines.within(limit):
        return runner.fit(store, config, plan, None)

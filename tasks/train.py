"""Cross-validation, a task a fold, and the fit on all training data."""

from __future__ import annotations

from leptonflow import training
from leptonflow.store import open_store
from schemas.config import Pipeline
from schemas.records import FitResult, Plan
from tasks import stage


@stage("train-fold")
def train_fold(store: str, config: Pipeline, plan: Plan, fold: int) -> FitResult:
    """The manifest of one fold; what lies there already is returned."""
    return training.train_fold(open_store(store), config, plan, fold)


@stage("fit-final")
def fit_final(store: str, config: Pipeline, plan: Plan) -> FitResult:
    """The manifest of the final fit; what lies there already is returned."""
    return training.fit_final(open_store(store), config, plan)

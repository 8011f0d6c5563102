"""What every runner of fits does, and the one that computes them in the process that asks."""

from __future__ import annotations

from typing import Protocol

from leptonflow.storage.address import open_store
from leptonflow.training import model_fits
from leptonflow.training.workspace import Workspace
from schemas.config import Pipeline
from schemas.records import FitResult, Plan


class FitRunner(Protocol):
    """Computes fits of one plan, wherever: all that a fit needs to know are references."""

    def fit(self, store: str, config: Pipeline, plan: Plan, fold: int | None) -> FitResult:
        """The manifest of that fold, or of the final fit (None); what lies on the store already is returned."""


class Here:
    """In this process, one fit at a time, with what the plan's fits share."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def fit(self, store: str, config: Pipeline, plan: Plan, fold: int | None) -> FitResult:
        """As FitRunner says. Raises what a fit raises."""
        if fold is None:
            return model_fits.fit_final(open_store(store), config, plan, self.workspace)
        return model_fits.train_fold(open_store(store), config, plan, fold, self.workspace)


def name(fold: int | None) -> str:
    """What a person calls the fit: as in progress, from 1."""
    return "the final fit" if fold is None else f"fold {fold + 1}"

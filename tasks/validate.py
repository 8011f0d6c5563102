"""Judges one closed batch under the contract, and commits it to the dataset or refuses it."""

from __future__ import annotations

from leptonflow import admission
from leptonflow.store import open_store
from schemas.config import Pipeline
from schemas.records import Outcome
from tasks import stage


@stage("validate")
def validate(store: str, config: Pipeline, batch: str) -> Outcome:
    """The batch's outcome."""
    return admission.admit(open_store(store), config, batch)

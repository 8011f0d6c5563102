"""Validates one closed batch under the contract, and commits it to the dataset or refuses it."""

from __future__ import annotations

from leptonflow.core import deadlines, progress
from leptonflow.core.deadlines import Limit
from leptonflow.data.dataset import admission
from leptonflow.runs import batch_warnings
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import Outcome
from tasks import stage


@stage("validate", run_name="validate {batch}")
def validate(store: str, config: Pipeline, batch: str, limit: Limit) -> Outcome:
    """The batch's outcome."""
    with deadlines.within(limit):
        outcome = admission.admit(open_store(store), config, batch)
    for line in batch_warnings.line(batch, outcome.warnings):
        progress.note(line)
    return outcome

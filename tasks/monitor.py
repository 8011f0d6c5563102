"""Looks for drift in what the champion is served, and records what was found."""

from __future__ import annotations

from leptonflow.monitoring import drift_looks
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.drift import DriftRecord
from tasks import stage


@stage("look for drift")
def look(store: str, config: Pipeline) -> DriftRecord | str:
    """What was found, not recorded yet; a sentence where too few predictions are new."""
    return drift_looks.due(open_store(store), config)


@stage("record the look")
def record(store: str, found: DriftRecord) -> DriftRecord:
    """The record as it lies on the store."""
    return drift_looks.record(open_store(store), found)

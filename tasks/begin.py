"""Marks the run as started, so that a killed run is resumed and not started anew."""

from __future__ import annotations

from leptonflow.runs import verdicts
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import Plan
from tasks import stage


@stage("begin")
def begin(store: str, config: Pipeline, plan: Plan) -> str:
    """Since when the run exists, UTC."""
    return verdicts.begin(open_store(store), config, plan)

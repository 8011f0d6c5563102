"""Scores the source that a pipeline's YAML names, to files on the store."""

from __future__ import annotations

from typing import Any

from leptonflow.batch_scoring import stored_scores
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from tasks import stage


@stage("score")
def score(store: str, config: Pipeline, at: str) -> dict[str, Any]:
    """The manifest of the run's scores."""
    return stored_scores.score(open_store(store), config, at)

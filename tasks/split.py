"""Holdout and training set, as counts."""

from __future__ import annotations

from leptonflow.data.dataset import holdout_split
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import SnapshotRef, Split
from tasks import stage


@stage("split")
def split(store: str, config: Pipeline, snapshot: SnapshotRef) -> Split:
    """The counts, and why the snapshot cannot be trained where it cannot."""
    return holdout_split.split(open_store(store), config, snapshot)

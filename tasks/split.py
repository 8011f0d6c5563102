"""Holdout and training set, as counts; and the warnings of the batches that are new in them."""

from __future__ import annotations

from collections.abc import Collection

from prefect.runtime import deployment

from leptonflow.core import person, progress
from leptonflow.data.dataset import holdout_split
from leptonflow.runs import batch_warnings
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import SnapshotRef, Split
from tasks import stage


@stage("split")
def split(store: str, config: Pipeline, snapshot: SnapshotRef, told: Collection[str]) -> Split:
    """The counts, and why the snapshot cannot be trained where it cannot. told: batches whose warnings were told."""
    opened = open_store(store)
    found = holdout_split.split(opened, config, snapshot)
    reader = None if deployment.id else person.person()  # of a deployment's run nobody is known to read along
    for line in batch_warnings.of_new_batches(opened, config.name, told, found.warnings, reader):
        progress.note(line)
    return found

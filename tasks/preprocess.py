"""The dataset as the pipeline's preprocessing encodes it; encoded again only where that changed."""

from __future__ import annotations

from leptonflow.core import deadlines
from leptonflow.core.deadlines import Limit
from leptonflow.data.dataset import reencoding
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import SnapshotRef
from tasks import stage


@stage("preprocess")
def preprocess(store: str, config: Pipeline, limit: Limit) -> SnapshotRef:
    """A reference to the dataset's state."""
    with deadlines.within(limit):
        return reencoding.preprocess(open_store(store), config)

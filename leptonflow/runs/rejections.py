"""Retrainings that trained nothing, because the data cannot be trained on or all pending batches were refused.

Each leaves a small record, so that whoever comes later sees why nothing changed. What does not belong here: deciding
that (the flow, holdout_split), and the outcomes of single batches (batch_outcomes).
"""

from __future__ import annotations

from collections.abc import Sequence

from leptonflow.core import clock, store_keys
from leptonflow.core.hashing import canonical, digest, short
from leptonflow.runs import recording
from leptonflow.storage.objects import adopt, read_models
from leptonflow.storage.store import Store
from schemas.records import Record


class Rejection(Record):
    """runs/<pipeline>/rejected-data/<digest>.json. snapshot: null while the dataset is empty; at: of the first time."""

    pipeline: str
    snapshot: str | None
    batches: tuple[str, ...]  # that this retraining validated
    sentence: str
    at: str


def record(store: Store, pipeline: str, snapshot: str | None, batches: Sequence[str], sentence: str) -> None:
    """Record a retraining that trained nothing: once for the same reason, until a run finishes."""
    finished = len(recording.manifests(store, pipeline))
    found = Rejection(
        pipeline=pipeline, snapshot=snapshot, batches=tuple(batches), sentence=sentence, at=clock.now()
    )
    name = short(digest("rejected-data", snapshot, sentence, finished))
    adopt(store, store_keys.rejection_key(pipeline, name), canonical(found))


def newest(store: Store, pipeline: str) -> Rejection | None:
    """The last of them, None where there is none. Raises Damaged, naming the key."""
    keys = store.keys(store_keys.rejections_folder(pipeline))
    found = read_models(store, Rejection, keys, "the record of a rejected retraining")
    return max(found, key=lambda each: each.at, default=None)

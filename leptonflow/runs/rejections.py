"""Retrainings that trained nothing, because the data cannot be trained on or all pending batches were refused.

Each has a document, and leaves a small record, so that whoever comes later sees why nothing changed. What does not
belong here: deciding that (the flow, holdout_split), and the outcomes of single batches (batch_outcomes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.core import clock, store_keys
from leptonflow.core.hashing import canonical, digest, short
from leptonflow.registry import champion_log
from leptonflow.runs import recording
from leptonflow.storage.objects import adopt, read_models
from leptonflow.storage.store import Store
from schemas.records import Outcome, Plan, Record, Split


class Rejection(Record):
    """runs/<pipeline>/rejected-data/<digest>.json. snapshot: null while the dataset is empty; at: of the first time."""

    pipeline: str
    snapshot: str | None
    batches: tuple[str, ...]  # that this retraining validated
    sentence: str
    at: str


def record(store: Store, pipeline: str, snapshot: str | None, batches: Sequence[str], sentence: str) -> None:
    """Record a retraining that trained nothing: once for the same reason, until a run finishes."""
    found = Rejection(pipeline=pipeline, snapshot=snapshot, batches=tuple(batches), sentence=sentence, at=clock.now())
    adopt(store, _key(found, len(recording.manifests(store, pipeline))), canonical(found))


def _key(found: Rejection, finished: int) -> str:
    """finished: how many runs had finished by then."""
    name = short(digest("rejected-data", found.snapshot, found.sentence, finished))
    return store_keys.rejection_key(found.pipeline, name)


def document(
    store: Store, plan: Plan, split: Split | None, outcomes: Sequence[Outcome], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The document `rejected-data` of `retrain`, which is recorded for `status`; it is never a finished run.

    split: None where all batches were refused; its `rejected` says why the data cannot be trained on.
    """
    refused = [f"{o.batch}: {o.sentence}" for o in outcomes if o.outcome == "refused"]
    empty = f"there is no data yet: leptonflow ingest {plan.pipeline} SOURCE adds some"
    why = split.rejected if split is not None and split.rejected else "; ".join(refused) or empty
    if outcomes or split is not None:
        snapshot = plan.snapshot.snapshot if plan.snapshot else None
        record(store, plan.pipeline, snapshot, [o.batch for o in outcomes], why)
    return {
        "run_id": None,
        "verdict": "rejected-data",
        "version": None,
        "champion": champion_log.current_version(store, plan.pipeline),
        "snapshot": plan.snapshot.snapshot if plan.snapshot else None,
        "batches": [o.batch for o in outcomes],
        "examples": {"train": split.train if split else None, "holdout": split.holdout if split else None},
        **(split.groups if split else {}),
        "cv": None,
        "holdout": None,
        "gate": None,
        "report": None,
        "seconds": dict(seconds),
        "cost": None,
        "sentence": why,
    }


def standing(store: Store, pipeline: str, finished: int) -> Rejection | None:
    """The last one after so many finished runs, None where there is none. Raises Damaged, naming the key."""
    there = set(store.keys(store_keys.rejections_folder(pipeline)))
    since = [each for each in every(store, pipeline) if _key(each, finished) in there]
    return max(since, key=lambda each: each.at, default=None)


def every(store: Store, pipeline: str) -> list[Rejection]:
    """All of them. Raises Damaged, naming the key."""
    keys = store.keys(store_keys.rejections_folder(pipeline))
    return read_models(store, Rejection, keys, "the record of a rejected retraining")

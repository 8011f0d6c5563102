"""What a person should know of the batches of a retraining, one line for each.

Who ran `ingest` was told when the batch came; who retrains may be another person, or nobody, whose record is read
later. What does not belong here: finding what there is to warn of (admission).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from leptonflow.data.dataset import dataset_state
from leptonflow.runs import recording, rejections
from leptonflow.storage.store import Store
from schemas.errors import Damaged


def line(batch: str, warnings: Sequence[str]) -> list[str]:
    """The warnings of a batch as one line; none where there are none."""
    return [f"batch {batch}: {'; '.join(warnings)}"] if warnings else []


def of_new_batches(
    store: Store, pipeline: str, besides: Collection[str] = (), said: Collection[str] = (), reader: str | None = None
) -> list[str]:
    """A line for each batch with warnings that no earlier retraining found in its data, oldest first.

    besides: batches of which this retraining has told already. said: warnings of the dataset as a whole, which one of
    its only batch repeats. reader: the person who reads them, and was told of the batches that they ingested.
    """
    history = dataset_state.snapshots(store, pipeline)
    seen = _seen(store, pipeline)
    found: list[str] = []
    for entry in reversed(history.entries):
        if entry.body["snapshot"] in seen:
            break
        if entry.kind == "batch" and entry.body["batch"] not in besides and entry.who != reader:
            found += line(entry.body["batch"], [each for each in entry.body["outcome"]["warnings"] if each not in said])
    return found[::-1]


def told_to(store: Store, pipeline: str, reader: str) -> set[str]:
    """The warnings of the batches that this person ingested, and was told of then."""
    entries = dataset_state.snapshots(store, pipeline).entries
    mine = [entry.body for entry in entries if entry.kind == "batch" and entry.who == reader]
    return {warning for body in mine for warning in body["outcome"]["warnings"]}


def _seen(store: Store, pipeline: str) -> set[str | None]:
    """The snapshots that a retraining trained on, or could not train on. Damage is told elsewhere, and ends no run."""
    try:
        rejected = rejections.every(store, pipeline)
        trained = recording.runs(store, pipeline)
    except Damaged:
        return set()
    return {*(run["snapshot"] for run in trained), *(each.snapshot for each in rejected)}

"""Batches that a person set aside: each a record of its own, after which nobody reads the batch (again).

A discard changes no dataset: what was accepted stays, and an accepted batch cannot be discarded. What does not belong
here: which batches are pending (pending_batches), and taking examples out of the dataset.
"""

from __future__ import annotations

from leptonflow.core import clock, person, store_keys
from leptonflow.core.hashing import canonical
from leptonflow.data.ingest import layouts
from leptonflow.storage import commit_log
from leptonflow.storage.objects import adopt, parsed, read_model, read_models
from leptonflow.storage.store import Store
from schemas.errors import LeptonflowError, NotFound, UsageError
from schemas.records import Discard

RECORD = "the record of a discarded batch"


def names(store: Store, pipeline: str) -> frozenset[str]:
    """The keys of the discarded batches' names: of a name that a batch can have, the name itself. One listing."""
    prefix = f"{store_keys.discards_folder(pipeline)}/"
    return frozenset(key.removeprefix(prefix).removesuffix(".json") for key in store.keys(prefix))


def every(store: Store, pipeline: str) -> list[Discard]:
    """The records, sorted by batch. Raises Damaged, naming the key."""
    return read_models(store, Discard, store.keys(store_keys.discards_folder(pipeline)), RECORD)


def of(store: Store, pipeline: str, batch: str) -> Discard | None:
    """The record of one batch, None where nobody discarded it."""
    key = _key(pipeline, batch)
    return None if store.size(key) is None else parsed(store, key, lambda data: _record(data, key))


def discard(store: Store, pipeline: str, batch: str, reason: str, who: str) -> tuple[Discard, bool]:
    """Set a batch aside; its record, and whether it was made now. The first record of a batch stands.

    Open, closed, refused and misnamed batches can be discarded. Raises UsageError where no reason is given, NotFound
    where there is no such batch, LeptonflowError where it was accepted.
    """
    batch = layouts.shown(batch)
    reason = person.reason(reason)
    _not_accepted(store, pipeline, batch)
    before = of(store, pipeline, batch)
    if before is not None:
        return before, False
    there = [layouts.shown(name) for name in store.folders(store_keys.landing_folder(pipeline))]
    if batch not in {*there, *store.folders(store_keys.outcomes_folder(pipeline))}:
        raise NotFound(
            f"the pipeline {pipeline} has no batch {batch!r} in landing",
            expected=f"one of {', '.join(there[:20])}" if there else "a batch, and there is none",
            received=repr(batch),
            hint=f"`leptonflow status {pipeline}` lists them",
        )
    mine = Discard(pipeline=pipeline, batch=batch, reason=reason, who=who, at=clock.now())
    key = _key(pipeline, batch)
    data = canonical(mine)
    lying = adopt(store, key, data)
    _not_accepted(store, pipeline, batch)  # a run may have been reading it
    return _record(lying, key), lying == data


def refused(found: Discard) -> UsageError:
    """The error of admitting a batch that was discarded."""
    return UsageError(
        f"the batch {found.batch} was discarded by {found.who} at {found.at} ({found.reason})",
        expected="a batch that was not discarded",
        received=found.batch,
        hint="Land the files under another batch name",
    )


def _not_accepted(store: Store, pipeline: str, batch: str) -> None:
    for entry in commit_log.read(store, store_keys.dataset_log(pipeline)).entries:
        if entry.kind == "batch" and entry.body["batch"] == batch:
            raise LeptonflowError(
                f"the batch {batch} is in the dataset",
                expected="a batch that was not accepted: pending, refused, open or misnamed",
                received=f"accepted by {entry.who} at {entry.at}",
                hint=f"`leptonflow retract {pipeline} EXAMPLE... --reason TEXT` removes examples from the dataset",
            )


def _key(pipeline: str, batch: str) -> str:
    return store_keys.discard_key(pipeline, layouts.escape(batch))


def _record(data: bytes, key: str) -> Discard:
    return read_model(Discard, key, data, RECORD)

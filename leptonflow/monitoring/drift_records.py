"""The records of looks for drift, and when one asks for a retraining. Looking itself belongs to `drift_looks`."""

from __future__ import annotations

from leptonflow.core import store_keys
from leptonflow.storage.objects import read_model, read_models
from leptonflow.storage.store import Store
from schemas.drift import DriftRecord


def newest(store: Store, pipeline: str, most: int) -> tuple[DriftRecord, ...]:
    """`most` of the records at most, the newest first. Raises Damaged where one cannot be read."""
    keys = [key for key in store.keys(store_keys.drift_records_folder(pipeline)) if store_keys.is_drift_record(key)]
    return tuple(read_models(store, DriftRecord, keys[: -most - 1 : -1], "the record of a look for drift"))


def numbered(store: Store, pipeline: str, number: int) -> DriftRecord:
    """One of them. Raises NotFound, Damaged."""
    key = store_keys.drift_record_key(pipeline, number)
    return read_model(DriftRecord, key, store.get(key), "the record of a look for drift")


def last(store: Store, pipeline: str) -> DriftRecord | None:
    """The newest record. Raises Damaged where it cannot be read."""
    return next(iter(newest(store, pipeline, 1)), None)


def asked(found: DriftRecord, before: DriftRecord | None) -> frozenset[str]:
    """The drifted tests for which the record before and those before it asked for a retraining, of the same champion.

    Each record repeats what it knew, so that the newest one alone is read, however many there are.
    """
    if before is None or before.version != found.version:
        return frozenset()
    return frozenset(before.asked) | (before.drifted if before.triggers else frozenset())


def asks(found: DriftRecord, before: DriftRecord | None) -> bool:
    """Whether a retraining is asked for: once for each champion and cause. Drifts that share a test are one cause."""
    return found.verdict == "drift" and not found.drifted & asked(found, before)

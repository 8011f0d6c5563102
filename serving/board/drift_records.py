"""The newest looks for drift in what is served. Looking does not belong here (drift_looks), nor how a look is shown."""

from __future__ import annotations

from leptonflow.core import store_keys
from leptonflow.storage.objects import read_model
from leptonflow.storage.store import Store
from schemas.drift import DriftRecord

MOST = 20


def newest(store: Store, pipeline: str) -> tuple[DriftRecord, ...]:
    """MOST of the records at most, the newest first. Raises Damaged where one cannot be read."""
    keys = [key for key in store.keys(store_keys.drift_records_folder(pipeline)) if store_keys.is_drift_record(key)]
    keys = keys[: -MOST - 1 : -1]
    found = zip(keys, store.get_many(keys), strict=True)
    return tuple(read_model(DriftRecord, key, data, "the record of a look for drift") for key, data in found)


def page(store: Store, pipeline: str, number: int) -> bytes:
    """The page of a look. Raises NotFound."""
    return store.get(store_keys.drift_page_key(pipeline, number))

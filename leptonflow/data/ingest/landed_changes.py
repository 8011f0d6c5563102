"""Which landed files are no longer what they were when their batch was validated. For `doctor`.

A batch is compared with its listing once, when it is validated; later changes are never read. They
matter only where the preprocessing changes and accepted examples must be encoded again.
"""

from __future__ import annotations

from leptonflow.core import store_keys
from leptonflow.core.hashing import sha256
from leptonflow.data.dataset import part_files
from leptonflow.data.ingest import landing, layouts
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store
from schemas.records import PartRef


def changed(store: Store, pipeline: str) -> list[str]:
    """The names (`batch/file`) of landed files of accepted batches that are missing, new or other bytes."""
    found: list[str] = []
    for entry in commit_log.read(store, store_keys.dataset_log(pipeline)).entries:
        if entry.kind == "batch":
            batch = str(entry.body["batch"])
            parts = [PartRef.model_validate(part) for part in entry.body["parts"]]
            found += [f"{batch}/{name}" for name in _changed(store, pipeline, batch, parts)]
    return found


def landed(store: Store, pipeline: str, batch: str, parts: list[PartRef]) -> tuple[dict[str, str], bool]:
    """(key within the batch, as it is shown: sha256) of what must lie there; whether that is all that may.

    A plain batch has no listing: what was accepted from it is what must still be there.
    """
    listed = landing.listed(store, pipeline, batch)
    if listed is not None:
        return {file.key: file.sha256 for file in listed.files}, True
    expected: dict[str, str] = {}
    for part in parts:
        table = part_files.read_columns(store, part, ("key", "row", "sha256"))
        for key, row, digest in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if key is not None and row is None:
                expected[key] = digest
    return expected, False


def keys(store: Store, pipeline: str, batch: str) -> dict[str, str]:
    """(key within the batch, as it is shown: key on the store): a name on a disk need not be Unicode."""
    prefix = store_keys.batch_folder(pipeline, batch)
    return {layouts.shown(key.removeprefix(f"{prefix}/")): key for key in store.keys(prefix)}


def _changed(store: Store, pipeline: str, batch: str, parts: list[PartRef]) -> list[str]:
    there = keys(store, pipeline, batch)
    expected, listed = landed(store, pipeline, batch, parts)
    strangers = sorted(set(there) - set(expected) - {store_keys.READY, store_keys.INGEST}) if listed else []
    present = [key for key in expected if key in there]
    read = store.get_many([there[key] for key in present])
    other = [key for key, data in zip(present, read, strict=True) if sha256(data) != expected[key]]
    other = [key for key in other if sha256(store.get(there[key])) != expected[key]]  # not a wrong reading
    missing = sorted(set(expected) - set(there))
    return [
        *(f"{name} (changed)" for name in other),
        *(f"{name} (missing)" for name in missing),
        *(f"{name} (added later)" for name in strangers),
    ]

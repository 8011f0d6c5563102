"""Runs that were begun and are not finished: one that is under way, and lost ones.

Looks and writes nothing. What does not belong here: finished runs (recording), and what a run would do (planning).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from leptonflow.core import store_keys
from leptonflow.core.concurrency import in_order
from leptonflow.storage import run_lock
from leptonflow.storage.store import Store

# On a store without locks a run counts as lost when it has written nothing for so long. A fold writes at its end.
QUIET = timedelta(hours=1)


@dataclass(frozen=True)
class Unfinished:
    """A run that was begun. changed: when it last wrote anything, None where the store does not say."""

    run_id: str | None
    version: str | None
    started_at: str | None
    changed: datetime | None
    number: int = 0  # one more than there were runs begun; 0 in one of a release that gave none
    attempt: int = 0  # above 0: of `retrain --force`

    def document(self) -> dict[str, Any]:
        """As `status --json` gives it."""
        changed = self.changed.isoformat(timespec="seconds") if self.changed else None
        return {
            "run_id": self.run_id, "version": self.version, "attempt": self.attempt, "started_at": self.started_at,
            "last_change": changed,
        }  # fmt: skip


def runs(
    store: Store, pipeline: str, finished: Collection[str] | None = None
) -> tuple[Unfinished | None, list[Unfinished]]:
    """(the run that is under way, the lost ones: begun, not finished and held by nobody), the oldest first.

    finished: the ids of the finished runs, where the caller knows them; their folders are not looked into.

    On a directory the lock says whether one is under way: it may not be begun yet, and then has no id. Elsewhere it is
    the one that has written last, within the last hour.
    """
    begun = _begun(store, pipeline, finished)
    begun.sort(key=lambda run: (run.number, run.changed or _NEVER, run.started_at or ""))
    held = run_lock.held(store, pipeline)
    if held is None:
        begun.sort(key=lambda run: run.changed or _NEVER)  # by one clock, the store's
        newest = begun[-1].changed if begun else None
        held = newest is not None and datetime.now(UTC) - newest < QUIET
    if not held:
        return None, begun
    return (begun[-1], begun[:-1]) if begun else (Unfinished(None, None, None, None), [])


_NEVER = datetime.min.replace(tzinfo=UTC)


def _begun(store: Store, pipeline: str, finished: Collection[str] | None) -> list[Unfinished]:
    keys = _keys(store, pipeline, finished)
    started = [
        key for key in sorted(keys)
        if key.endswith("/started.json") and key.replace("/started.json", "/manifest.json") not in keys
    ]  # fmt: skip
    with_data = zip(started, store.get_many(started), strict=True)
    return list(in_order(lambda found: _one(store, pipeline, *found), with_data))


def _keys(store: Store, pipeline: str, finished: Collection[str] | None) -> set[str]:
    """What lies in the folders of the runs that are not known to be finished."""
    if finished is None:
        return set(store.keys(store_keys.runs_folder(pipeline)))
    left = [name for name in store.folders(store_keys.runs_folder(pipeline)) if name not in finished]
    return {key for name in left for key in store.keys(store_keys.run_folder(pipeline, name))}


def _one(store: Store, pipeline: str, key: str, data: bytes) -> Unfinished:
    run_id = key.split("/")[2]
    try:
        found = json.loads(data)
        version, at = str(found["version"]), str(found["started_at"])
        number, attempt = int(found.get("number") or 0), int(found.get("attempt") or 0)
    except (ValueError, TypeError, KeyError):  # damaged: begun all the same
        version, at, number, attempt = None, None, 0, 0
    places = [store_keys.run_folder(pipeline, run_id)]
    if version:
        places += [store_keys.fits_folder(pipeline, version), store_keys.package_folder(pipeline, version)]
        places.append(store_keys.scratch_folder(pipeline, version))
    changes = [when for when in map(store.modified, places) if when is not None]
    return Unfinished(run_id, version, at, max(changes, default=None), number, attempt)

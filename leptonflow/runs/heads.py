"""Whether a run has finished on a dataset's head with the current configuration, for a caller who polls.

Data and configuration count, code does not: what a new release would make of the same is no reason to train by itself.
What does not belong here: which batches are pending (closed_batches), and asking for the run (flows.arrivals).
"""

from __future__ import annotations

from leptonflow.runs import recording
from leptonflow.storage.store import Store
from schemas.errors import Damaged


class Heads:
    """What is known of one pipeline's finished runs; each one's manifest is read once."""

    def __init__(self, store: Store, pipeline: str) -> None:
        self._store, self._pipeline = store, pipeline
        self._read: set[str] = set()
        self._finished: set[str] = set()

    def finished(self, asked: str, snapshot: str) -> bool:
        """Whether a run has finished that was asked for this (planning.asked). Raises StoreError.

        A run of an earlier release did not record what it was asked for: one on the same snapshot is enough.
        """
        if not self._finished & {asked, snapshot}:
            self._look()
        return bool(self._finished & {asked, snapshot})

    def _look(self) -> None:
        keys = [key for key in recording.manifests(self._store, self._pipeline) if key not in self._read]
        for key, data in zip(keys, self._store.get_many(keys), strict=True):
            self._read.add(key)
            try:
                self._finished.add(recording.asked(data, key))
            except Damaged:  # `status` tells of it
                continue

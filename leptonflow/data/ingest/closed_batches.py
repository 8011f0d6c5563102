"""Which closed batches of a pipeline are pending, for a caller who polls and must cost nothing at rest.

`pending_batches.waiting` says the same about one moment. Here it is remembered: a batch that was seen closed is never
asked for again, and neither is what the commit log said of it. What does not belong here: telling anybody that a batch
has arrived (flows.arrivals), and what becomes of it (admission).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from leptonflow.core import store_keys
from leptonflow.core.concurrency import in_order
from leptonflow.core.store_keys import INGEST, READY
from leptonflow.data.ingest import discards, landing, landing_state
from leptonflow.data.validation import contracts
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import known_id, store_id
from schemas.config import NAME, Pipeline
from schemas.errors import Damaged, NotFound

WINDOW = 16
# A folder's time of change moves in steps of the kernel's clock: what came right after a look may carry the same one.
COARSE_NS = 2_000_000_000


@dataclass(frozen=True)
class Arrival:
    """A closed batch as it lies there. None: its `_READY` is damaged, and only a run can say why."""

    pipeline: str
    batch: str
    files: int | None
    bytes: int | None


class Arrivals:
    """What is known of one pipeline's landing. Not safe to use from several threads."""

    def __init__(self, store: Store, pipeline: str) -> None:
        self.pipeline = pipeline
        self._store = store
        self._forget(None)

    def _forget(self, identity: str | None) -> None:
        self._identity = identity  # of the store that the rest is about
        self._listing: list[str] = []
        self._stamp: tuple[int, int] | None = None  # the landing folder's inode and time of change at that listing
        self._closed: set[str] = set()
        self._due: set[str] = set()  # closed, and not yet returned by a look
        self._open: tuple[str, ...] = ()
        self._refused: dict[str, str] = {}  # batch -> contract
        self._accepted: set[str] = set()
        self._records: int | None = None  # of the dataset's log that were read
        self._head: dict[str, Any] | None = None  # the body of the last of them

    @property
    def open(self) -> tuple[str, ...]:
        """The batches that were not closed at the last look."""
        return self._open

    def look(self, config: Pipeline, only: Collection[str] | None = None) -> list[str]:
        """The pending batches that no earlier call has returned, sorted.

        only: names that somebody gave a hint of; no other is asked for. After a change of the contract, batches that
        the old one had refused wait again. Raises StoreUnreachable, ConfigurationError where there is no contract.
        """
        names = self._listed() if only is None else sorted(name for name in only if NAME.fullmatch(name))
        asked = [name for name in names if name not in self._closed]
        if asked and self._records is None:
            self._follow()  # what was accepted is closed, and need not be asked for
        unsure = [name for name in asked if name not in self._accepted]
        there = [name for name in unsure if landing_state.readable(self._store, self.pipeline, name)]
        sizes = self._sizes(store_keys.landed_key(self.pipeline, name, READY) for name in there)
        still_open = set(unsure).difference(n for n, size in zip(there, sizes, strict=True) if size is not None)
        closed = [name for name in asked if name not in still_open]
        if closed and self._replaced():
            return self.look(config, only)
        self._closed.update(closed)
        if only is None:
            self._open = tuple(sorted(still_open))
        self._due.update(closed, self._judged_anew(config))
        found = self.waiting(config, sorted(self._due)) if self._due else []
        self._due.clear()  # not before: where the store failed, the next look returns them
        return found

    def waiting(self, config: Pipeline, batches: Sequence[str]) -> list[str]:
        """Those of these batches that are closed, and neither in the dataset, refused under the current contract nor
        discarded."""
        self._follow()
        left = [batch for batch in batches if batch in self._closed and batch not in self._accepted]
        if not left:
            return []
        discarded = discards.names(self._store, self.pipeline)
        left = [batch for batch in left if batch not in discarded]
        contract = contracts.digest(config)
        outcomes = self._sizes(store_keys.outcome_key(self.pipeline, batch, contract) for batch in left)
        found = list(zip(left, outcomes, strict=True))
        self._refused.update((batch, contract) for batch, outcome in found if outcome is not None)
        return [batch for batch, outcome in found if outcome is None]

    def head(self) -> dict[str, Any] | None:
        """The body of the dataset's newest record, None while there is none."""
        self._follow()
        return self._head

    def measure(self, batch: str) -> Arrival:
        """How much a closed batch holds: by the listing that `ingest` wrote, else by the keys that lie there."""
        try:
            listing = landing.listed(self._store, self.pipeline, batch)
        except (Damaged, NotFound):
            return Arrival(self.pipeline, batch, None, None)
        if listing is not None:
            sizes = [file.size for file in listing.files]
        else:
            prefix = store_keys.batch_folder(self.pipeline, batch)
            markers = [store_keys.landed_key(self.pipeline, batch, name) for name in (READY, INGEST)]
            sizes = [size for key, size in self._store.list(prefix) if key not in markers and not key.endswith("/")]
        return Arrival(self.pipeline, batch, len(sizes), sum(sizes))

    def _judged_anew(self, config: Pipeline) -> list[str]:
        """The batches that an earlier contract had refused."""
        if not self._refused:
            return []
        contract = contracts.digest(config)
        again = [batch for batch, under in self._refused.items() if under != contract]
        for batch in again:
            del self._refused[batch]
        return again

    def _listed(self) -> list[str]:
        """The names in the landing folder. A directory is listed anew only after it has changed."""
        prefix = store_keys.landing_folder(self.pipeline)
        began, stamp = time.time_ns(), self._changed(prefix)
        if stamp is not None and stamp == self._stamp:
            return self._listing
        names = [name for name in self._store.folders(prefix) if NAME.fullmatch(name)]
        self._stamp = stamp if stamp is not None and began - stamp[1] > COARSE_NS else None
        if names != self._listing:
            gone = self._closed.difference(names)
            self._closed -= gone
            for batch in gone:
                self._refused.pop(batch, None)
            self._listing = names
        return self._listing

    def _changed(self, prefix: str) -> tuple[int, int] | None:
        """Which folder this is and when it changed; None where it is none on a disk."""
        folder = self._store.path(prefix)
        if folder is None:
            return None
        try:
            found = os.stat(folder)
        except OSError:  # the listing says whether that is wrong
            return None
        return found.st_ino, found.st_mtime_ns

    def _replaced(self) -> bool:
        """Whether another store lies at this address than the one that was looked at before."""
        identity, before = known_id(self._store) or store_id(self._store), self._identity
        self._identity = identity
        if before in (None, identity):
            return False
        self._forget(identity)
        return True

    def _follow(self) -> None:
        """Read what was committed to the dataset's log since; the names of batches and the last body are kept.

        A record that cannot be read ends the reading: a run reports it, and until then later batches are pending.
        """
        log, number, window = store_keys.dataset_log(self.pipeline), self._records or 0, 1
        try:
            while True:
                numbers = range(number + 1, number + 1 + window)
                for data in self._store.get_many([store_keys.record_key(log, n) for n in numbers]):
                    record = json.loads(data)
                    self._head = dict(record["body"])
                    if record["kind"] == "batch":
                        self._accepted.add(str(record["body"]["batch"]))
                    number += 1
                window = WINDOW
        except (NotFound, ValueError, TypeError, KeyError):
            self._records = number

    def _sizes(self, keys: Iterable[str]) -> list[int | None]:
        """The size of each object or None, asked for side by side where each is a request."""
        if self._store.path("") is not None:
            return [self._store.size(key) for key in keys]
        return list(in_order(self._store.size, keys))

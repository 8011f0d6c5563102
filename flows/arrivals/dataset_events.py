"""Raises the event of a dataset whose head no finished run used with the current configuration, even after lost events.

Once for each state of data and configuration, and again only where no run followed or all that did have failed. What
was raised before is read from the Prefect server, so that a new watcher continues there. What does not belong here:
pending batches (batch_events).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from flows.arrivals.prefect_api import UNDER_WAY, Api
from leptonflow.runs import planning
from leptonflow.runs.heads import Heads
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import store_id
from schemas.arrivals import head_event
from schemas.config import Pipeline

ATTEMPTS = 3  # events for one state
AGAIN_SECONDS = 3600.0  # after an event whose runs have failed
SETTLING_SECONDS = 120.0  # in which a run that crashed is scheduled again (flows.automations): it needs no event
FAILED = {"FAILED", "CRASHED"}


class Due:
    """One pipeline's dataset."""

    def __init__(self, store: Store, pipeline: str, say: Callable[[str], None]) -> None:
        self.check = float("inf")  # monotonic: when `tell` has something to do
        self._store, self._pipeline, self._say = store, pipeline, say
        self._heads = Heads(store, pipeline)
        self._asked: str | None = None
        self._snapshot = ""
        self._raised: dict[str, datetime] = {}  # by event: the server may not have it on its disk yet

    def look(self, config: Pipeline, head: Mapping[str, Any] | None) -> None:
        """Take note of the current state. head: the body of the dataset's newest record, None where it has none."""
        asked = None if head is None or "content" not in head else planning.asked(config, head["content"])
        if head is not None and asked is not None and asked != self._asked:
            self._snapshot, self.check = str(head["snapshot"]), 0.0
        self._asked = asked

    def tell(self, api: Api, deployment: str, patience: float) -> None:
        """Raise the next event where it is time. patience: seconds until a run is due that an event starts.

        Raises ServerError, StoreError.
        """
        if self._asked is None or self._heads.finished(self._asked, self._snapshot):
            self.check = float("inf")
            return
        until = api.now() + timedelta(seconds=patience)
        self.check = time.monotonic() + patience
        for attempt in range(ATTEMPTS):
            event = head_event(store_id(self._store), self._pipeline, self._snapshot, self._asked, attempt)
            at = self._raised.get(event["id"]) or api.occurred(event["id"])
            if at is None:
                if not api.works(deployment, until, SETTLING_SECONDS):
                    self._raised[event["id"]] = api.raise_events([event])
                    self._say(f"{self._pipeline}: no finished run used snapshot {self._snapshot}: event raised")
                return
            followed = api.states(deployment, until, at)
            if followed - FAILED - set(UNDER_WAY):  # it completed, or a person cancelled it
                self.check = float("inf")
                return
            wait = AGAIN_SECONDS if followed else patience
            if followed & set(UNDER_WAY) or api.now() - at < timedelta(seconds=wait):
                return
        self.check = float("inf")
        self._say(f"{self._pipeline}: {ATTEMPTS} events led to no finished run; run `leptonflow retrain` to see why")

"""Raises the event of each closed batch of one pipeline, at least once, and ensures that a run follows.

The run lists the store itself, so a duplicate event costs an `unchanged` run at most. An event that the server lost is
found by its batch, which is still pending although no run was due since. What does not belong here: when the store is
listed (watcher), and what a run does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from flows.arrivals.dataset_events import Due
from flows.arrivals.prefect_api import Api
from leptonflow.core import pipeline_files
from leptonflow.data.ingest.closed_batches import Arrival, Arrivals
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import store_id
from schemas.arrivals import FLOW, batch_event, event_id
from schemas.config import Pipeline
from schemas.errors import UsageError
from schemas.text import noun

AT_ONCE = 100  # events in one request
OVERDUE_SECONDS = 60.0  # beyond the debounce, until a batch for which no run was due is told of again
FIND_SECONDS = 5.0  # between two looks for a deployment that is not there


@dataclass(frozen=True)
class Raised:
    """A batch whose event the server took."""

    at: datetime  # on the server's clock
    check: float  # on ours, monotonic: when a run must have been due
    times: int  # from 2 on, raising it again would start nothing


class Raiser:
    """One pipeline. `given`: its name or its YAML's path, which is read again whenever the file changes."""

    def __init__(self, given: str, store: Store, say: Callable[[str], None]) -> None:
        self.given = given
        self.config = pipeline_files.load_config(given)
        self.arrivals = Arrivals(store, self.config.name)
        self.pending: dict[str, str] = {}  # batch -> how it was noticed; its event is yet to be raised
        self._store, self._say = store, say
        self.renamed = False  # its YAML names another pipeline now
        self._changed = self._yaml_stamp()
        self._wrong = False  # its YAML is, and an earlier one is in use
        self._measured: dict[str, Arrival] = {}
        self._raised: dict[str, Raised] = {}  # no run was due since, as far as is known
        self._deployed: bool | None = None  # None: not asked yet
        self._find = 0.0
        self._due = Due(store, self.config.name, say)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def check(self) -> float:
        """When `tell` has something to do although nothing arrives: monotonic seconds, or infinity."""
        checks = [raised.check for raised in self._raised.values()]
        if self._deployed is False:
            checks.append(self._find)
        elif not checks:  # the event of a batch is as good for its dataset
            checks.append(self._due.check)
        return min(checks, default=float("inf"))

    def look(self, how: str, only: Collection[str] | None = None) -> bool:
        """Look at the store; whether batches were found whose event must be raised. Raises StoreError."""
        if only is None:
            self.read_yaml()
        found = self.arrivals.look(self.config, only)
        if only is None:
            self._due.look(self.config, self.arrivals.head())
        for batch in found:
            self.pending.setdefault(batch, how)
        return bool(found)

    def ask_again(self) -> None:
        """The server was away: what it knew of this pipeline may be gone."""
        self._deployed, self._find = None, 0.0

    def tell(self, api: Api) -> None:
        """Raise what is pending, and look after what was raised. Raises ServerError, StoreError; nothing is lost."""
        # Before an event is raised: whether a deployment heard it decides how it is looked after.
        ask = time.monotonic() >= self._find or (self.pending and not self._deployed)
        deployment = self._deployment(api) if ask else None
        self._raise_pending(api)
        now = time.monotonic()
        overdue = [batch for batch, raised in self._raised.items() if raised.check <= now]
        if overdue:
            self._look_after(api, deployment or self._deployment(api), overdue)
        if not self._raised and self._deployed is not False and self._due.check <= now:
            deployment = deployment or self._deployment(api)
            if deployment is not None:
                self._due.tell(api, deployment, self._patience())

    def _raise_pending(self, api: Api) -> None:
        while self.pending:
            self._raise(api, sorted(self.pending)[:AT_ONCE])

    def _raise(self, api: Api, batches: list[str]) -> None:
        identity = store_id(self._store)
        for batch in batches:
            if batch not in self._measured:
                self._measured[batch] = self.arrivals.measure(batch)
        found = [self._measured[batch] for batch in batches]
        at = api.raise_events([batch_event(identity, self.name, a.batch, a.files, a.bytes) for a in found])
        for arrival in found:
            self._note(arrival.batch, at)
            self._say(f"{self.name}: {_told(arrival)} ({self.pending.pop(arrival.batch)}): event raised")
            del self._measured[arrival.batch]

    def _note(self, batch: str, at: datetime) -> None:
        before = self._raised.get(batch)
        self._raised[batch] = Raised(at, time.monotonic() + self._patience(), before.times + 1 if before else 1)

    def _look_after(self, api: Api, deployment: str | None, overdue: list[str]) -> None:
        """Raise again the events of batches that are pending while no run is due; in the end create the run."""
        if deployment is None:
            for batch in overdue:
                self._raised[batch] = replace(self._raised[batch], check=time.monotonic() + self._patience())
            return
        left = self._unanswered(api, deployment, overdue)
        waiting = self.arrivals.waiting(self.config, left) if left else []
        for batch in set(overdue).difference(waiting):
            del self._raised[batch]
        if not waiting:
            return
        first = str(event_id(store_id(self._store), self.name, waiting[0]))
        # A server drops an event whose id it has seen, even where the trigger has missed it.
        if all(self._raised[batch].times == 1 for batch in waiting) and api.occurred(first) is None:
            self.pending.update((batch, "no run was due since") for batch in waiting)
            self._raise_pending(api)
            return
        run = api.create_run(deployment, f"{first} {int(api.now().timestamp() // self._patience())}")
        self._say(f"{self.name}: no run was due since {', '.join(waiting[:5])} arrived: created the run {run}")
        for batch in waiting:
            del self._raised[batch]

    def _unanswered(self, api: Api, deployment: str, batches: list[str]) -> list[str]:
        """Those of these batches after whose event no run is or was due. Such a run lists the store after they came."""
        until = api.now() + timedelta(seconds=self._patience())
        for at in sorted({self._raised[batch].at for batch in batches}, reverse=True):
            if api.expects_run(deployment, at, until):
                return [batch for batch in batches if self._raised[batch].at > at]
        return batches

    def _deployment(self, api: Api) -> str | None:
        """The id of this pipeline's deployment; a line where it is missing, and where it is there at last."""
        found = api.deployment(self.name)
        if found is None:
            if self._deployed is not False:
                self._say(
                    f"{self.name}: the Prefect server at {api.shown} has no deployment {FLOW}/{self.name}, so that its "
                    "events start nothing until `leptonflow deploy` has run, as `leptonflow up` does by itself"
                )
            self._find = time.monotonic() + FIND_SECONDS
        else:
            if self._deployed is False:
                self._say(f"{self.name}: the deployment {FLOW}/{self.name} is there now")
                for batch, raised in self._raised.items():
                    self._raised[batch] = replace(raised, check=0.0, times=2)  # nothing heard their events
            self._find = float("inf")
        self._deployed = found is not None
        return found

    def _patience(self) -> float:
        return self.config.debounce + OVERDUE_SECONDS

    def _yaml_stamp(self) -> tuple[int, int] | None:
        try:
            found = pipeline_files.find(self.given).stat()
        except (OSError, UsageError):
            return None
        return found.st_mtime_ns, found.st_size

    def read_yaml(self) -> None:
        """Use a changed YAML; an invalid one is reported and not used."""
        stamp = self._yaml_stamp()
        if stamp == self._changed:
            return
        self._changed = stamp
        try:
            config: Pipeline = pipeline_files.load_config(self.given)
        except UsageError as error:
            self._say(f"{self.name}: {error.line()} Until then it is watched with the earlier YAML")
            self._wrong = True
            return
        if config.name != self.name:
            self._say(f"{self.name}: its YAML now names another pipeline, {config.name}")
            self.renamed = True
            return
        if self._wrong:
            self._say(f"{self.name}: its YAML is right again, and in use")
        self.config, self._wrong = config, False


def _told(arrival: Arrival) -> str:
    if arrival.files is None or arrival.bytes is None:
        return f"batch {arrival.batch} is closed by a damaged _READY"
    sizes = ((arrival.files, "file"), (arrival.bytes, "byte"))
    told = ", ".join(f"{count:,} {noun(count, what)}" for count, what in sizes)
    return f"batch {arrival.batch} has arrived, {told}"

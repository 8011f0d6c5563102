"""Candidates beside the champions: loads what is to be shadow or canary, and lets the gate decide about a canary.

A thread of its own, so that it delays neither an answer nor a new champion. A candidate that cannot be loaded, or takes
other inputs than the version that answers, predicts nothing, and the reason is told.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from typing import Any

from leptonflow.core import clock, store_keys
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store
from schemas.errors import LeptonflowError, StoreUnreachable, line_of
from serving import live_models
from serving.live_models import Live
from serving.service import LiveCandidate, Service

POLL = 3.0  # seconds between two looks
DECIDE = 30.0  # seconds between two questions whether a canary has labels enough


class Candidates:
    """One thread for every service whose YAML has `serving.shadow` or `serving.canary`, and no pin."""

    def __init__(
        self, store: Store, services: Sequence[Service], say: Callable[[str], None], poll: float = POLL,
        decide: float = DECIDE,
    ) -> None:  # fmt: skip
        self._store, self._say, self._poll, self._decide = store, say, poll, decide
        self._services = [each for each in services if _wanted(each)]
        self._failed: dict[str, tuple[str, str]] = {}  # of a service: a version that is not tried again beside another
        self._seen: dict[tuple[str, str], tuple[Any, str | None]] = {}
        self._ended: dict[str, tuple[str, ...]] = {}  # of a service: its approvals when no canary was left to decide
        self._undecided: dict[str, str] = {}  # of a service: why it could not be decided when that was last asked
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="candidates", daemon=True)

    def start(self) -> None:
        if self._services:
            self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        looks = max(1, round(self._decide / self._poll))
        number = 0
        while True:
            for service in self._services:
                if not self._stop.is_set():
                    self._look(service, number % looks == 0)
            number += 1
            if self._stop.wait(self._poll):
                return

    def _look(self, service: Service, decide: bool) -> None:
        """One look; what goes wrong is told, and the next look tries again: other services need this thread too."""
        asked = service.config.serving
        if decide and asked.canary is not None:
            self._undecided.pop(service.name, None)
            try:
                self._decided(service)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - of a model's own code too
                self._undecided[service.name] = line_of(error)
        try:
            self._follow(service, decide)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - of a model's own code too
            self._problem(service, line_of(error))

    def _decided(self, service: Service) -> None:
        from leptonflow.runs import approvals, canary

        there, before = self._approvals(service), service.beside
        if self._ended.get(service.name) == there:
            return
        found = canary.decide(self._store, service.config, clock.now())
        if found["state"] not in approvals.UNDECIDED:
            self._ended[service.name] = there
            if before is not None and before.share:
                self._say(f"{service.name}: the canary {found['version']}: {found['sentence']}")

    def _follow(self, service: Service, fresh: bool) -> None:
        live, beside, asked = service.live, service.beside, service.config.serving
        version = self._waiting(service, fresh) if asked.canary is not None else None
        share = asked.canary.share if asked.canary is not None and version is not None else 0.0
        if version is None and asked.shadow is not None:
            version = self._newest(service)
        if version is None or live is None or version == live.version:
            if beside is not None:
                beside = service.beside = None
                gc.collect()  # the model's memory: a server hardly looks for garbage by itself
            self._problem(service, self._undecided.get(service.name))
            return
        if beside is not None and beside.live.version == version and _alike(beside.live, live):
            if beside.share != share:
                service.beside = LiveCandidate(beside.live, share, asked.shadow is not None)
            self._problem(service, self._undecided.get(service.name))
            return
        pair = (version, live.version)
        if self._failed.get(service.name) == pair or (service.problem_beside or "").startswith(f"{version} failed"):
            return
        beside = service.beside = None
        gc.collect()  # the candidate before, one that failed too
        try:
            other = live_models.load(self._store, service.config, version, None)
            if not _alike(other, live):
                raise LeptonflowError(f"{version} takes other inputs than {live.version}")
        except StoreUnreachable:
            raise
        except (Exception, SystemExit):
            self._failed[service.name] = pair
            raise
        service.beside = LiveCandidate(other, share, asked.shadow is not None)
        self._problem(service, self._undecided.get(service.name))
        what = f"answers {share:.1%} of the requests" if share else "predicts every request too"
        self._say(f"{service.name}: the candidate {version} {what}")

    def _approvals(self, service: Service) -> tuple[str, ...]:
        return tuple(self._store.keys(store_keys.approvals_folder(service.name)))

    def _waiting(self, service: Service, fresh: bool) -> str | None:
        """`canary.waiting`, read again only where there is another record, and now and then for its time."""
        from leptonflow.runs import canary

        number = commit_log.last_number(self._store, store_keys.promotions_log(service.name))
        now, key = (self._approvals(service), number), (service.name, "canary")
        if fresh or self._seen.get(key, (None, None))[0] != now:
            self._seen[key] = (now, canary.waiting(self._store, service.config, clock.now()))
        return self._seen[key][1]

    def _newest(self, service: Service) -> str | None:
        """`canary.newest`, read again only where there is another run or champion."""
        from leptonflow.runs import canary, recording

        now = (len(recording.manifests(self._store, service.name)), service.live and service.live.version)
        key = (service.name, "shadow")
        if self._seen.get(key, (None, None))[0] != now:
            self._seen[key] = (now, canary.newest(self._store, service.config))
        return self._seen[key][1]

    def _problem(self, service: Service, why: str | None) -> None:
        if why is not None and service.problem_beside != why:
            self._say(f"{service.name}: no candidate predicts: {why}")
        service.problem_beside = why


def _wanted(service: Service) -> bool:
    asked = service.config.serving
    return service.pin is None and (asked.shadow is not None or asked.canary is not None)


def _alike(one: Live, other: Live) -> bool:
    """Whether they take the same inputs."""
    return (one.workload, one.served.manifest.input) == (other.workload, other.served.manifest.input)

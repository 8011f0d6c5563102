"""Looks at the promotions logs, loads what became champion beside what is served, and swaps between two batches.

A version that cannot be loaded, or does not predict what its package says, never replaces one that answers. While the
store is away, what is loaded goes on answering.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence

from leptonflow.core import store_keys
from leptonflow.registry import champion_log, packages
from leptonflow.storage import commit_log, store_identity
from leptonflow.storage.store import Store
from schemas.errors import StoreUnreachable, line_of
from serving import live_models
from serving.service import Service

POLL = 1.0  # seconds between two looks
AGAIN = 60.0  # seconds until a version that could not be loaded is tried again


class Watch:
    """One thread for every service. say: what happened, a line each; pinned: called before a pin is first served.

    looked: set after the first look for every service.
    """

    def __init__(
        self,
        store: Store,
        services: Sequence[Service],
        say: Callable[[str], None],
        pinned: Callable[[Service], None],
        poll: float = POLL,
        looked: threading.Event | None = None,
    ) -> None:
        self._store, self._services, self._say, self._poll = store, services, say, poll
        self._pinned, self._looked = pinned, looked or threading.Event()
        self._settled: dict[str, int] = {}  # the log's length when nothing was left to do
        self._failed: dict[str, tuple[str, int, float]] = {}  # (version, log's length, when it may be tried again)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="champion-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Look no more. A load that is under way is left to itself after `timeout` seconds."""
        self._stop.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            for service in self._services:
                if not self._stop.is_set():
                    self._look(service)
            self._looked.set()
            if self._stop.wait(self._poll):
                return

    def _look(self, service: Service) -> None:
        """One look; what goes wrong is the service's state, and the next look tries again."""
        try:
            self._follow(service)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a watch that ends would serve an old version for good
            why = line_of(error)
            if service.store_problem is None:
                self._say(f"{service.name}: {why}")
            service.store_problem = why

    def _follow(self, service: Service) -> None:
        """Raises whatever reading the log raises."""
        log = store_keys.promotions_log(service.name)
        number = commit_log.last_number(self._store, log)
        if service.live is not None and self._settled.get(service.name) == number:
            service.store_problem = None
            return
        if number == 0:
            store_identity.require(self._store)
        read = champion_log.promotions(self._store, service.name, complete=True)
        champion = champion_log.champion(read)
        service.champion, service.store_problem = champion, None
        version = service.pin or (champion.version if champion else None)
        if version is None:
            service.problem = f"the pipeline {service.name} has no champion yet"
            return
        if service.live is None or service.live.version != version:
            if self._waits(service.name, version, read.number):
                return
            if not self._load(service, version, read.number):
                return
        service.problem = None
        self._settled[service.name] = read.number

    def _waits(self, name: str, version: str, number: int) -> bool:
        failed = self._failed.get(name)
        return failed is not None and failed[:2] == (version, number) and time.monotonic() < failed[2]

    def _load(self, service: Service, version: str, number: int) -> bool:
        """Whether the version is served now. Raises what a store raises that is away."""
        if service.name in self._failed:
            gc.collect()  # the model of the load before: a server hardly looks for garbage by itself
        sha256 = service.champion.manifest_sha256 if service.champion and not service.pin else None
        before = service.live.version if service.live else None
        try:
            if service.pin:
                packages.known(self._store, service.name, version, "--pin")
            live = live_models.load(self._store, service.config, version, sha256)
            if service.pin:
                self._pinned(service)
        except StoreUnreachable:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a package does, it replaces no version
            service.failed_loads += 1
            still = f"{before} is still served" if before else "nothing is served"
            service.problem = f"{version} cannot be served, {still}: {line_of(error)}"
            self._failed[service.name] = (version, number, time.monotonic() + AGAIN)
            self._say(f"{service.name}: {service.problem}")
            return False
        service.live = live  # the next batch is predicted by it
        service.swaps += before is not None
        self._failed.pop(service.name, None)
        runtime = live.served.runtime
        why = f", because {live.served.why_keras}" if live.served.why_keras else ""
        why += f", before {before}" if before else ""
        champion = service.champion.version if service.champion else "none"
        why += f"; it is pinned, the champion is {champion}" if service.pin else ""
        self._say(f"{service.name}: {version} is served by {runtime}{why}")
        if before:
            gc.collect()  # the version before
        return True

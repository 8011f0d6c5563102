"""Candidates beside the champions: loads what is to be shadow or canary, and lets the gate decide about a canary.

A thread of its own, so that it delays neither an answer nor a new champion. A candidate that cannot be loaded, or takes
other inputs than the version that answers, predicts nothing, and the reason is told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from leptonflow.core import clock
from leptonflow.storage.store import Store
from schemas.errors import LeptonflowError
from schemas.text import printable
from serving import live_models
from serving.service import Beside, Service

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
        self._failed: dict[str, str] = {}  # the version of a service that is not tried again
        self._seen: dict[str, tuple[Any, str | None]] = {}
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
        try:
            if decide and service.config.serving.canary is not None:
                self._decided(service)
            self._follow(service)
        except Exception as error:  # noqa: BLE001 - a candidate is not worth the thread that watches the others
            self._problem(service, _line(error))

    def _decided(self, service: Service) -> None:
        from leptonflow.runs import canary

        before = service.beside
        found = canary.decide(self._store, service.config, clock.now())
        if before is not None and before.share and found["state"] not in ("waiting", "approved"):
            self._say(f"{service.name}: the canary {found['version']}: {found['sentence']}")

    def _follow(self, service: Service) -> None:
        from leptonflow.runs import canary

        live, beside, asked = service.live, service.beside, service.config.serving
        version = canary.waiting(self._store, service.config, clock.now()) if asked.canary is not None else None
        share = asked.canary.share if asked.canary is not None and version is not None else 0.0
        if version is None and asked.shadow is not None:
            version = self._newest(service)
        if version is None or live is None or version == live.version:
            service.beside = service.problem_beside = None
            return
        if beside is not None and beside.live.version == version:
            if beside.share != share:
                service.beside = Beside(beside.live, share, asked.shadow is not None)
            return
        if self._failed.get(service.name) == version or (service.problem_beside or "").startswith(f"{version} failed"):
            return
        service.beside = None
        try:
            other = live_models.load(self._store, service.config, version, None)
            if (other.workload, other.served.manifest.input) != (live.workload, live.served.manifest.input):
                raise LeptonflowError(f"{version} takes other inputs than {live.version}")
        except Exception:
            self._failed[service.name] = version
            raise
        service.beside, service.problem_beside = Beside(other, share, asked.shadow is not None), None
        what = f"answers {share:.1%} of the requests" if share else "predicts every request too"
        self._say(f"{service.name}: the candidate {version} {what}")

    def _newest(self, service: Service) -> str | None:
        """`canary.newest`, read again only where there is another run or champion."""
        from leptonflow.runs import canary, recording

        now = (len(recording.manifests(self._store, service.name)), service.live and service.live.version)
        if self._seen.get(service.name, (None, None))[0] != now:
            self._seen[service.name] = (now, canary.newest(self._store, service.config))
        return self._seen[service.name][1]

    def _problem(self, service: Service, line: str) -> None:
        if service.problem_beside != line:
            self._say(f"{service.name}: no candidate predicts: {line}")
        service.problem_beside = line


def _wanted(service: Service) -> bool:
    asked = service.config.serving
    return service.pin is None and (asked.shadow is not None or asked.canary is not None)


def _line(error: Exception) -> str:
    return error.line() if isinstance(error, LeptonflowError) else printable(f"{type(error).__name__}: {error}"[:500])

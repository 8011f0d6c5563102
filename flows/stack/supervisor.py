"""Starts services, keeps them running, ends them. One thread that waits for children, signals and the next thing due.

What does not belong here: which services there are, and printing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.server import complaint
from flows.stack import processes
from flows.wake_signals import Stop
from schemas.errors import LeptonflowError

START_SECONDS = 120.0  # from a service's start to its health, the first time
START_ATTEMPTS = 3
STEADY_SECONDS = 60.0  # what ran as long as this has not failed to start
LONGEST_PAUSE = 60.0
DEPENDS_SECONDS = 10.0  # between two looks at what a service depends on
LOOK_SECONDS = 0.1  # between two looks at a service that is not healthy yet
# An end takes no longer than these three together: 10 seconds.
CLIENT_SECONDS = 4.5
SERVER_SECONDS = 3.5
KILL_SECONDS = 2.0


def _terminate(pid: int) -> None:
    processes.send([pid], signal.SIGTERM)


@dataclass(frozen=True)
class Service:
    """One child of `up`. `line` is what a person reads about it once it is healthy; empty: nothing."""

    name: str
    log: Path
    spawn: Callable[[], subprocess.Popen[bytes] | None]  # None: it cannot be started yet
    healthy: Callable[[float], bool] = lambda since: True  # since: its start, in seconds of the epoch
    line: Callable[[int], str] = lambda pid: ""
    url: str | None = None
    needs: tuple[str, ...] = ()  # services that are healthy before it starts
    beside: tuple[str, ...] = ()  # services that have been started before it starts: it waits for them itself
    once: bool = False  # it ends by itself: its health is its status 0
    depends: Callable[[], object] | None = None  # it is started anew whenever this returns something else
    server: bool = False  # others are its clients: it ends after them
    stop: Callable[[int], None] = _terminate
    shared: Callable[[int], bool] = lambda pid: False  # whether somebody else still uses it when all ends


@dataclass
class Child:
    """A service and its present process."""

    service: Service
    process: subprocess.Popen[bytes] | None = None
    since: float = 0.0
    healthy: bool = False
    was_healthy: bool = False
    failures: int = 0
    due: float = 0.0  # monotonic: not started again before that
    asked: float | None = None  # monotonic: when it was first started
    depended: object = None  # what `depends` returned when it was last started
    wrong: bool = False  # what it depends on was wrong when it last ended
    renewed: bool = False  # it was asked to end, for a start that reads what it depends on

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None


class Supervisor:
    """The services of one `up`. `say` is told each line in the services' order, `note` what happens to them later."""

    def __init__(
        self,
        services: Sequence[Service],
        stop: Stop,
        say: Callable[[str], None],
        note: Callable[[str], None],
        record: Callable[[dict[str, dict[str, object]]], None],
    ) -> None:
        self._children = {service.name: Child(service) for service in services}
        self._stop = stop
        self._say = say
        self._note = note
        self._record = record
        self._unsaid = list(self._children.values())

    def run(self, ready: Callable[[], None]) -> None:
        """Until somebody wishes it to end. `ready` is called once, when all are healthy for the first time.

        Raises LeptonflowError where a service cannot be started. In any case `end` is to follow.
        """
        told = False
        while not self._stop.times:
            self._reap()
            for child in self._children.values():
                self._look_after(child)
            while self._unsaid and self._unsaid[0].was_healthy:
                self._tell(self._unsaid.pop(0))
            if not told and not self._unsaid:
                told = True
                ready()
            self._stop.wait(self._pause())

    def _pause(self) -> float | None:
        """Seconds until there is something to do that no signal tells."""
        now = time.monotonic()
        open_ends = [child for child in self._children.values() if not child.healthy]
        if any(child.process is not None or child.due <= now for child in open_ends):
            return LOOK_SECONDS
        if open_ends:
            return max(min(child.due for child in open_ends) - now, 0)
        return DEPENDS_SECONDS if any(child.service.depends for child in self._children.values()) else None

    def _look_after(self, child: Child) -> None:
        service = child.service
        if child.healthy:
            if service.depends is not None and not child.renewed and service.depends() != child.depended:
                if child.process is None:
                    self._start(child)
                elif not service.once:
                    child.renewed = True
                    service.stop(child.process.pid)
            return
        if child.process is None:
            if child.due <= time.monotonic() and self._may_start(service):
                self._start(child)
        elif not service.once and self._are_healthy(service.beside) and service.healthy(child.since):
            self._now_healthy(child)
        elif child.asked is not None and not child.was_healthy and time.monotonic() - child.asked > START_SECONDS:
            raise self._failure(child, f"{service.name} is not healthy after {START_SECONDS:.0f} seconds", 1)

    def _may_start(self, service: Service) -> bool:
        begun = all(self._children[name].process is not None for name in service.beside)
        return begun and self._are_healthy(service.needs)

    def _are_healthy(self, names: Sequence[str]) -> bool:
        return all(self._children[name].healthy for name in names)

    def _start(self, child: Child) -> None:
        child.since, child.renewed = time.time(), False
        child.depended = child.service.depends() if child.service.depends is not None else None
        child.process = child.service.spawn()
        if child.process is None:
            child.due = time.monotonic() + LOOK_SECONDS
            return
        child.asked = child.asked or time.monotonic()
        self._publish()

    def _now_healthy(self, child: Child) -> None:
        child.healthy = True
        if child.was_healthy:
            self._note(f"{child.service.name} is running again, process {child.pid}")
        child.was_healthy = True

    def _tell(self, child: Child) -> None:
        line = child.service.line(child.pid or 0)
        if line:
            self._say(line)

    def _reap(self) -> None:
        """Take note of every child that ended: the services', and the orphans that came to this process."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children.values():
                if child.process is not None and child.process.pid == pid:
                    child.process.returncode = os.waitstatus_to_exitcode(status)
                    self._ended(child, child.process.returncode)

    def _ended(self, child: Child, status: int) -> None:
        service = child.service
        ran = time.time() - child.since
        child.process = None
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        wrong = status == 2 and service.depends is not None and child.was_healthy  # until what it depends on changes
        if service.once and (status == 0 or wrong):
            if wrong:
                self._note(self._failure(child, f"{service.name} failed ({how})", status).line())
            elif child.wrong:
                self._note(f"{service.name} succeeded: what it depends on is right again")
            child.healthy = child.was_healthy = True
            child.wrong = wrong
            self._publish()
            return
        child.healthy = False
        self._publish()
        if child.renewed:
            child.due = time.monotonic()
            self._note(f"{service.name} is started anew: what it depends on has changed")
            return
        child.failures = 1 if ran > STEADY_SECONDS else child.failures + 1
        if not child.was_healthy and (service.once or child.failures >= START_ATTEMPTS):
            what = "failed" if service.once else "does not start"
            raise self._failure(child, f"{service.name} {what} ({how})", status)
        pause = min(2.0 ** (child.failures - 1), LONGEST_PAUSE)
        child.due = time.monotonic() + pause
        self._note(f"{service.name} ended ({how}); it is restarted in {pause:.0f} s, see {service.log}")

    def _failure(self, child: Child, message: str, status: int) -> LeptonflowError:
        said = complaint(child.service.log) if child.service.log.exists() else None
        said = said.removeprefix("leptonflow: ") if said is not None else None
        error = LeptonflowError(message, received=said, hint=f"See {child.service.log}")
        if child.service.once and status > 0:
            error.exit_status = status  # wrong configuration is told apart from a failure
        return error

    def _publish(self) -> None:
        self._record(
            {
                name: {"pid": child.pid, "url": child.service.url}
                for name, child in self._children.items()
                if child.pid is not None
            }
        )

    # --- the end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """End every service and all that came of it, clients first. Takes 10 seconds at most."""
        running = [child for child in self._children.values() if child.process is not None]
        servers = [child for child in running if child.service.server]
        wishes = self._stop.times
        self._end([child for child in running if not child.service.server], CLIENT_SECONDS, wishes)
        processes.kill_descendants([child.pid for child in servers if child.pid], KILL_SECONDS / 2)
        self._end(servers, SERVER_SECONDS, wishes)
        shared = [child.pid for child in servers if child.pid and child.service.shared(child.pid)]
        for pid in processes.kill_descendants(shared, KILL_SECONDS / 2):
            self._note(f"process {pid} ({processes.command(pid)}) could not be ended")
        for child in running:
            if child.process is not None:
                child.process.returncode = 0  # it has ended, or is somebody else's: no warning from subprocess

    def _end(self, children: list[Child], seconds: float, wishes: int) -> None:
        """Ask them to end and wait for it, until somebody wishes for the end once more."""
        pids = [child.pid for child in children if child.pid is not None and not child.service.shared(child.pid)]
        for child in children:
            if child.pid is not None:
                child.service.stop(child.pid)
        deadline = time.monotonic() + seconds
        while any(processes.alive(pid) for pid in pids) and time.monotonic() < deadline:
            if self._stop.times > wishes:
                return
            self._stop.wait(0.05)

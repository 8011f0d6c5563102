"""A running `leptonflow up` and what a test asks of it: its API, its runs, batches sent in as others send them.

What does not belong here: what should have happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from flows.stack.local import LOGIN
from tests.e2e.helpers import pipeline, start

TINY: dict[str, Any] = {
    "input": [14, 14, 1],
    "model": {"filters": [8], "dense": 16},
    "training": {"epochs": 2, "batch_size": 8, "folds": 2, "learning_rate": 0.005},
    "holdout": {"fraction": 0.25},
    "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.1}],
}
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Stack:
    """`leptonflow up` in a folder."""

    folder: Path
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    client: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=30))

    @property
    def api(self) -> str:
        """The Prefect API's address, as the first line tells it."""
        return self.lines[0].split()[1].rstrip("/") + "/api"

    @property
    def login(self) -> tuple[str, str]:
        """User and password of the Prefect API. `up` shows them once and keeps them for its next start."""
        user, _, password = (self.folder / ".leptonflow" / "stack" / LOGIN).read_text().strip().partition(":")
        return user, password

    @property
    def services(self) -> dict[str, Any]:
        """Each service with its pid, as `up` records it."""
        found = json.loads((self.folder / ".leptonflow" / "stack" / "stack.json").read_text())
        return dict(found["services"])

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """An answer of the API: POST with a body, else GET."""
        method = "GET" if body is None else "POST"
        answer = self.client.request(method, self.api + path, json=body, auth=self.login)
        answer.raise_for_status()
        return answer.json()

    def deployment(self, name: str) -> dict[str, Any]:
        return dict(self.ask(f"/deployments/name/retrain/{name}"))

    def runs(self, name: str) -> list[dict[str, Any]]:
        """The flow runs of a pipeline's deployment, oldest first, those of its schedule in days to come apart."""
        wanted = {"deployments": {"id": {"any_": [self.deployment(name)["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return [run for run in self.ask("/flow_runs/filter", wanted) if not run["auto_scheduled"]]

    def idle(self, name: str) -> bool:
        """Whether runs of a pipeline's deployment were asked for, and all of them have ended."""
        runs = self.runs(name)
        return bool(runs) and all(run["state"]["type"] in ENDED for run in runs)

    def run(self, identity: str) -> dict[str, Any]:
        return dict(self.ask(f"/flow_runs/{identity}"))

    def retrain(self, name: str, **parameters: Any) -> str:
        """Ask for a deployed run now; its id."""
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
        return str(self.ask(f"/deployments/{self.deployment(name)['id']}/create_flow_run", body)["id"])

    def ended(self, identity: str, seconds: float = 120) -> dict[str, Any]:
        """A run once it has ended."""
        return until(lambda: (run := self.run(identity))["state"]["type"] in ENDED and run, seconds, "the run to end")

    def log(self, service: str) -> str:
        return (self.folder / ".leptonflow" / "stack" / f"{service}.log").read_text(errors="replace")


def until(what: Callable[[], Any], seconds: float, wanted: str) -> Any:
    """What the function returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError, FileNotFoundError):
            found = what()
            if found:
                return found
        time.sleep(0.5)  # between two looks, which cost what is looked at
    raise AssertionError(f"waited {seconds:.0f} s for {wanted}")


@contextlib.contextmanager
def up(folder: Path, *arguments: object, environment: dict[str, str] | None = None) -> Iterator[Stack]:
    """`leptonflow up` in a folder, healthy; ended as Ctrl-C ends it, and nothing of it is left."""
    process = start("up", *arguments, cwd=folder, environment=environment, preexec=os.setsid)
    stack = Stack(folder, process)
    readers = [
        threading.Thread(target=_read, args=(stream, lines), daemon=True)
        for stream, lines in ((process.stdout, stack.lines), (process.stderr, stack.errors))
    ]
    for reader in readers:
        reader.start()
    try:
        until(lambda: _ready(stack), 90, f"`up` to be ready; {stack.lines} {stack.errors}")
        yield stack
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for reader in readers:
                reader.join(10)
            stack.client.close()


def _ready(stack: Stack) -> bool:
    assert stack.process.poll() is None, (stack.lines, stack.errors)
    return any(line.startswith("Ready") for line in list(stack.lines))


def _read(stream: Any, lines: list[str]) -> None:
    with stream:
        for line in stream:  # one by one: others look at them as they come
            lines.append(line.rstrip("\n"))


def project(folder: Path, name: str = "small", **keys: Any) -> Path:
    """A working folder with one pipeline under pipelines/."""
    pipeline(folder / "pipelines", **{"name": name, **TINY, "debounce": 5, **keys})
    return folder

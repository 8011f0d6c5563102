"""Full Prefect servers for the tests: Prefect's own application in a child process, its database in a given folder.

`full_server(folder)` yields a `PrefectServer` once it answers: with scheduler, triggers and the other services, as a
team's server has them. It keeps its port and its data over `restart()` and `stop()`. What does not belong here:
pytest, and the folder's own server of `flows.server`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows import server_database
from tests.servers import LOOPBACK, CannotStart, free_ports

ROOT = Path(__file__).parent.parent
START_SECONDS = 90.0
BUSY_ATTEMPTS = 5
SERVE = """
import sys
import uvicorn
from flows import server_database
from leptonflow.core import garbage_collection
server_database.create()
with garbage_collection.paused(freeze=True):
    server_database.write_in_turn()
    from prefect.server.api.server import create_app
    app = create_app()
uvicorn.run(app, host=sys.argv[1], port=int(sys.argv[2]), log_level="warning", timeout_graceful_shutdown=2)
"""
SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    **server_database.URL,
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
}


class PrefectServer:
    """A server that can be stopped, killed and started again on its port and its database."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self.port = free_ports(1)[0]
        self.url = f"http://{LOOPBACK}:{self.port}/api"
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """For its clients and workers: their own Prefect folder, no profile of the person at the keyboard."""
        ours = {"PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.folder / "client"), "DO_NOT_TRACK": "1"}
        return {**plain_environment(), **ours, "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-c", SERVE, LOOPBACK, str(self.port)],
                cwd=self.folder,
                env={**plain_environment(), **SETTINGS, "PREFECT_HOME": str(self.folder), **self._settings},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                break
            try:
                self.call("GET", "/health", timeout=2)
                return
            except OSError:
                time.sleep(0.1)  # between two looks at the same condition
        raise CannotStart(f"the Prefect server was not ready:\n{self.log.read_text(errors='replace')[-3000:]}")

    def stop(self, hard: bool = False) -> None:
        """End it, gently or by kill -9. Its data stays."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL if hard else signal.SIGTERM)
            try:
                self._child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait(timeout=10)
            self._child = None

    def restart(self, hard: bool = False) -> None:
        """Stop it and start it again: the same address, the same data."""
        self.stop(hard)
        self.start()

    def call(self, method: str, path: str, document: Any = None, timeout: float = 30) -> Any:
        """The answer of its REST API, parsed. Raises urllib's HTTPError with the status, OSError where it is down.

        503 is SQLite's lock, held too long on a busy machine: asked again, as Prefect's client does.
        """
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if document is None else json.dumps(document).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for attempt in range(BUSY_ATTEMPTS):
            try:
                with opener.open(request, timeout=timeout) as response:
                    body = response.read()
                break
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == BUSY_ATTEMPTS - 1:
                    raise
        return json.loads(body) if body else None


def plain_environment() -> dict[str, str]:
    """This environment without Prefect's settings, a store's, and what would send loopback calls through a proxy."""
    ours = ("PREFECT_", "LEPTONFLOW_", "AWS_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours) and not k.lower().endswith("_proxy")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", "PYTHONPATH": path}


@contextlib.contextmanager
def full_server(folder: Path, **settings: str) -> Iterator[PrefectServer]:
    """A full server, its data under `folder`; `settings` are further PREFECT_* variables of its environment."""
    server = PrefectServer(folder, settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()

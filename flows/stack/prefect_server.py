"""The Prefect server of `up`: the folder's own server (flows.server) with all of Prefect's services, on a kept port.

`up` keeps the listening socket: while a server is started again, its clients wait instead of failing. What does not
belong here: when it is started.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from flows import addresses, server
from flows.stack import processes

ANSWER_SECONDS = 1.0
LEAVING_SECONDS = 8.0


def await_leaving(folder: Path) -> None:
    """Let the server of an `up` that was killed end, which it does at once: its port is then free again."""
    deadline = time.monotonic() + LEAVING_SECONDS
    while server.full_server(folder) and not users(folder) and time.monotonic() < deadline:
        time.sleep(0.05)


def users(folder: Path) -> list[int]:
    """The processes that hold the folder's server, it and this one apart (Linux; elsewhere nobody is seen)."""
    found = processes.holders(folder / "server.fifo")
    return [pid for pid in found if "flows.server_child" not in processes.command(pid)]


class PrefectServer:
    """The server on `listener`; nobody else's server is ever on the same database at the same time."""

    def __init__(
        self, folder: Path, listener: socket.socket, log: Path, login: str, note: Callable[[str], None]
    ) -> None:
        self.login = login
        self.environment: dict[str, str] = {}  # what its process is told beside Prefect's settings
        self._folder = folder
        self._listener = listener
        self._log = log
        self._note = note
        self._told = False
        self._handle: server.ApiHandle | None = None
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.api = f"{self.url}/api"

    def spawn(self) -> subprocess.Popen[bytes] | None:
        """Start it; None while the embedded server of a running command has the folder, which is told once."""
        if self._handle is not None:
            self._handle.close()
        started = server.launch(self._folder, self._listener, self._log, self.login, self.environment)
        if started is None:
            if not self._told:
                self._told = True
                self._note(f"waiting for the Prefect server of {self.others() or 'a command in this folder'} to end")
            return None
        self._told = False
        self._handle, process = started
        return process

    def healthy(self, since: float) -> bool:
        """Whether it answers."""
        return addresses.answers(f"{self.api}/health", ANSWER_SECONDS)

    def stop(self, pid: int) -> None:
        """Let go of it: it ends with its last user."""
        if self._handle is not None:
            self._handle.close()

    def shared(self, pid: int) -> bool:
        """Whether a command in another terminal still reports to it."""
        return bool(users(self._folder))

    def others(self) -> str:
        """Whoever else uses the folder's server, as a person knows them, or nothing."""
        return ", ".join(f"process {pid} ({processes.command(pid)})" for pid in users(self._folder))

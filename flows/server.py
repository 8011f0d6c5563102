"""The Prefect API that a flow run reports to: the one that is configured, or this folder's own server.

A folder has one server at most: an embedded one that a command starts for itself, or the full one
of `leptonflow up`. All that use it share it, and it ends when the last of them is gone, however that
one ended: each holds the write end of a named pipe whose read end only the server holds, so the
kernel tells the server, kill -9 included. Starting, joining and ending happen under one flock, which
the kernel frees with its holder; so nobody joins a server that is leaving.

Every request but for its health requires a login: with Prefect's API a run of any command can be started,
and every local user and web page reaches a loopback port. The login lies beside the address, in a
file that only this user may read, and goes to clients by their environment.

Importing this module must stay cheap, because the server is started before anything else is
imported: Prefect itself is never imported here.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows import addresses, credentials, environment, server_database
from flows.addresses import ANSWER_SECONDS
from flows.stack import place
from leptonflow.core import progress
from leptonflow.core.child_processes import python_path
from schemas.errors import ServerError

FOLDER = Path(".leptonflow/prefect")
BOOT_SECONDS = 60.0
BACKLOG = 128

# What an embedded server does not need: it schedules nothing, runs no automation, and outlives no command.
# Block types are for workers and for the UI's block catalogue; `up` registers them on the same database.
EMBEDDED = {
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
}

# The server of `up` has all of Prefect's services. Whoever holds a deployment's slot is remembered on disk: the
# default keeps it in memory, where a restarted server takes a running flow's renewal for a loss and cancels the flow.
FULL = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "flows.stack.ordering",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",  # how long a run that must wait, waits
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}

# For the flow in this process, wherever the server is.
CLIENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}


@dataclass
class ApiHandle:
    """An API and, where it is the folder's own server, this process's hold on it."""

    url: str
    folder: Path | None = None  # None: configured from outside
    hold: int | None = None  # the write end of the server's pipe
    log: Path | None = None
    full: bool = False  # the server of `up`
    login: str | None = field(default=None, repr=False)  # user:password; None: what is configured

    def wait(self, timeout: float = BOOT_SECONDS) -> None:
        """Until the server answers. Raises ServerError when it ends first or takes longer than that."""
        if self.folder is None:
            addresses.check(self.url, login=self.login)
            return
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not self._ended():
            # The socket listens from before the server's start, so that one request waits out the boot.
            try:
                addresses.request("GET", f"{self.url}/health", deadline - time.monotonic())
                return
            except OSError:
                continue
        raise ServerError(
            "the Prefect server of this folder did not start" if self._ended() else "the Prefect server is too slow",
            expected=f"{self.url} to answer within {timeout:.0f} seconds",
            received=complaint(self.log) if self.log is not None else None,
            hint=f"See {self.log}, or set PREFECT_API_URL to a server that runs",
        )

    def _ended(self) -> bool:
        """Whether nobody holds the pipe's read end any more."""
        watch = select.poll()
        watch.register(self.hold if self.hold is not None else -1, 0)
        return any(event & select.POLLERR for _, event in watch.poll(0))

    def close(self) -> None:
        """Let go of the server; the last one to do so ends it."""
        if self.hold is not None:
            os.close(self.hold)
            self.hold = None


@contextmanager
def api(folder: Path | None = None) -> Iterator[ApiHandle]:
    """The API for this command, its address in the environment for as long as the block lasts.

    An embedded server is started or joined at once and boots beside what the caller does next;
    `wait` on the handle before the first flow run. Raises ServerError where a configured API does
    not answer, or a folder cannot hold a server.
    """
    url = addresses.configured()
    if url is not None:
        handle = ApiHandle(url, login=login(url, folder))
        handle.wait()
    else:
        handle = start((folder or FOLDER).absolute())
    try:
        with environment.changed(for_client(handle)):
            yield handle
    finally:
        handle.close()


def for_client(handle: ApiHandle) -> dict[str, str | None]:
    """The environment of a process whose flows report there; None: a variable that must not be there."""
    changed: dict[str, str | None] = {**CLIENT, "PREFECT_API_URL": handle.url}
    if handle.login is not None:
        changed |= {"PREFECT_API_AUTH_STRING": handle.login, "PREFECT_API_KEY": None}
    if handle.folder is not None:
        # Nothing is read from or written to the user's own Prefect folder, its active profile included.
        changed["PREFECT_HOME"] = str(handle.folder)
        changed["PREFECT_PROFILES_PATH"] = str(handle.folder / "profiles.toml")
        changed["PREFECT_PROFILE"] = None
        # Links in notifications: Prefect's newer pages come back to the link after the login, its older ones do not.
        changed["PREFECT_UI_URL"] = f"{handle.url.removesuffix('/api')}/v2"
        changed |= environment.no_proxy(os.environ)
    return changed


# --- the folder's own server ---------------------------------------------------------------------


def start(folder: Path) -> ApiHandle:
    """Join the folder's server, or start it. Returns at once: the server may still be booting."""
    with _usable(folder), locked(folder):
        joined = _join(folder)
        if joined is not None:
            return joined
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(BACKLOG)
            login = credentials.own() or credentials.new()
            handle, child = _launch(folder, listener, EMBEDDED, folder / "server.log", login, full=False)
        child.returncode = 0  # it outlives us on purpose: no warning about that from subprocess
        return handle


def launch(
    folder: Path, listener: socket.socket, log: Path, login: str, told: Mapping[str, str] | None = None
) -> tuple[ApiHandle, subprocess.Popen[bytes]] | None:
    """Start the full server of `up` on a socket that listens; None while another server has the folder.

    told: environment variables of its process beside Prefect's settings.
    """
    with _usable(folder), locked(folder):
        other = _join(folder)
        if other is not None:
            other.close()
            return None
        settings = {**FULL, **_own_ui(folder), **(told or {})}
        return _launch(folder, listener, settings, log, login, full=True)


def _own_ui(folder: Path) -> dict[str, str]:
    """Where this user may not write to Prefect's own folder, its UI is unpacked into ours."""
    found = importlib.util.find_spec("prefect")  # finds, and imports nothing
    places = (found.submodule_search_locations if found is not None else None) or []
    writable = all(os.access(Path(place) / "server", os.W_OK) for place in places)
    return {} if writable else {"PREFECT_UI_STATIC_DIRECTORY": str(folder / "ui")}


def running(folder: Path | None = None) -> str | None:
    """The URL of the configured API, else of the server of a `leptonflow up` in this folder, else None.

    An embedded server does not count: it ends with its command. Nothing is started, and what is
    configured need not answer.
    """
    url = addresses.configured()
    if url is not None:
        return url
    return full_server((folder or FOLDER).absolute())


def full_server(folder: Path) -> str | None:
    """The URL of the full server that runs in this folder, or None."""
    handle = _seen(folder)
    return handle.url if handle is not None and handle.full else None


def login(url: str, folder: Path | None = None) -> str | None:
    """The login of the folder's server where it is the one at `url`, else None: then what is configured counts."""
    handle = _seen((folder or FOLDER).absolute())
    return handle.login if handle is not None and handle.url == url.rstrip("/") else None


def _seen(folder: Path) -> ApiHandle | None:
    """The server that runs in this folder, without a hold on it, or None."""
    if not (folder / "server.json").exists():
        return None
    try:
        with locked(folder):
            handle = _join(folder)
    except PermissionError:  # somebody else's folder
        return None
    if handle is not None:
        handle.close()
    return handle


def found(folder: Path | None = None, patience: float = 60.0, say: Callable[[str], None] = lambda line: None) -> str:
    """The URL of `running`, once it answers. One message where it has to be waited for; then ServerError."""
    deadline = time.monotonic() + patience
    told = False
    while True:
        url = running(folder)
        try:
            if url is not None:
                # What boots is connected already and answers late: only the first look is a short one.
                patient = max(deadline - time.monotonic(), ANSWER_SECONDS) if told else ANSWER_SECONDS
                addresses.check(url, patient, login(url, folder))
                return url
            raise ServerError(
                "there is no Prefect server",
                expected="PREFECT_API_URL, or a `leptonflow up` in this folder",
                received="neither",
                hint="Start `leptonflow up` here, or set PREFECT_API_URL to a server that runs",
            )
        except credentials.CredentialsRefused:
            raise
        except ServerError as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                say(f"{error.message}; waiting up to {patience:.0f} seconds for one")
                told = True
        time.sleep(min(0.2, max(deadline - time.monotonic(), 0)))


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Make the folder, which nobody else may look into; what cannot be done in it is one error."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        yield
    except OSError as error:
        raise ServerError(
            "this folder cannot hold a Prefect server",
            expected=f"a folder at {folder} that can be written and can hold a named pipe",
            received=str(error),
            hint="Run the command in another folder, or set PREFECT_API_URL to a server that runs",
        ) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder's kernel lock: freed when its holder closes it or dies."""
    descriptor = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _join(folder: Path) -> ApiHandle | None:
    """A hold on the server that runs here, or None. The caller has the lock."""
    try:
        hold = os.open(folder / "server.fifo", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # ENXIO: nobody reads; ENOENT: never started here
        return None
    try:
        document = json.loads((folder / "server.json").read_text(encoding="utf-8"))
        log, full = Path(document["log"]), document["full"] is True
        return ApiHandle(str(document["url"]), folder, hold, log, full, document.get("login"))
    except (OSError, ValueError, KeyError, TypeError):  # somebody took the file away: start another
        os.close(hold)
        return None


def _launch(
    folder: Path, listener: socket.socket, settings: Mapping[str, str], log: Path, login: str, full: bool
) -> tuple[ApiHandle, subprocess.Popen[bytes]]:
    """Start the server. The caller has the lock.

    Socket, pipe and address exist before the process does: the next command can join a server
    that still boots, and a caller that is killed at any point leaves either no server or one that
    sees its pipe closed.
    """
    if not (folder / server_database.DATABASE).exists() and server_database.empty() is None:
        progress.note("Prefect builds its database, once for each version of it: some 10 seconds more")
    fifo = folder / "server.fifo"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo, 0o600)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    hold = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    document: dict[str, object] = {"url": url, "pid": None, "full": full, "log": str(log), "login": login}
    publish(folder, document)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    variables |= {**settings, "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    variables |= {"PREFECT_HOME": str(folder), "PREFECT_UI_API_URL": url, "PREFECT_SERVER_API_AUTH_STRING": login}
    # Its own page alone, by either name of this machine.
    variables["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = f"http://127.0.0.1:{port},http://localhost:{port}"
    variables["PYTHONPATH"] = python_path()
    with log.open("ab" if full else "wb") as sink:
        child = subprocess.Popen(
            # -P: a file of the user's folder must not be taken for a module
            [sys.executable, "-P", "-m", "flows.server_child", str(folder), str(listener.fileno()), str(reader)],
            pass_fds=(listener.fileno(), reader),
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,  # Ctrl-C is for the command; the server ends after it
        )
    os.close(reader)
    publish(folder, {**document, "pid": child.pid})
    return ApiHandle(url, folder, hold, log, full, login), child


def publish(folder: Path, document: dict[str, object]) -> None:
    """Write server.json in one step: a reader sees the old one or the new one."""
    place.write(folder / "server.json", json.dumps(document))


def complaint(path: Path) -> str:
    """The last line of a log that names an error, else its last line."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 65536, 0))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line) and not line.startswith("ERROR")]
    return (named or lines or ["nothing in its log"])[-1]

"""The Prefect API that a flow run reports to: the one that is configured, or this folder's own server.

A folder has one embedded server at most. Its commands share it, and it ends when the last of them
is gone, however that one ended: each holds the write end of a named pipe whose read end only the
server holds, so the kernel tells the server, kill -9 included. Starting, joining and ending happen
under one flock, which the kernel frees with its holder; so nobody joins a server that is leaving.

Importing this module must stay cheap, because the server is started before anything else is
imported: Prefect itself is never imported here.
"""

from __future__ import annotations

import base64
import fcntl
import http.client
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from schemas.errors import ServerError

FOLDER = Path(".leptonflow/prefect")
ROOT = Path(__file__).resolve().parent.parent
BOOT_SECONDS = 60.0
ANSWER_SECONDS = 5.0

# What an embedded server does not need: it schedules nothing, runs no automation, and outlives no command.
# Block types are for workers and for the UI's block catalogue; `up` registers them on the same database.
SERVER = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
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

    def wait(self, timeout: float = BOOT_SECONDS) -> None:
        """Until the server answers. Raises ServerError when it ends first or takes longer than that."""
        if self.folder is None:
            check(self.url)
            return
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not self._ended():
            # The socket listens from before the server's start, so that one request waits out the boot.
            try:
                _get(f"{self.url}/health", deadline - time.monotonic())
                return
            except (OSError, http.client.HTTPException):
                continue
        raise ServerError(
            "the Prefect server of this folder did not start" if self._ended() else "the Prefect server is too slow",
            expected=f"{self.url} to answer within {timeout:.0f} seconds",
            received=_complaint(self.folder / "server.log"),
            hint=f"See {self.folder / 'server.log'}, or set PREFECT_API_URL to a server that runs",
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
    url = configured()
    if url is not None:
        check(url)
        handle = ApiHandle(url)
    else:
        handle = start((folder or FOLDER).absolute())
    before = dict(os.environ)
    changed = _for_client(handle)
    try:
        for name, value in changed.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        yield handle
    finally:
        for name in changed:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
        handle.close()


def _for_client(handle: ApiHandle) -> dict[str, str | None]:
    """The environment of the flow in this process; None: a variable that must not be there."""
    changed: dict[str, str | None] = {**CLIENT, "PREFECT_API_URL": handle.url}
    if handle.folder is not None:
        # Nothing is read from or written to the user's own Prefect folder, its active profile included.
        changed["PREFECT_HOME"] = str(handle.folder)
        changed["PREFECT_PROFILES_PATH"] = str(handle.folder / "profiles.toml")
        changed["PREFECT_PROFILE"] = None
        for name in ("no_proxy", "NO_PROXY"):  # a proxy cannot reach this machine's loopback
            changed[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))
    return changed


# --- the API that somebody configured ------------------------------------------------------------


def configured() -> str | None:
    """PREFECT_API_URL of the environment, else of Prefect's active profile, else None."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    home = Path(os.environ.get("PREFECT_HOME") or Path("~/.prefect")).expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no profiles, or none that Prefect could read either
        return None
    active = os.environ.get("PREFECT_PROFILE") or document.get("active")
    profile = document.get("profiles", {}).get(active, {})
    return profile.get("PREFECT_API_URL") or None


def check(url: str) -> None:
    """Raises ServerError, without the address's credentials, unless a Prefect API answers there."""
    shown = without_credentials(url)
    try:
        status = _get(f"{url.rstrip('/')}/health", ANSWER_SECONDS)
    except (OSError, ValueError, http.client.HTTPException) as error:
        received = str(error) or type(error).__name__
        hint = "Start that server, mend PREFECT_API_URL, or unset it (and the active profile's) for an embedded one"
    else:
        if status in (200, 401, 403):  # a proxy may ask for the key that Prefect's client will send
            return
        received = f"HTTP status {status}"
        hint = "The address of a Prefect API ends in /api"
    raise ServerError(
        f"the Prefect server at {shown} does not answer", expected="a Prefect API", received=received, hint=hint
    )


def without_credentials(url: str) -> str:
    """The address without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that is not a URL"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _get(url: str, timeout: float) -> int:
    """The HTTP status of a GET. Raises OSError where nothing answers in time."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http:// or https:// address")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=max(timeout, 0.001))
    headers = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    try:
        connection.request("GET", parts.path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


# --- the folder's own server ---------------------------------------------------------------------


def start(folder: Path) -> ApiHandle:
    """Join the folder's server, or start it. Returns at once: the server may still be booting."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            return _join(folder) or _launch(folder)
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
        url = str(json.loads((folder / "server.json").read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError, KeyError, TypeError):  # somebody took the file away: start another
        os.close(hold)
        return None
    return ApiHandle(url, folder, hold)


def _launch(folder: Path) -> ApiHandle:
    """Start the server. The caller has the lock.

    Socket, pipe and address exist before the process does: the next command can join a server
    that still boots, and a caller that is killed at any point leaves either no server or one that
    sees its pipe closed.
    """
    fifo = folder / "server.fifo"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo, 0o600)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    hold = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with socket.socket() as listener, open(folder / "server.log", "wb") as log:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        publish(folder, {"url": url, "pid": None})
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment |= SERVER | {"DO_NOT_TRACK": "1", "PREFECT_HOME": str(folder), "PREFECT_UI_API_URL": url}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        child = subprocess.Popen(
            # -P: a file of the user's folder must not be taken for a module
            [sys.executable, "-P", "-m", "flows.server_child", str(folder), str(listener.fileno()), str(reader)],
            pass_fds=(listener.fileno(), reader),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the command; the server ends after it
        )
    os.close(reader)
    publish(folder, {"url": url, "pid": child.pid})
    child.returncode = 0  # it outlives us on purpose: no warning about that from subprocess
    return ApiHandle(url, folder, hold)


def publish(folder: Path, document: dict[str, object]) -> None:
    """Write server.json in one step: a reader sees the old one or the new one."""
    draft = folder / "server.json.new"
    draft.write_text(json.dumps(document), encoding="utf-8")
    draft.replace(folder / "server.json")


def _complaint(path: Path) -> str:
    """The last line of a log that names an error, else its last line."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line) and not line.startswith("ERROR")]
    return (named or lines or ["nothing in its log"])[-1]

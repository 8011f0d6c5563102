"""A real PostgreSQL for the tests: Debian's `postgres` on a free loopback port, its data in a temporary folder.

`postgres()` is a context manager that yields a `Database` once it answers. PostgreSQL refuses to run as root, so there
it runs as the user `postgres`, else `nobody`. What does not belong here: pytest, and what is put into the database.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import LOOPBACK, CannotStart, free_ports

USER = "leptonflow"
NAME = "prefect"
START_SECONDS = 60.0
STOP_SECONDS = 10.0

# A database that is thrown away need not survive a loss of power.
SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "100"}


@dataclass(frozen=True)
class Database:
    """A running PostgreSQL with one empty database, `name`, which belongs to `user`."""

    port: int
    password: str
    version: str
    user: str = USER
    name: str = NAME

    @property
    def url(self) -> str:
        """For Prefect: PREFECT_SERVER_DATABASE_CONNECTION_URL."""
        return f"postgresql+asyncpg://{USER}:{self.password}@{LOOPBACK}:{self.port}/{NAME}"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to a query, asked past every server."""
        import asyncio

        import asyncpg

        async def ask() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(
                host=LOOPBACK, port=self.port, user=USER, password=self.password, database=NAME, ssl=False
            )
            try:
                return [tuple(row) for row in await connection.fetch(sql)]
            finally:
                await connection.close()

        return asyncio.run(ask())


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: the PATH's, else the newest that Debian has installed."""
    found = shutil.which("initdb")
    if found and (Path(found).resolve().parent / "postgres").exists():
        return Path(found).resolve().parent
    installed = [p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/initdb") if (p.parent / "postgres").exists()]
    return max(installed, key=lambda folder: float(folder.parent.name), default=None)


@contextlib.contextmanager
def postgres() -> Iterator[Database]:
    """Start it, make the database, and end it with all its processes on the way out."""
    folder = binaries()
    if folder is None:
        raise CannotStart("no PostgreSQL: `apt install postgresql` brings it")
    with tempfile.TemporaryDirectory(prefix="leptonflow-postgres-") as temporary:
        home = Path(temporary)
        who = _unprivileged()
        data, log, secret = home / "data", home / "postgres.log", home / "password"
        password = secrets.token_urlsafe(16)
        secret.write_text(password)
        if who:
            for path in (home, secret):
                os.chown(path, who["user"], who["group"])
        made = subprocess.run(
            [folder / "initdb", "--pgdata", data, "--username", USER, "--pwfile", secret, "--no-sync",
             "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"],
            cwd=home, env=_environment(home), stdin=subprocess.DEVNULL, capture_output=True, text=True, **who,
        )  # fmt: skip
        if made.returncode:
            raise CannotStart(f"initdb ended with status {made.returncode}:\n{made.stderr}")
        (port,) = free_ports(1)
        options = {**SETTINGS, "listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": str(home)}
        with log.open("wb") as sink:
            child = subprocess.Popen(
                [folder / "postgres", "-D", data, *(part for k, v in options.items() for part in ("-c", f"{k}={v}"))],
                cwd=home, env=_environment(home), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True, **who,
            )  # fmt: skip
        try:
            _create_database(folder, home, port, password, child, log)
            yield Database(port, password, (data / "PG_VERSION").read_text().strip())
        finally:
            child.send_signal(signal.SIGQUIT)  # at once, and its processes with it
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait(STOP_SECONDS)


def _unprivileged() -> dict[str, Any]:
    """What subprocess needs to run a child as somebody else than root; empty where this is somebody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise CannotStart("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _environment(home: Path) -> dict[str, str]:
    """Nothing of a person's own PostgreSQL (PGHOST, PGDATA and their like)."""
    return {"PATH": os.defpath, "HOME": str(home), "LC_ALL": "C", "TZ": "UTC"}


def _create_database(
    folder: Path, home: Path, port: int, password: str, child: subprocess.Popen[bytes], log: Path
) -> None:
    """Make the database as soon as the server takes a connection."""
    environment = {**_environment(home), "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5"}
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        made = subprocess.run(
            [folder / "createdb", "--host", LOOPBACK, "--port", str(port), "--username", USER, "--no-password", NAME],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        if made.returncode == 0:
            return
        time.sleep(0.1)  # between two looks at the same condition
    raise CannotStart(f"PostgreSQL did not come up:\n{log.read_text(errors='replace')[-2000:]}")

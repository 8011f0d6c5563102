"""The process of a folder's Prefect server: `python -m flows.server_child FOLDER SOCKET PIPE`.

`flows.server` starts it, with a socket that listens already and the read end of the pipe whose
write ends its users hold. What the server serves is Prefect's own application, to callers that ask for
this machine by its own name; which of its services run, and its login, is said by the environment. No two
of these processes open a folder's database at once.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from flows import reports, server_database
from flows.server import locked
from leptonflow import collector

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp, Receive, Scope, Send

GRACE = 1.0  # seconds in which the next command may take over, and the last events are written
SHUTDOWN_SECONDS = 5.0
HOSTS = ("127.0.0.1", "localhost", "[::1]")
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
PROBES = ("/api/health", "/api/ready")  # which need no login either
SCHEMA = Path(__file__).with_name("prefect_schema.sql")


def main(folder: Path, listener: socket.socket, pipe: int) -> None:
    """Serve until nobody holds the pipe's write end."""
    os.chdir(folder)  # the database's URL below is relative: a folder's name may hold any character
    only_one(Path("serving.lock"), pipe)
    os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = "sqlite+aiosqlite:///prefect.db"
    with collector.paused(freeze=True):  # collections take a quarter of the boot
        import prefect
        import uvicorn

        create_database(Path("prefect.db"), prefect.__version__)
        make_private(Path("prefect.db"))
        server_database.write_in_turn()
        from prefect.server.api.server import create_app

        prefects = create_app(final=True)
        store = os.environ.get(reports.STORE)
        app = for_this_machine(reports.served(prefects, store) if store else prefects)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", access_log=False, lifespan="on", timeout_graceful_shutdown=2)
    )
    threading.Thread(target=end_with_users, args=(folder, pipe, server), daemon=True).start()
    server.run(sockets=[listener])


def for_this_machine(app: ASGIApp) -> ASGIApp:
    """The application, for requests by a name of this machine and from its own pages alone; others get 400.

    A web page whose own name leads here (DNS rebinding) would be of the same origin for the browser. One of another
    origin is only kept from reading answers by CORS: what it sends would be done, with a login that the browser keeps.
    """
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse

    guarded = TrustedHostMiddleware(app, HOSTS, www_redirect=False)
    own = os.environ.get(ORIGINS, "").encode().split(b",")

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        origins = [value for name, value in scope.get("headers", ()) if name == b"origin"]
        if scope.get("path") in PROBES:
            await app(scope, receive, send)
        elif any(origin not in own for origin in origins):
            await PlainTextResponse("Invalid origin header", 400)(scope, receive, send)
        else:
            await guarded(scope, receive, send)

    return choose


def only_one(lock: Path, pipe: int) -> None:
    """Wait until no other process serves this folder, whatever became of its pipe and its address.

    The kernel frees the lock when this process ends: the descriptor is kept open until then.
    Ends this process where nobody waits for it any more.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    writers = select.poll()
    writers.register(pipe, 0)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if writers.poll(100):
                sys.exit("no command uses this server any more, and another one serves this folder")


def create_database(path: Path, version: str) -> None:
    """Give a new database the tables of this Prefect version, which its migrations build in seconds.

    Prefect's migrations run afterwards in any case. They find their newest revision in it, or bring
    it there; for a version that the file was not made with, they do it all.
    """
    if path.exists():
        return
    Path("memo_store.toml").unlink(missing_ok=True)  # it says that the block types are in the database
    script = SCHEMA.read_text(encoding="utf-8")
    if script.split("\n", 1)[0] != f"-- prefect {version}":
        return
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    with closing(sqlite3.connect(draft)) as connection:
        connection.executescript(script)
    draft.replace(path)


def make_private(database: Path) -> None:
    """Let nobody else read the database: SQLite gives the files beside it the mode of the database."""
    database.touch(mode=0o600)
    for path in database.parent.glob(f"{database.name}*"):
        path.chmod(0o600)


def end_with_users(folder: Path, pipe: int, server: uvicorn.Server) -> None:
    """Wait until the pipe has no writer; then, under the folder's lock, end the server.

    While it boots it does not leave: two servers must not create the same database.
    """
    writers = select.poll()
    writers.register(pipe, 0)  # the kernel reports the hang-up without being asked to
    while True:
        writers.poll()
        time.sleep(GRACE)
        if not server.started:
            continue
        try:
            with locked(folder):
                if not writers.poll(0):
                    continue  # somebody joined
                (folder / "server.json").unlink(missing_ok=True)
                os.close(pipe)
                _end(server)  # with the lock, which is kept until the process has ended
        except FileNotFoundError:  # the folder was taken away, and nobody can join
            _end(server)


def _end(server: uvicorn.Server) -> None:
    """Let `main` return, which ends the process; or end it here if that takes too long."""
    server.should_exit = True
    time.sleep(SHUTDOWN_SECONDS)
    os._exit(1)


def write_schema(target: Path) -> None:
    """Write the tables that Prefect's own migrations build: after each change of Prefect's version."""
    import asyncio
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "prefect.db"
        os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{database}"
        import prefect
        from prefect.server.database import provide_database_interface

        asyncio.run(provide_database_interface().create_db())
        with closing(sqlite3.connect(database)) as connection:
            objects = connection.execute("select sql from sqlite_master where sql not null order by type desc, name")
            statements = [f"{sql};" for (sql,) in objects]
            (revision,) = connection.execute("select version_num from alembic_version").fetchone()
    record = f"INSERT INTO alembic_version VALUES('{revision}');"
    head = [f"-- prefect {prefect.__version__}", "-- written by python -m flows.server_child --write-schema", "BEGIN;"]
    target.write_text("\n".join([*head, *statements, record, "COMMIT;"]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--write-schema":
        write_schema(Path(sys.argv[2]) if len(sys.argv) > 2 else SCHEMA)
        sys.exit()
    main(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))

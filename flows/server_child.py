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
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows import reports, server_database
from flows.server import locked
from leptonflow.core import garbage_collection

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp, Receive, Scope, Send

GRACE = 1.0  # seconds in which the next command may take over, and the last events are written
SHUTDOWN_SECONDS = 5.0
HOSTS = ("127.0.0.1", "localhost", "[::1]")
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
PROBES = ("/api/health", "/api/ready")  # which need no login either


def main(folder: Path, listener: socket.socket, pipe: int) -> None:
    """Serve until nobody holds the pipe's write end."""
    os.chdir(folder)
    only_one(Path("serving.lock"), pipe)
    os.environ |= server_database.URL
    server_database.create()
    make_private(server_database.DATABASE)
    with garbage_collection.paused(freeze=True):  # collections take a quarter of the boot
        import uvicorn

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
        headers = scope.get("headers", ())
        origins = [value for name, value in headers if name == b"origin"]
        if scope.get("path") in PROBES:
            await app(scope, receive, send)
        elif sum(name == b"host" for name, _ in headers) > 1:  # RFC 9112, 3.2; uvicorn's parser does not ask
            await PlainTextResponse("Invalid host header", 400)(scope, receive, send)
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))

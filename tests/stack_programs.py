"""What `leptonflow up` starts, as small as it can be: for tests of the starting, not of what is started.

`up [--s3] [--detach]` is the command with these programs; `board`, `deploy`, `worker` and `watcher` are they. The
worker leaves behind what a flow run may be: an orphan in a session of its own, which ignores SIGTERM and holds the
tether.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from cli import stack
from flows import credentials
from flows.stack import local, services, tether
from schemas.errors import LeptonflowError
from schemas.settings import quiet

SMALL = ("board", "serve", "deploy", "worker", "watcher")
PROGRAMS = {**services.PROGRAMS, **{name: ("tests.stack_programs", name) for name in SMALL}}
ORPHAN = Path("orphan.pid")
BROKEN = Path("broken")  # `deploy` refuses a folder with this file


def up() -> None:
    """The command, as cli.main runs it."""
    run = local.run
    local.run = lambda *arguments: run(*arguments, programs=PROGRAMS)  # type: ignore[assignment]
    quiet()
    try:
        sys.exit(stack.up(None, "--s3" in sys.argv, "--detach" in sys.argv))
    except LeptonflowError as error:
        sys.stderr.write(f"leptonflow: {error.line()}\n")
        sys.exit(error.exit_status)


def deploy() -> None:
    """Say what it was given, without the secrets; end at once."""
    given = {name: value for name, value in os.environ.items() if name.startswith(("LEPTONFLOW_", "PREFECT_", "AWS_"))}
    Path("given.json").write_text(json.dumps(given))
    if BROKEN.exists():
        sys.stderr.write("leptonflow: the schedule of small is wrong.\n")
        sys.exit(2)


def worker() -> None:
    """Report to the pool as Prefect's worker does, and leave an orphan behind."""
    if os.fork() == 0:
        os.setsid()
        child = os.fork()
        if child:
            ORPHAN.write_text(str(child))
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tether.hold()  # threads do not survive a fork
        sleep()
    os.wait()
    tell("/work_pools/", {"name": "default", "type": "process"})
    tell("/work_pools/default/workers/heartbeat", {"name": "small"})
    sleep()


def board() -> None:
    """Answer on the port that it is given."""
    address = ("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1]))
    HTTPServer(address, Healthy).serve_forever()


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def watcher() -> None:
    """Say that it watches what there is."""
    print("Watching", " ".join(services.pipelines()), flush=True)
    sleep()


def tell(path: str, document: dict[str, str]) -> None:
    """POST to the API; a pool that exists is as good as a new one."""
    url = os.environ["PREFECT_API_URL"]
    headers = {"Content-Type": "application/json", **credentials.headers(url)}
    request = urllib.request.Request(url + path, json.dumps(document).encode(), headers)
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise


def sleep() -> None:
    while True:
        time.sleep(60)


if __name__ == "__main__":
    chosen: dict[str, Callable[[], None]] = {
        "up": up, "board": board, "serve": board, "deploy": deploy, "worker": worker, "watcher": watcher,
    }  # fmt: skip
    chosen[sys.argv[1]]()

"""`watch`: raises events for closed batches until it is stopped. flows.arrivals does the work."""

from __future__ import annotations

import os
import sys
import threading
import time

from schemas.errors import UsageError
from schemas.settings import store_uri

END_SECONDS = 3.0


def watch(pipelines: list[str], store: str | None, poll: float | None, once: bool, webhook_port: int | None) -> int:
    """Watch until SIGTERM or Ctrl-C, which end it without a failure."""
    from flows.arrivals.watcher import Watcher
    from flows.stack import tether
    from flows.wake_signals import Stop
    from leptonflow.storage.address import open_store

    tether.hold()
    uri = store_uri(store)
    port = webhook_port if webhook_port is not None else _configured_port(uri)
    watcher = Watcher(
        pipelines,
        open_store(uri),
        _say,
        poll=poll,
        port=None if once else port,
        token=os.environ.get("LEPTONFLOW_WEBHOOK_TOKEN"),
    )
    stop, ended = Stop(), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            watcher.run(once)
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            failures.append(error)
        finally:
            ended.set()
            stop.wake()

    thread = threading.Thread(target=run, name="watch", daemon=True)
    with stop.listening():
        thread.start()
        while not stop.times and not ended.is_set():
            stop.wait()
        watcher.stop()
        thread.join(END_SECONDS)
    if thread.is_alive():
        # It waits for a store or a server that does not respond. It only reads, and events that it raises are raised
        # again, so that nothing is left half done.
        sys.stdout.flush()
        os._exit(0)
    if failures:
        raise failures[0]
    return 0


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}" if not line.startswith("Watching ") else line, flush=True)


def _configured_port(uri: str) -> int | None:
    """The port of the environment, which is for a store on S3."""
    given = os.environ.get("LEPTONFLOW_WEBHOOK_PORT")
    if not given or not uri.startswith("s3://"):
        return None
    if not given.isascii() or not given.isdigit() or not 0 < int(given) < 65536:
        raise UsageError("LEPTONFLOW_WEBHOOK_PORT is not a port", expected="a number from 1 to 65535", received=given)
    return int(given)

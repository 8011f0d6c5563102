"""The server's process: uvicorn over the application, until it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence

import uvicorn

from leptonflow.storage.store import Store
from schemas.config import Pipeline
from serving.app import create_app


def run(store: Store, pipelines: Sequence[Pipeline], host: str, port: int) -> int:
    """Serve until SIGTERM or Ctrl-C; requests that have begun are answered. 0, or 1 where it could not listen."""
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(store, pipelines), host=host, port=port, loop="uvloop", http="httptools", ws="none",
            access_log=False, server_header=False, log_level="warning", timeout_graceful_shutdown=30,
        )
    )  # fmt: skip
    before = {}
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal that stopped it once more when it has ended; to be stopped is no failure here.
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if server.started else 1

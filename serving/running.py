"""The server's process: uvicorn over the application, until it is told to stop."""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from leptonflow.monitoring.prediction_log import PredictionLog
from leptonflow.registry.serving_decisions import Pin
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import LeptonflowError, UsageError
from serving import api_keys
from serving.access import LOOPBACK, Rules
from serving.api_keys import Keys
from serving.app import Options, create_app
from serving.connections import Protocol

CONNECTIONS = 2048  # at once; beyond them a request is answered 503
SWITCH_SECONDS = 0.001  # a thread that computes in Python makes way for the event loop after so long
COLLECTED = (10_000, 50, 1_000)  # a full collection goes through all modules and models, and no request is answered
STOP_SECONDS = 30  # for the requests that have begun
INTERRUPTED = 130  # the exit status of what Ctrl-C ended at once
END_SECONDS = 5.0  # for what they still do in threads of their own


def rules(host: str, keys: Keys, insecure: bool, readable: tuple[str, ...] = ()) -> Rules:
    """Who may ask a server at that address. Raises UsageError for an open address without keys.

    readable: what this machine may read without a key.
    """
    loopback = _loopback(host)
    if not (loopback or keys or insecure):
        raise UsageError(
            f"{host} can be reached from other machines, and there are no API keys",
            expected=f"keys in {api_keys.VARIABLE} or {api_keys.FILE}",
            received="none",
            hint="`leptonflow serve --new-key NAME` makes one; --insecure serves without",
        )
    # Without keys, a page in a browser could ask under a name of its own that leads here.
    hosts = LOOPBACK | {host.lower()} if loopback and not keys else None
    return Rules(keys, hosts, readable if loopback else ())


def _loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def run(
    store: Store, pipelines: Sequence[Pipeline], host: str, port: int, rules: Rules, pin: Pin | None,
    say: Callable[[str], None],
) -> int:  # fmt: skip
    """Serve until SIGTERM or Ctrl-C; requests that have begun are answered. 0, or 1 where it could not start.

    Where a model still predicts after that, the process ends here with status 1. Raises LeptonflowError where it cannot
    listen at that address.
    """
    _many_connections()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*COLLECTED)
    listening = _listening(host, port)
    app = create_app(store, pipelines, Options(rules, pin, say=say), PredictionLog(store))
    made = server(app, host, port)
    say(f"listening on http://{host}:{port}, {'with' if rules.keys else 'without'} keys")
    before = {}
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal that stopped it once more when it has ended; to be stopped is no failure here.
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        made.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if hung := [*app.state.hung, *_unended(END_SECONDS)]:
        say(f"ended without {', '.join(hung)}: still at work {END_SECONDS:g} s after the last request")
        os._exit(1)  # the end of an interpreter waits for its threads
    return 0 if made.started else 1


def _unended(seconds: float) -> list[str]:
    """The threads that the process would wait for and that do not end in time: decoders, explanations, requests."""
    until = time.monotonic() + seconds
    others = [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    for thread in others:
        thread.join(max(0.0, until - time.monotonic()))
    return [thread.name for thread in others if thread.is_alive()]


class Server(uvicorn.Server):
    """Ctrl-C once more ends the process at once: neither requests nor threads are waited for."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.force_exit:
            os._exit(INTERRUPTED)


def server(app: Starlette, host: str, port: int) -> uvicorn.Server:
    """uvicorn with that application, not started. port 0: one that is free."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # who sends a bad form is told; the log would fill
    return Server(
        uvicorn.Config(
            app, host=host, port=port, loop="uvloop", http=Protocol, ws="none", access_log=False, server_header=False,
            log_level="warning", limit_concurrency=CONNECTIONS, timeout_keep_alive=30,
            timeout_graceful_shutdown=STOP_SECONDS, proxy_headers=False,
        )
    )  # fmt: skip


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except OSError as error:
        raise LeptonflowError(
            f"cannot listen on {host}:{port}", expected="an address of this machine and a port that is free",
            received=error.strerror or str(error), hint="Choose another one with --host and --port",
        ) from None  # fmt: skip


def _many_connections() -> None:
    """Each connection is a file: as many as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

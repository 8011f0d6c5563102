"""A process that has Prefect and the flow imported, and forks each flow run, which so starts at once.

`serve` is that process: one thread, nothing computed, nothing connected, so that a fork of it is like a fresh
interpreter. `flows/stack/handoff.py` is the command that the worker runs for each flow run: it hands its arguments
over and stays until the run ends. Where anything is unusual (no such process, newer code on the disk, no Linux) the
command runs Prefect's engine itself, as every worker does. What does not belong here: Prefect's worker.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.stack import tether

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cli", "flows", "leptonflow", "schemas", "tasks")
STALE = b"\xff\xff\xff\xff"
STATUS = struct.Struct("<i")
ENGINE = "prefect.engine"

_runs: set[int] = set()


def available() -> bool:
    """Whether this system has what `serve` needs: fork, and descriptors of processes (Linux)."""
    return hasattr(os, "pidfd_open") and hasattr(os, "fork")


def serve(address: str) -> None:
    """Fork a run for each request at the socket `address`, as long as standard input stays open.

    Returns only in a run's process.
    """
    tether.hold()
    began = newest(ROOT)
    _preload()
    gc.freeze()
    if threading.active_count() > 2 or (threading.active_count() == 2 and not tether.held()):
        raise RuntimeError("a process with threads cannot be forked safely")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    before = os.umask(0o177)  # only this user may hand over a run
    listener.bind(address)
    os.umask(before)
    listener.listen(64)
    signal.signal(signal.SIGTERM, _end)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(0, selectors.EVENT_READ)  # the worker holds the other end, and says nothing
    while len(waiting.get_map()) > 0:
        for key, _ in waiting.select():
            if key.fileobj == 0:  # the worker is gone: no more runs, but those that there are may finish
                waiting.unregister(0)
                waiting.unregister(listener)
                os.unlink(address)
                break
            if key.fileobj is not listener:
                _report(waiting, key)
                continue
            connection, _ = listener.accept()
            job = _accept(connection, began)
            if job is None:
                if newest(ROOT) != began and not _runs:  # the next run finds the code that is there now
                    os.execv(sys.executable, [sys.executable, "-P", "-m", "flows.stack.warm", address])
                continue
            child = os.fork()
            if child == 0:
                waiting.close()
                listener.close()
                connection.close()
                return _become(job)
            _runs.add(child)
            connection.sendall(STATUS.pack(child))
            waiting.register(os.pidfd_open(child), selectors.EVENT_READ, (child, connection))
    os._exit(0)


def _end(number: int, frame: object) -> None:
    """SIGTERM: the runs end here and now. Whoever sent it says on the server what becomes of them."""
    for child in _runs:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    os._exit(0)


def newest(root: Path) -> int:
    """When our code was last changed: the newest modification time, in nanoseconds."""
    return max(path.stat().st_mtime_ns for package in PACKAGES for path in (root / package).rglob("*.py"))


def _preload() -> None:
    """What every run imports and no thread comes from."""
    import prefect.flow_engine
    import prefect.task_engine
    import prefect.workers.base  # noqa: F401

    import flows.retrain  # noqa: F401


def _accept(connection: socket.socket, began: int) -> dict[str, Any] | None:
    """What is asked for, or None where it was answered already."""
    try:
        text = b""
        while not text.endswith(b"\n"):
            piece = connection.recv(1 << 20)
            if not piece:
                raise OSError("no request")
            text += piece
        if newest(ROOT) != began:
            connection.sendall(STALE)
            connection.close()
            return None
        return dict(json.loads(text))
    except (OSError, ValueError):
        connection.close()  # a client that is gone, or none of ours
        return None


def _report(waiting: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Tell a client how its run ended."""
    child, connection = key.data
    _, status = os.waitpid(child, 0)
    _runs.discard(child)
    waiting.unregister(key.fileobj)
    os.close(key.fd)
    with contextlib.suppress(OSError), connection:  # the client may be gone
        connection.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))


def _become(request: dict[str, Any]) -> None:
    """Turn a fresh fork into the process that the request describes.

    It keeps this process's output, the worker's log: on the worker's own pipe it would end with the worker.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _runs.clear()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tether.hold()  # threads do not survive a fork
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


def main(address: str, run: Callable[[], object] | None = None) -> None:
    """Serve; in each fork, be Prefect's engine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    serve(address)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [ENGINE]
    sys.modules.pop(ENGINE, None)  # Prefect imported it as a library: the program of that name starts from nothing
    (run or (lambda: runpy.run_module(ENGINE, run_name="__main__", alter_sys=True)))()


if __name__ == "__main__":
    main(sys.argv[1])

"""Child processes that work on tasks side by side, one per core: each imports one module of ours and what that needs.

Not multiprocessing: its children import the program's main module again (Prefect's engine, say), and
outlive a parent that was killed. These read tasks from a pipe and end with it. A message is JSON and
raw bytes. What a task does belongs to that module: `warm()` before the first, `perform(task)` for each.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from leptonflow.core import machine
from leptonflow.core.concurrency import in_order
from schemas import errors
from schemas.errors import ExaminerLost, LeptonflowError

_HEAD = struct.Struct("<II")  # bytes of JSON, bytes of raw data
_CHILD = "from leptonflow.core.child_processes import serve; serve({module!r})"
PIPE_BYTES = 1 << 20
Task = dict[str, Any]
Answer = tuple[list[Any], bytes]


@dataclass
class _Child:
    """A process with room for two tasks: one that it works on, and the next, so that it never waits."""

    process: subprocess.Popen[bytes]
    sending: threading.Lock = field(default_factory=threading.Lock)
    turn: threading.Condition = field(default_factory=threading.Condition)
    asked: int = 0
    answered: int = 0

    def ask(self, task: Task) -> tuple[dict[str, Any], bytes]:
        """Its reply to a task. Replies come in the order of the tasks. Raises OSError, EOFError if it died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with self.sending:
            number = self.asked
            self.asked += 1
            failed = None
            try:
                _send(self.process.stdin, task, b"")
            except OSError as error:
                failed = error
        with self.turn:
            self.turn.wait_for(lambda: self.answered == number)
        try:
            if failed is not None:
                raise failed
            return _receive(self.process.stdout)
        finally:
            with self.turn:
                self.answered += 1
                self.turn.notify_all()


class Pool:
    """A pool of such processes. `start` early: their imports then cost no waiting. Reusable; close it once."""

    def __init__(self, module: str, count: int | None = None) -> None:
        self.module = module
        self.count = count or machine.workers()
        self._children: list[_Child] = []
        self._free: queue.SimpleQueue[_Child] = queue.SimpleQueue()

    def __enter__(self) -> Pool:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def started(self) -> bool:
        return bool(self._children)

    def start(self) -> Pool:
        """Start the processes; returns at once. A second call does nothing."""
        if not self._children:
            path = python_path()
            # Side by side already: a library's own threads would only fight over the same cores.
            single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            for _ in range(self.count):
                process = subprocess.Popen(
                    [sys.executable, "-P", "-W", "ignore", "-c", _CHILD.format(module=self.module)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # decoders written in C complain there; every example has a rule
                    env={**os.environ, **single, "PYTHONPATH": path},
                )
                _widen(process)
                self._children.append(_Child(process))
            for child in self._children * 2:
                self._free.put(child)
        return self

    def close(self) -> None:
        """End the processes. One that still works is not waited for."""
        children, self._children = self._children, []
        self._free = queue.SimpleQueue()
        for process in (child.process for child in children):
            assert process.stdin is not None and process.stdout is not None
            process.kill()  # it holds nothing that must be written
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def map(self, tasks: Iterable[Task]) -> Iterator[Answer]:
        """The answer to each task, in order. Raises what a task raised, ExaminerLost where a process died."""
        self.start()
        return in_order(self._ask, tasks, 2 * self.count)

    def _ask(self, task: Task) -> Answer:
        child = self._free.get()
        try:
            reply, raw = child.ask(task)
        except (OSError, EOFError):
            status = child.process.wait()
            how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            raise ExaminerLost(
                "a process that checks examples ended",
                expected="it runs until it is stopped",
                received=how,
                hint="If the machine ran out of memory, give it more or fewer cores; then run the same command again",
            ) from None
        finally:
            self._free.put(child)
        if "error" in reply:
            raise raised(reply)
        return reply["rows"], raw


def told(error: Exception, what: str) -> Task:
    """An error as JSON, which `raised` makes one again. what: what failed, of an error that is none of ours."""
    if isinstance(error, LeptonflowError):
        return {"error": type(error).__name__, **error.document()["error"]}
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    hint = "Please report this; `--debug` shows more"
    return {"error": "LeptonflowError", "message": what, "expected": None, "received": words[:300], "hint": hint}


def raised(reply: Task) -> LeptonflowError:
    """The error that a child told."""
    kind = getattr(errors, reply["error"], LeptonflowError)
    error: LeptonflowError = kind(
        reply["message"], expected=reply["expected"], received=reply["received"], hint=reply["hint"]
    )
    return error


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """A process that this thread starts in this block never hears Ctrl-C, which is its parent's to handle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def python_path() -> str:
    """The PYTHONPATH with which a child finds this project first."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])


def serve(module: str) -> None:
    """What a child does: perform tasks until its standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    source = os.fdopen(os.dup(0), "rb")
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not land between two messages
    work = importlib.import_module(module)
    work.warm()
    gc.freeze()
    while True:
        try:
            task, _ = _receive(source)
        except EOFError:
            return
        raw = b""
        try:
            rows, raw = work.perform(task)
            reply: dict[str, Any] = {"rows": rows}
        except Exception as error:  # noqa: BLE001 - the parent raises it, in one line
            reply = told(error, "an example could not be examined")
        try:
            _send(target, reply, raw)
        except BrokenPipeError:
            return


def _widen(process: subprocess.Popen[bytes]) -> None:
    """Let a whole answer lie in the pipe, so that a child goes on with its next task at once."""
    assert process.stdin is not None and process.stdout is not None
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError, AttributeError):  # more than this user may have, or not Linux
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _send(pipe: IO[bytes], value: Any, raw: bytes) -> None:
    text = json.dumps(value, separators=(",", ":")).encode()
    pipe.write(_HEAD.pack(len(text), len(raw)) + text)
    if raw:
        pipe.write(raw)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[Any, bytes]:
    text, raw = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    return json.loads(_exactly(pipe, text)), _exactly(pipe, raw)


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count) if count else b""
    if len(data) != count:
        raise EOFError
    return data

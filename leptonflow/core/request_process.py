"""One process that imports what is heavy at once, and then answers requests of its parent one after another.

A request and its reply are a line of JSON each. The process ends with its standard input, hence with its parent. What
does not belong here: what is asked, and processes that work side by side (child_processes).
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Self

from leptonflow.core.child_processes import python_path
from leptonflow.core.deadlines import Limit
from schemas.errors import LeptonflowError
from schemas.settings import quiet

Message = dict[str, Any]


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]


class RequestProcess:
    """A process of one of our modules, whose `main` calls `answer_requests`. It ends with the `with` block.

    environment: variables of its own.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._environment = dict(environment or {})
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        child, self._child = self._child, None
        if child is not None:
            _end(child)

    def start(self) -> None:
        """Start it, unless one waits already."""
        if self._child is not None:
            if self._child.process.poll() is None:
                return
            _end(self._child)  # it has died waiting
        quiet()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            env={**os.environ, **self._environment, "PYTHONPATH": python_path()},
        )  # fmt: skip
        self._child = _Child(process, errors)

    def ask(self, request: Message, limit: Limit) -> Message:
        """Its reply, or {"error": why there is none}. Raises TimeLimit. It lives on only where it replied."""
        self.start()
        child, self._child = self._child, None
        assert child is not None
        try:
            line = _exchanged(child.process, json.dumps(request).encode() + b"\n", limit)
            if not line.endswith(b"\n"):
                return {"error": _ended(child, limit)}
            try:
                answer = json.loads(line)
            except ValueError:
                answer = None
            if not isinstance(answer, dict):
                return {"error": "its reply is not a JSON object"}
            self._child, child = child, None
            return answer
        finally:
            if child is not None:
                _end(child)


def _exchanged(process: subprocess.Popen[bytes], line: bytes, limit: Limit) -> bytes:
    """The line that it replies; what there is of it where it ended before. Raises TimeLimit."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(line)
        process.stdin.flush()
    except BrokenPipeError:
        return b""
    found, waiting = b"", select.poll()  # which takes a descriptor of any number
    waiting.register(process.stdout, select.POLLIN)
    while not found.endswith(b"\n"):
        if not waiting.poll(max(0, math.ceil(1000 * limit.left()))):
            raise limit.exceeded()
        part = os.read(process.stdout.fileno(), 1 << 16)
        if not part:
            break
        found += part
    return found


def _ended(child: _Child, limit: Limit) -> str:
    """How a process that closed its end of the pipe ended, and the last that it said."""
    try:
        status = child.process.wait(max(0.0, limit.left()))
    except subprocess.TimeoutExpired:
        raise limit.exceeded() from None
    child.errors.seek(0)
    told = child.errors.read().decode(errors="replace").strip().splitlines()
    why = f": {told[-1]}" if told else ""
    return f"it ended with status {status}{why}"


def _end(child: _Child) -> None:
    child.process.kill()
    for pipe in (child.process.stdout, child.errors):
        if pipe is not None:
            pipe.close()
    child.process.wait()
    if child.process.stdin is not None:
        try:
            child.process.stdin.close()
        except BrokenPipeError:  # it died with a request unread
            return


def answer_requests(prepare: Callable[[], None], answer: Callable[[Message], Message]) -> None:
    """What the process does: prepare, then answer each line of its standard input, until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to handle; its end is ours
    os.nice(5)  # what the parent computes goes first
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not part of a reply
    failed: Message | None = None
    try:
        prepare()
    except LeptonflowError as error:
        failed = {"error": error.line()}
    while line := sys.stdin.readline():
        replies.write(json.dumps(failed or answer(json.loads(line))).encode() + b"\n")
        replies.flush()
    os._exit(0)  # a backend takes a second to shut down

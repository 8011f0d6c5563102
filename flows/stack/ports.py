"""Loopback ports: the usual one where it is free, else any, with a word about it. Who uses it does not belong here."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from schemas.errors import LeptonflowError

LOOPBACK = "127.0.0.1"
BACKLOG = 128
NEAR = 20  # ports that are tried before any
_reserved: list[int] = []  # locks that are held until this process ends


def listen(usual: int, what: str, note: Callable[[str], None]) -> socket.socket:
    """A socket that listens on the usual port, or on one near it that is free. What connects waits to be served."""
    for port in (*range(usual, usual + NEAR), 0):
        bound = _bind(port)
        if bound is not None:
            if port != usual:
                note(f"port {usual} is taken: {what} listens on {bound.getsockname()[1]}")
            bound.listen(BACKLOG)
            return bound
    raise _none()


def choose(usual: int, what: str, note: Callable[[str], None]) -> int:
    """The usual port where it is free, else a free one. No other process of this user chooses it until this one ends:
    whoever uses it binds it later.
    """
    for port in (*range(usual, usual + NEAR), *[0] * NEAR):
        bound = _bind(port)
        if bound is None:
            continue
        with bound:
            chosen = int(bound.getsockname()[1])
            if not _reserve(chosen):
                continue
        if chosen != usual:
            note(f"port {usual} is taken: {what} listens on {chosen}")
        return chosen
    raise _none()


def _reserve(port: int) -> bool:
    """Whether the port is ours: two that start in the same second would both find it free. A kill -9 frees it."""
    path = Path(tempfile.gettempdir()) / f"leptonflow-{os.getuid()}-{port}.lock"
    lock: int | None = None
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another has it, or the file is another user's
        if lock is not None:
            os.close(lock)
        return False
    _reserved.append(lock)
    return True


def free(count: int) -> list[int]:
    """`count` free ports, all different: every socket stays open until all are chosen."""
    with ExitStack() as stack:
        bound = [stack.enter_context(closing(_any())) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in bound]


def kept(file: Path, count: int) -> list[int]:
    """The ports that the file names, while all of them are free; else others, which it then names."""
    with suppress(OSError, ValueError):
        found = [int(port) for port in file.read_text(encoding="utf-8").split()]
        with ExitStack() as stack:
            bound = [_bind(port) for port in found]
            for each in filter(None, bound):
                stack.enter_context(closing(each))
            if len(found) == count and all(bound):
                return found
    chosen = free(count)
    file.write_text(" ".join(map(str, chosen)) + "\n", encoding="utf-8")
    return chosen


def _bind(port: int) -> socket.socket | None:
    """A socket that listens, None where the port cannot be had."""
    bound = socket.socket()
    # Connections of an earlier server that the kernel still remembers are no reason; one that listens is.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
        bound.listen(1)
    except OSError:
        bound.close()
        return None
    return bound


def _any() -> socket.socket:
    bound = _bind(0)
    if bound is None:
        raise _none()
    return bound


def _none() -> LeptonflowError:
    return LeptonflowError("this machine has no free loopback port", expected=f"one on {LOOPBACK}")

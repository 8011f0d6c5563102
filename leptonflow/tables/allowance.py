"""Work that may take only so much time and memory, in a thread that Ctrl-C need not wait for.

What a library does in C hears neither a signal nor a clock: the thread that waits hears both, asks the library to
stop, and goes on without it where it does not. What does not belong here: how long a stage may take (`limits`).
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from schemas.errors import LeptonflowError

T = TypeVar("T")
LOOK_SECONDS = 0.02
GIVE_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Allowance:
    """`memory`: bytes that this process may grow by."""

    seconds: float
    memory: int


def within(allowance: Allowance, work: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """The result of `work()`, or its error.

    Raises LeptonflowError where it takes more than it may; that, and Ctrl-C, call `interrupt` first. Work that does
    not stop for it goes on in a daemon thread until the process ends.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    deadline, most = time.monotonic() + allowance.seconds, _resident() + allowance.memory
    thread.start()
    try:
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            if time.monotonic() > deadline and thread.is_alive():
                raise too_long(allowance)
            if _resident() > most:
                raise too_large(allowance)
    except BaseException:
        interrupt()
        thread.join(GIVE_UP_SECONDS)
        raise
    if errors:
        raise errors[0]
    return results[0]


def too_long(allowance: Allowance) -> LeptonflowError:
    """The error of work that takes too long."""
    return LeptonflowError(
        "the query takes too long", expected=f"an answer within {allowance.seconds:g} s",
        hint="Ask for less, or set LEPTONFLOW_QUERY_SECONDS higher",
    )  # fmt: skip


def too_large(allowance: Allowance) -> LeptonflowError:
    """The error of work that takes too much memory."""
    return LeptonflowError(
        "the query takes too much memory", expected=f"at most {allowance.memory / 10**6:,.0f} MB",
        hint="Ask for fewer rows or columns, or set LEPTONFLOW_QUERY_MEMORY higher",
    )  # fmt: skip


def _resident() -> int:
    """Bytes of memory that this process holds; where the system does not say, the most that it ever held."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

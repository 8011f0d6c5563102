"""Signals that wake the main thread, whichever thread the kernel hands them to.

Python runs a signal's handler in the main thread. One that waits there for a lock (a queue, a future, another
thread's end) is woken only where the kernel hands it the signal, and the kernel may choose any thread that does not
block it. What does not belong here: what a signal means.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NUDGE = signal.SIGURG  # nobody minds it: it is ignored where it has no handler


class Stop:
    """The wish to end, as signals say it: once in good order, twice at once."""

    def __init__(self) -> None:
        self.times = 0
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)

    def _wish(self, number: int, frame: FrameType | None) -> None:
        self.times += 1

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Signals, and children that end, wake `wait` for as long as the block lasts."""
        before = {number: signal.signal(number, self._wish) for number in ENDS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        woken = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            yield self
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)

    def wake(self) -> None:
        """Let `wait` return. From any thread."""
        os.write(self._writer, b"\0")

    def wait(self, seconds: float | None = None) -> None:
        """Until a signal or another thread wakes it, or for so long."""
        if select.select([self._reader], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                os.read(self._reader, 4096)


@contextmanager
def waking(*numbers: signal.Signals) -> Iterator[None]:
    """For as long as the block lasts, these signals wake the main thread (which enters the block) from any wait."""
    main = threading.get_ident()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def nudge() -> None:
        while received := os.read(reader, 64):  # the numbers of the signals that came, a byte each
            if set(numbers) & set(received):
                signal.pthread_kill(main, NUDGE)

    handler = signal.signal(NUDGE, lambda number, frame: None)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=nudge, name="wakes for signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)
        signal.signal(NUDGE, handler)

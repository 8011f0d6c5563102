"""Signals that wake the main thread, whichever thread the kernel hands them to.

Python runs a signal's handler in the main thread. One that waits there for a lock (a queue, a future, another
thread's end) is woken only where the kernel hands it the signal, and the kernel may choose any thread that does not
block it. What does not belong here: what a signal means.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NUDGE = signal.SIGURG  # nobody minds it: it is ignored where it has no handler


class Waiting:
    """What the main thread waits for: one of the signals, or another thread's word. Use it in the main thread."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._ends = bytes((0, *numbers))
        for number in numbers:
            signal.signal(number, lambda number, frame: None)

    def end(self) -> None:
        """Let the wait end. From any thread."""
        os.write(self._writer, b"\0")

    def wait(self) -> None:
        """Until one of the signals came, or `end` was called."""
        while os.read(self._reader, 1) not in self._ends:  # each signal that has a handler is a byte
            pass


@contextmanager
def waking(number: signal.Signals) -> Iterator[None]:
    """For as long as the block lasts, this signal wakes the main thread (which enters the block) from any wait."""
    main = threading.get_ident()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def nudge() -> None:
        while received := os.read(reader, 64):  # the numbers of the signals that came, a byte each
            if number in received:
                signal.pthread_kill(main, NUDGE)

    handler = signal.signal(NUDGE, lambda number, frame: None)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=nudge, name=f"wakes for {number.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)
        signal.signal(NUDGE, handler)

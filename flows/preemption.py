"""How a worker that ends has the fits of its runs save themselves first: a signal that Prefect knows nothing of.

On SIGTERM Prefect would call such a run crashed, notify of it and run its hooks; but nothing has failed, and the worker
schedules it again. So the run saves what it computes, does nothing more, and is killed. What does not belong here: how
a fit is saved (leptonflow.training.checkpoints), and who schedules the run again (flows.stack.worker).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SAVE = signal.SIGUSR1
SAVE_SECONDS = 8.0  # in which the fits may save themselves: what got SIGTERM is to be gone after 10
LONGEST = 10.0  # seconds that a run waits to be killed: then it ends by itself
LOOK = 0.02


@contextmanager
def heard(save: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SAVE has this process call `save`, and wait for its end; in a main thread alone.

    `save` is called in the main thread, at any point of its work.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        save()
        signal.signal(SAVE, signal.SIG_IGN)  # which says that it is done
        time.sleep(LONGEST)
        os.kill(os.getpid(), signal.SIGKILL)

    before = signal.signal(SAVE, handle)
    try:
        yield
    finally:
        signal.signal(SAVE, before)


def ask(pids: Sequence[int]) -> list[int]:
    """Send SAVE to those of these processes that hear it; which they are. Without /proc: none."""
    hearing = [pid for pid in pids if hears(pid)]
    for pid in hearing:
        os.kill(pid, SAVE)
    return hearing


def hears(pid: int) -> bool:
    """Whether a process has a handler for SAVE: it has not saved anything yet. False for one that has ended."""
    try:
        lines = (Path("/proc") / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return False
    caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")), 0)
    return bool(caught & 1 << (SAVE - 1))

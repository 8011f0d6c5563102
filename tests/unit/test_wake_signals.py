"""A signal that the kernel hands to another thread wakes the main thread all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Another thread takes the signal while the main thread waits for what never comes.
TAKEN = """
import os, signal, threading
from flows.wake_signals import Stop, waking

def take(number=signal.SIGINT):
    stat = f"/proc/self/task/{os.getpid()}/stat"
    while open(stat).read().rpartition(")")[2].split()[0] != "S":  # the main thread runs
        pass
    signal.pthread_kill(threading.get_ident(), number)
"""


def said(program: str) -> list[str]:
    """The lines of a program in a process of its own: handlers and the wake-up descriptor are the process's."""
    done = subprocess.run(
        [sys.executable, "-c", TAKEN + program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.splitlines()


def test_a_wait_ends_with_a_signal_that_another_thread_took() -> None:
    program = """
with Stop().listening() as stop:
    threading.Thread(target=take).start()
    stop.wait()
    print(stop.times)
"""
    assert said(program) == ["1"]


def test_a_wait_ends_with_another_threads_word() -> None:
    program = """
with Stop().listening() as stop:
    threading.Thread(target=stop.wake).start()
    stop.wait()
    print(stop.times)
"""
    assert said(program) == ["0"]


def test_another_signal_is_handled_and_is_no_wish_to_end() -> None:
    program = """
signal.signal(signal.SIGUSR1, lambda number, frame: print("handled"))
with Stop().listening() as stop:
    threading.Thread(target=take, args=[signal.SIGUSR1]).start()
    stop.wait()
    print(stop.times)
"""
    assert said(program) == ["handled", "0"]


def test_a_lock_is_let_go_for_a_signal_that_another_thread_took() -> None:
    """And what was there before is there again: the handlers, the descriptor."""
    program = """
before = signal.getsignal(signal.SIGURG)
other = threading.Thread(target=take)
try:
    with waking(signal.SIGINT):
        other.start()
        threading.Event().wait()
except KeyboardInterrupt:
    print("interrupted")
other.join()
print(signal.getsignal(signal.SIGURG) == before, signal.set_wakeup_fd(-1), threading.active_count())
"""
    assert said(program) == ["interrupted", "True -1 1"]

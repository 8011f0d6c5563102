"""Ends a child with its parent, kill -9 included: the parent alone holds the write end of a pipe, the child watches it.

What the child started ends with it, in whatever session: a worker's flow runs have their own.

`create` is the parent's side, `hold` the child's; `main` runs a module that knows nothing of it. What does not belong
here: which processes there are.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

from flows.stack import processes

NAME = "LEPTONFLOW_TETHER"  # the number of the pipe's read end, in a child's environment

_thread: threading.Thread | None = None  # ends this process with its parent: one is enough


def create() -> tuple[int, int]:
    """(read end for the children, write end). The write end closes with this process and is inherited by none."""
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    return reader, writer


def descriptors() -> tuple[int, ...]:
    """What a child of this process must inherit (`pass_fds`) to be tethered as this process is."""
    number = os.environ.get(NAME)
    return (int(number),) if number else ()


def hold() -> None:
    """End this process, its group and all below it as soon as the pipe's writer is gone. No tether: it does nothing."""
    global _thread
    found = descriptors()
    if not found or (_thread is not None and _thread.is_alive()):
        return
    _thread = threading.Thread(target=_watch, args=found, name="tether", daemon=True)
    _thread.start()


def _watch(reader: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # those are the main thread's
    while os.read(reader, 1):  # nobody writes: it returns at the end
        pass
    processes.send(processes.descendants(os.getpid()), signal.SIGKILL)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main() -> None:
    """`python -m flows.stack.tether MODULE ARGUMENT...`: a module's program, tethered."""
    from flows.stack import tether  # not __main__: the program may hold as well, and would not see that this does

    tether.hold()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

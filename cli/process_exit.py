"""How the process of a command ends. What does not belong here: with which status."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """Do what Python does at its end, then exit without finalising the interpreter.

    Threads of a backend or of Arrow may still be working. A thread that runs while the interpreter is
    finalised aborts the process, and its exit status would be lost.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as multiprocessing's own children do
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe
        status = status or 1
    except OSError as error:
        print(f"leptonflow: the output could not be written completely: {error.strerror}", file=sys.stderr)
        status = status or 1
    sys.stderr.flush()
    os._exit(status)

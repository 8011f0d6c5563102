"""How the process of a command ends. What does not belong here: with which status."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """Do all that Python itself does at the end, and be gone without taking the interpreter apart.

    Threads of a backend or of Arrow may still be at work on what no longer matters, and one that meets the
    interpreter being taken apart aborts the process: its status would be lost with the work done.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as multiprocessing's own children do
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on: nothing more to say
        status = status or 1
    except OSError as error:
        print(f"leptonflow: the answer could not be written whole: {error.strerror}", file=sys.stderr)
        status = status or 1
    sys.stderr.flush()
    os._exit(status)

"""How the process of a command ends. What does not belong here: with which status."""

from __future__ import annotations

import atexit
import os
import sys


class Ending:
    """Once all that Python itself does at the end is done, the process is gone at once. Make it before anything else.

    Threads of a backend or of Arrow may still be at work on what no longer matters, and one that meets the
    interpreter being taken apart aborts the process: its status would be lost with the work done.
    """

    def __init__(self) -> None:
        self.status = 1  # a traceback's, with --debug
        atexit.register(self._end)  # the first is called last

    def _end(self) -> None:
        if "logging" in sys.modules:  # whose own call would come after this one where it was imported before
            sys.modules["logging"].shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.status)

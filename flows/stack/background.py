"""`up --detach`: the same process goes on in the background, and the one in the terminal ends when all is healthy.

What does not belong here: what goes on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

READY = b"1"


def detached(work: Callable[[Callable[[], None]], int], output: Callable[[], Path]) -> int:
    """Fork: the child does the work, told a function to call when all is healthy. The exit status of either.

    Until then the child writes to the terminal, then to the file `output`. The parent waits for that,
    or for the child's end. Ctrl-C in the meantime ends the child.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        _stream(Path(os.devnull), os.O_RDONLY, 0)

        def ready() -> None:
            log = output()
            for number in (1, 2):
                _stream(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, number)
            os.write(writer, READY)
            os.close(writer)

        return work(ready)
    os.close(writer)
    try:
        if os.read(reader, 1) == READY:
            return 0
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(reader)
    return status if status >= 0 else 1


def _stream(path: Path, flags: int, number: int) -> None:
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, number)
    if opened != number:
        os.close(opened)

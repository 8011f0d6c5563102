"""Temporary files that killed writers left in a directory store: removed by the next command that writes.

A living writer holds its file's kernel lock until the object has its name (directory_store), so that the kernel says
who is dead, whatever the host or container. What does not belong here: objects, which are never removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from leptonflow.core.store_keys import READY, TEMPORARY
from leptonflow.storage.store import Store

DAY = 86_400.0  # seconds


def remove(store: Store) -> None:
    """Remove them from the whole store. Below a closed batch nobody writes, and nothing is looked for."""
    root = store.path("")
    if root is None:
        return
    for folder, below, files in os.walk(root):
        if READY in files:
            below.clear()
        for name in files:
            if TEMPORARY.fullmatch(name):
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):  # its writer has just ended, or it is another user's
                    if _left(path, int(name.split("-")[1])):
                        os.unlink(path)


def _left(path: str, writer: int) -> bool:
    """Whether nobody is at work on the file.

    A process of the writer's number may be another one by now, and a writer has its lock a moment after its file.
    """
    if _runs(writer) and time.time() - os.stat(path).st_mtime < DAY:
        return False
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True

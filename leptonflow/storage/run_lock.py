"""One retraining at a time on a directory store: a kernel lock that saves work and guards nothing.

Correctness rests on the commit log alone. On S3 and in memory there is no lock, and parallel runs
adopt each other's results.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from leptonflow.core import progress
from leptonflow.storage import leftovers
from leptonflow.storage.store import Store
from schemas.errors import StoreUnreachable

_HELD: set[tuple[str, str]] = set()  # store and pipeline: the kernel gives a lock to the process


@contextmanager
def one_at_a_time(store: Store, pipeline: str) -> Iterator[None]:
    """Hold the pipeline's lock, once another process has let go of it. kill -9 frees it.

    Within a block of the same process, the inner one passes: a command holds it before its flow does.
    """
    root = store.path("")
    mine = (store.uri, pipeline)
    if root is None or mine in _HELD:
        yield
        return
    folder = root / ".locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / pipeline, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(handle, 0o600)  # of earlier releases: whoever may read it may lock it
    except OSError as error:
        raise StoreUnreachable(
            f"the store {store.uri} cannot be written",
            expected="a folder that this user may write to",
            received=error.strerror or str(error),
            hint="Check the folder's owner and free space",
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"another retraining of {pipeline} is running on this store; waiting for it to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: as on S3
            pass
        _HELD.add(mine)
        leftovers.remove(store)
        yield
    finally:
        _HELD.discard(mine)
        os.close(handle)


def held(store: Store, pipeline: str) -> bool | None:
    """Whether some process holds the pipeline's lock now; None where there is no lock that this user can see."""
    root = store.path("")
    if root is None:
        return None
    try:
        handle = os.open(root / ".locks" / pipeline, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(handle)
    return False

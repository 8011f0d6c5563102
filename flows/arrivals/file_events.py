"""The file system's events about a few folders, by watchfiles: one inotify instance, and no folder watched in depth.

What does not belong here: what an event means. It is a hint to look, and one that was lost is made good by the poll.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leptonflow.core.store_keys import READY
from schemas.errors import words_of

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

GROUP_MS = 300  # events within so long are one
STEP_MS = 50
MOST = 256  # folders: open batches beyond are found by the poll, and one user's inotify watches are for all


class Listener:
    """Listens to folders, each for what is directly in it; to the nearest parent of one that is not there yet."""

    def __init__(self) -> None:
        self.problem: str | None = None  # why there are no events
        self._notify: RustNotify | None = None
        self._folders: frozenset[tuple[str, int]] = frozenset()
        self._landings: tuple[str, ...] = ()

    def listen(self, landings: Sequence[Path], batches: Iterable[Path]) -> bool:
        """Listen to these folders from now on. True where they are not those of before: then look once more."""
        self._landings = tuple(map(str, landings))
        wanted = [*(_there(folder) for folder in landings), *batches][:MOST]
        folders = frozenset(found for found in map(_identity, wanted) if found is not None)
        if folders == self._folders and self.problem is None:
            return False
        self.close()
        from watchfiles._rust_notify import RustNotify  # as its documentation has it, where events are waited for

        try:
            self._notify = RustNotify(sorted(path for path, _ in folders), False, False, 5000, False, True)
        except (OSError, RuntimeError) as error:  # no inotify watches left, a file system without events
            self.problem = words_of(error)
            return False
        self._folders, self.problem = folders, None
        return True

    def wait(self, seconds: float, wake: threading.Event) -> bool:
        """Until a folder appears or a batch may have been closed (True), `wake` is set or the time is over (False)."""
        until = time.monotonic() + seconds
        while self._notify is not None and (left := until - time.monotonic()) > 0:
            found = self._notify.watch(GROUP_MS, STEP_MS, max(1, int(left * 1000)), wake)
            if isinstance(found, str):
                return False
            if any(self._matters(path) for _, path in found):
                return True
        wake.wait(max(0.0, until - time.monotonic()))
        return False

    def close(self) -> None:
        """Stop listening."""
        if self._notify is not None:
            self._notify.close()
        self._notify, self._folders = None, frozenset()

    def _matters(self, path: str) -> bool:
        """Not each file that is written into an open batch."""
        folder, _, name = path.rpartition("/")
        return name == READY or any(
            folder == landing or path == landing or landing.startswith(path + "/") for landing in self._landings
        )


def _there(folder: Path) -> Path:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _identity(folder: Path) -> tuple[str, int] | None:
    """A folder's path and number: one that was removed and made again is another one."""
    try:
        return str(folder), folder.stat().st_ino
    except OSError:
        return None

"""Runs the real command in a real child process, and ends it with SIGKILL at one chosen write to the store.

`launch` starts such a child; `python -m tests.e2e.killing KILL RECORD ARGUMENT...` is that child. It is
the `leptonflow` command with one thing added: every write to the store is noted, in its order, in the
file RECORD, and one of them may be deadly. An object of a `create_many` counts as one write. What the
tests make of a store afterwards does not belong here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240.0  # for one command, on a busy machine

BEFORE, WITHIN, AFTER, HOLD = "before", "within", "after", "hold"


@dataclass(frozen=True)
class Kill:
    """Where a command ends: at write `number` (from 1), or at the first write whose key matches `pattern`.

    before  nothing of the object is on the store
    within  half of its bytes are, in the temporary file of a directory store
    after   all of it is, and the writer has not been told
    hold    the writer waits before it, for ever: whoever started it has a look, and kills it
    """

    moment: str
    number: int | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its status (-9: killed), its --json document, and the keys it wrote."""

    status: int
    document: Any
    errors: str
    writes: tuple[str, ...]


def launch(
    arguments: list[str],
    folder: Path,
    record: Path,
    kill: Kill | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start `leptonflow ARGUMENT...` in `folder`, as the leader of a session and process group of its own."""
    # The lengthy start of every import would be paid at each of a thousand starts, and a person's Prefect is not ours.
    left_out = ("PREFECT_", "LEPTONFLOW_", "PYTHONDONTWRITEBYTECODE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    told = json.dumps(asdict(kill)) if kill else "null"
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.e2e.killing", told, str(record), *arguments],
        cwd=folder,
        env={**clean, "HOME": str(folder), "PYTHONPATH": str(ROOT), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], record: Path) -> Ended:
    """Wait for a launched command. One that takes too long is killed, and TimeoutExpired is raised."""
    try:
        output, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    writes = tuple(record.read_text().splitlines()) if record.exists() else ()
    document = json.loads(output) if process.returncode >= 0 and output.strip() else None
    return Ended(process.returncode, document, errors, writes)


# --- the child -----------------------------------------------------------------------------------


class Writes:
    """Counts, notes and ends: wrapped around each store's own way to write one object."""

    def __init__(self, kill: Kill | None, record: str) -> None:
        self._kill = kill
        self._pattern = re.compile(kill.pattern) if kill and kill.pattern else None
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._number = 0
        self._chosen = False
        self._here = threading.local()  # which threads are within the deadly write

    def wrap(self, owner: Any, name: str) -> None:
        """Put ourselves around `owner.name(self, key, ...)`, which writes one object."""
        original: Callable[..., None] = getattr(owner, name)

        def write(store: Any, key: str, *rest: Any) -> None:
            deadly = self._note(key)
            if deadly and self._kill:
                if self._kill.moment == HOLD:
                    threading.Event().wait()
                if self._kill.moment == BEFORE:
                    die()
                self._here.deadly = True
            try:
                original(store, key, *rest)
            finally:
                if deadly:
                    die()

        setattr(owner, name, write)

    def wrap_file(self, module: Any, name: str) -> None:
        """Put ourselves around the function that writes a directory store's temporary file."""
        original: Callable[[str, bytes], Any] = getattr(module, name)

        def write(path: str, data: bytes) -> Any:
            if self._kill and self._kill.moment == WITHIN and getattr(self._here, "deadly", False):
                original(path, data[: len(data) // 2])
                die()
            return original(path, data)

        setattr(module, name, write)

    def _note(self, key: str) -> bool:
        """Write the key down; whether it is the one."""
        with self._lock:
            self._number += 1
            os.write(self._record, f"{key}\n".encode())
            if self._kill is None or self._chosen:
                return False
            by_name = self._pattern is not None and self._pattern.search(key) is not None
            self._chosen = by_name or self._number == self._kill.number
            return self._chosen


def die() -> None:
    """End this process and the children that it keeps in its group, as `kill -9` does: nobody cleans up."""
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """The command line with its writes watched."""
    from leptonflow.storage import directory_store, object_store

    told = json.loads(arguments[0])
    writes = Writes(Kill(**told) if told else None, arguments[1])
    # Below create and create_many alike, so that what is written side by side is killed side by side.
    writes.wrap(directory_store.DirectoryStore, "_link")
    writes.wrap_file(directory_store, "_write")
    writes.wrap(object_store.ObjectStore, "create")
    from cli.main import main as command

    return command(arguments[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

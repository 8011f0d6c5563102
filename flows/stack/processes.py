"""Processes as the kernel knows them: whose child is whose, who holds a file, and ending all that is left.

Orphans come to `up` and to nobody else (Linux), so that its descendants are all that it ever started.
What does not belong here: which processes there should be.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SET_PDEATHSIG = 1


def adopt_orphans() -> None:
    """Become the parent of every orphan among this process's descendants (Linux; elsewhere nothing happens)."""
    _prctl(SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """In a child before its exec: let the kernel kill it when the thread that started it ends (Linux)."""
    _prctl(SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    with suppress(AttributeError):  # no such function in this system's C library
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """The processes below `root`, parents before children; those that have ended and wait for it are not listed."""
    below: dict[int, list[int]] = {}
    for pid, parent in _parents():
        below.setdefault(parent, []).append(pid)
    found = list(below.get(root, []))
    for pid in found:
        found += below.get(pid, [])
    return found


def _parents() -> list[tuple[int, int]]:
    """(process, parent) of every process that runs."""
    if (PROC / "self").exists():
        looked = ((int(entry), _parent(int(entry))) for entry in os.listdir(PROC) if entry.isdigit())
        return [(pid, parent) for pid, parent in looked if parent is not None]
    pairs = []
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        pid, found, state = line.split(None, 2)
        if not state.startswith("Z"):
            pairs.append((int(pid), int(found)))
    return pairs


def _parent(pid: int) -> int | None:
    """The parent of a process that runs, as /proc has it."""
    try:
        # The command's name is in parentheses and may hold any character, these too.
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        # The first thread of a process can have ended before the others.
        ended = fields[0] in "ZX" and len(os.listdir(PROC / str(pid) / "task")) <= 1
    except OSError:
        return None
    return None if ended else int(fields[1])


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    if (PROC / "self").exists():
        return _parent(pid) is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send(pids: list[int], number: signal.Signals) -> None:
    """A signal to each; those that have ended are passed over."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_descendants(spared: list[int], seconds: float = 3.0) -> list[int]:
    """Kill everything below this process but `spared` and what is below those. What would not end in time.

    Reaps what it kills: the caller has no more use of its children's statuses.
    """
    deadline = time.monotonic() + seconds
    while True:
        kept = {*spared, *(pid for each in spared for pid in descendants(each))}
        left = [pid for pid in descendants(os.getpid()) if pid not in kept]
        send(left, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def holders(path: Path) -> list[int]:
    """The processes that have this file open, as far as the system tells (Linux), without this one."""
    found = []
    try:
        wanted = path.stat()
        entries = [entry for entry in os.listdir(PROC) if entry.isdigit() and int(entry) != os.getpid()]
    except OSError:
        return []
    for entry in entries:
        with suppress(OSError):  # it has ended, or is somebody else's
            if any(_is(PROC / entry / "fd" / descriptor, wanted) for descriptor in os.listdir(PROC / entry / "fd")):
                found.append(int(entry))
    return found


def _is(path: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), wanted)
    except OSError:
        return False


def command(pid: int) -> str:
    """The process's command line as a person knows it, or nothing."""
    with suppress(OSError):
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        names = [Path(word).name if number < 2 else word for number, word in enumerate(words) if word]
        if names and names[0].startswith("python"):
            names = [name for name in names[1:] if name not in ("-P", "-m")]
        return " ".join(names)[:100]
    return ""

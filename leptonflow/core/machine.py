"""What this process may use of its machine: the cores and the memory that its container or its affinity leaves it.

A container's limits are those of its control groups, version 1 or 2. What does not belong here: what either is used
for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from math import ceil
from pathlib import Path

SELF = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
WORKER_BYTES = 512 << 20  # memory for each child process that checks examples


def cores() -> int:
    """The cores that this process may use: by its affinity, and by the quota of its control groups."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, *(ceil(quota) for quota in _quotas()), affinity))


def memory() -> int:
    """The bytes of memory that this process may use: the machine's, or less where a control group says so."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (_number(folder / name) for folder, name in _files("memory", "memory.max", "memory.limit_in_bytes"))
    return min(machine, *(limit for limit in limits if limit), machine)


def peak_memory(process: int | str = "self") -> int:
    """The largest resident size in bytes that a process has had; 0 where /proc does not tell, as of one that is gone.

    Not getrusage's: that of a child begins with its parent's.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB$", _read(Path(f"/proc/{process}/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def workers() -> int:
    """Child processes side by side: one a core, where there is memory for as many."""
    return max(1, min(cores(), memory() // WORKER_BYTES))


def _quotas() -> Iterator[float]:
    """Cores by each control group that has a quota."""
    for folder, name in _files("cpu", "cpu.max", "cpu.cfs_quota_us"):
        if name == "cpu.max":
            quota, period = (*_read(folder / name).split(), "", "")[:2]
        else:
            quota, period = _read(folder / name), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _files(controller: str, second: str, first: str) -> Iterator[tuple[Path, str]]:
    """(folder, file's name) of this process's control groups, from its own to the outermost, version 2 and 1.

    Within a container the path may be the host's, which is not there: the outermost folder is then the container's.
    """
    for line in _read(SELF).splitlines():
        _, names, path = (*line.split(":", 2), "", "", "")[:3]
        if names and controller not in names.split(","):
            continue
        top, name = (GROUPS / controller, first) if names else (GROUPS, second)
        parts = [part for part in path.split("/") if part and part != ".."]
        for depth in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:depth]), name


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # no such group, no Linux
        return ""


def _number(file: Path) -> int:
    """A limit in bytes; 0 where there is none."""
    text = _read(file)
    return int(text) if text.isdigit() else 0

"""Run a whole command and measure it: wall seconds, and the memory of everything it started.

Two peaks, since each hides something. The largest single process (`ru_maxrss`) leaves out that several
may be large at once; the sum over the tree counts shared pages once only as PSS, which is sampled.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEPTONFLOW = str(Path(sys.executable).with_name("leptonflow"))
SAMPLE_SECONDS = 0.25
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Measured:
    """One run of one command. Memory in MiB."""

    seconds: float
    largest: float
    tree: float
    output: str
    errors: str
    processes: int  # the most that were alive at once


def become_subreaper() -> None:
    """Orphans of a command are handed to us, not to init, so that a server that outlives it is still seen."""
    if sys.platform != "linux":
        raise SystemExit("the benchmarks read /proc and run on Linux")
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(ended: bool = False) -> list[int]:
    """The ids of every process below this one; with `ended`, of those too that nobody has reaped yet."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue  # it ended while we looked
            if ended or after_name[0] != "Z":
                children.setdefault(int(after_name[1]), []).append(int(entry.name))
    found, open_ = [], [os.getpid()]
    while open_:
        below = children.get(open_.pop(), [])
        found += below
        open_ += below
    return found


def proportional(pid: int) -> float:
    """A process's share of memory in MiB: its own pages and its part of those it shares."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass  # it ended while we looked, and then holds nothing
    return 0.0


def environment(**more: str) -> dict[str, str]:
    """The caller's environment, but with bytecode: without .pyc files every import costs seconds more."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kept.pop("LEPTONFLOW_STORE", None)
    return {**kept, **more}


def run(command: Sequence[str], cwd: Path, **variables: str) -> Measured:
    """Run a command to its end, and wait until nothing that it started is left (outside the measured time)."""
    become_subreaper()
    ours = frozenset(descendants())
    stop = threading.Event()
    peaks = {"tree": 0.0, "count": 0.0}

    def sample() -> None:
        # Often at first, so that a short command is seen too; then seldom, for a look costs what it measures.
        while not stop.wait(SAMPLE_SECONDS if time.perf_counter() - began > 2 else 0.04):
            pids = [pid for pid in descendants() if pid not in ours]
            peaks["tree"] = max(peaks["tree"], sum(map(proportional, pids)))
            peaks["count"] = max(peaks["count"], len(pids))

    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        sampler = threading.Thread(target=sample, daemon=True)
        began = time.perf_counter()
        sampler.start()
        child = subprocess.Popen(list(command), cwd=cwd, env=environment(**variables), stdout=output, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        largest = max(usage.ru_maxrss / 1024, settle(ours))
        stop.set()
        sampler.join()
        output.seek(0)
        errors.seek(0)
        out, err = output.read().decode(), errors.read().decode(errors="replace")
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}:\n{out[-2000:]}\n{err[-4000:]}")
    return Measured(seconds, largest, peaks["tree"], out, err, int(peaks["count"]))


def settle(ours: frozenset[int], timeout: float = 60) -> float:
    """Reap what the command left running until it has ended; the largest of it in MiB."""
    largest, until = 0.0, time.monotonic() + timeout
    while time.monotonic() < until:
        left = [pid for pid in descendants(ended=True) if pid not in ours]
        if not left:
            return largest
        for pid in left:
            with suppress(ChildProcessError):  # its parent still lives and reaps it
                done, _, usage = os.wait4(pid, os.WNOHANG)
                largest = max(largest, usage.ru_maxrss / 1024) if done else largest
        time.sleep(0.05)
    raise SystemExit(f"processes still run {timeout:.0f} s after the command's end: {left}")


def timed(command: Sequence[str], cwd: Path, times: int, **variables: str) -> float:
    """The median wall seconds of so many runs, after one that warms the page cache."""
    run(command, cwd, **variables)
    return statistics.median(run(command, cwd, **variables).seconds for _ in range(times))


def median(values: Sequence[Measured], of: Callable[[Measured], float]) -> float:
    return statistics.median(map(of, values))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A small table on standard output, numbers right-aligned."""
    texts = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *texts]) for i in range(len(columns))]
    print(f"\n{title}")
    for line in [list(columns), *texts]:
        first = line[0].ljust(widths[0])
        print("  " + "  ".join([first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]))
    sys.stdout.flush()


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="leptonflow-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def options(description: str | None) -> argparse.Namespace:
    """--quick: small and once, to see that it runs; its figures say nothing. --times: runs of each."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and once: shows that it runs, not how fast")
    parser.add_argument("--times", type=int, default=None, help="runs of each command (default: 3; with --quick: 1)")
    given = parser.parse_args()
    given.times = given.times or (1 if given.quick else 3)
    print(f"{(description or '').splitlines()[0]}\n{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    return given

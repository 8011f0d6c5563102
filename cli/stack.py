"""`up`, `down` and `logs`: the local stack in this folder. `flows.stack` runs it; this module prints."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from cli import show
from flows.stack import background, local, place, processes
from schemas.errors import LeptonflowError, UsageError
from schemas.text import printable

DOWN_SECONDS = 20.0
LOOK_SECONDS = 0.2


def up(store: str | None, s3: bool, detach: bool) -> int:
    """Start the stack and wait for Ctrl-C or SIGTERM; with `detach`, return once all services are healthy."""

    def work(ready: Callable[[], None]) -> int:
        local.run(store, s3, local.Voice(_say, show.warn), ready)
        return 0

    if not detach:
        return work(lambda: None)
    return background.detached(work, lambda: place.log(place.FOLDER, "up"))


def _say(line: str) -> None:
    with suppress(BrokenPipeError):  # the reader has closed the pipe; the stack stays
        print(printable(line), flush=True)


def show_login() -> int:
    """Print the login of the folder's Prefect server, for a person and for PREFECT_API_AUTH_STRING=$(...)."""
    print(local.shown_login())
    return 0


def down() -> int:
    """Stop the stack of this folder, whoever started it."""
    folder = place.FOLDER
    pid = place.state(folder).get("pid") if place.runs(folder) else None
    if not isinstance(pid, int):
        print("no stack is running in this folder")
        return 0
    began = time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while place.runs(folder) or processes.alive(pid):  # the lock is free a moment before the process has ended
        if time.monotonic() - began > DOWN_SECONDS:
            raise LeptonflowError(
                f"the stack of this folder does not stop, process {pid}",
                expected=f"its end within {DOWN_SECONDS:.0f} seconds",
                hint=f"`kill -9 {pid}` stops it and its child processes",
            )
        time.sleep(0.05)
    print(f"stopped the stack of this folder, process {pid}, in {time.monotonic() - began:.1f} s")
    return 0


def logs(service: str | None, follow: bool) -> int:
    """What the services wrote since `up` began; with `follow`, new lines too until Ctrl-C."""
    folder = place.FOLDER
    there = sorted(path.stem for path in folder.glob("*.log"))
    if service is not None and service not in there:
        raise UsageError(
            "no such service in this folder",
            expected=f"one of {', '.join(there)}" if there else "a folder in which `leptonflow up` ran",
            received=service,
        )
    if not there and not follow:
        show.warn("nothing is logged in this folder: `leptonflow up` has not run here")
    opened: dict[str, BinaryIO] = {}
    try:
        while True:
            names = [service] if service is not None else sorted(path.stem for path in folder.glob("*.log"))
            for name in names:
                if name not in opened:
                    opened[name] = place.log(folder, name).open("rb")
                _pass_on(opened[name], "" if service is not None else f"{name} | ")
            if not follow:
                return 0
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:  # the way to end it
        return 0
    finally:
        for file in opened.values():
            file.close()


def _pass_on(file: BinaryIO, prefix: str) -> None:
    """Print what came to a file since the last look, whole lines; what is not text yet stays for the next."""
    for line in file:
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            break
        print(prefix + printable(line[:-1].decode(errors="replace")))
    sys.stdout.flush()

"""`up`, `down` and `logs`: the local stack in this folder. What it is made of is `flows.stack`'s; this prints."""

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

DOWN_SECONDS = 20.0
LOOK_SECONDS = 0.2


def up(store: str | None, s3: bool, detach: bool) -> int:
    """Start the stack and stay with it until Ctrl-C or SIGTERM; with `detach` until all is healthy."""

    def work(ready: Callable[[], None]) -> int:
        local.run(store, s3, local.Voice(_say, show.warn), ready)
        return 0

    if not detach:
        return work(lambda: None)
    return background.detached(work, lambda: place.log(place.FOLDER, "up"))


def _say(line: str) -> None:
    with suppress(BrokenPipeError):  # whoever read is gone; the stack stays
        print(show.plain(line), flush=True)


def show_login() -> int:
    """Print the login of the folder's Prefect server, for a person and for PREFECT_API_AUTH_STRING=$(...)."""
    print(local.shown_login())
    return 0


def down() -> int:
    """End the stack of this folder, whoever started it."""
    folder = place.FOLDER
    pid = place.state(folder).get("pid") if place.runs(folder) else None
    if not isinstance(pid, int):
        print("no stack runs in this folder")
        return 0
    began = time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while place.runs(folder) or processes.alive(pid):  # the lock is free a moment before the process has ended
        if time.monotonic() - began > DOWN_SECONDS:
            raise LeptonflowError(
                f"the stack of this folder does not end, process {pid}",
                expected=f"its end within {DOWN_SECONDS:.0f} seconds",
                hint=f"`kill -9 {pid}` ends it, and its children with it",
            )
        time.sleep(0.05)
    print(f"the stack of this folder has ended, process {pid}, in {time.monotonic() - began:.1f} s")
    return 0


def logs(service: str | None, follow: bool) -> int:
    """What the services wrote since `up` began; with `follow` on and on, until Ctrl-C."""
    folder = place.FOLDER
    there = sorted(path.stem for path in folder.glob("*.log"))
    if service is not None and service not in there:
        raise UsageError(
            "no such service in this folder",
            expected=f"one of {', '.join(there)}" if there else "a folder in which `leptonflow up` ran",
            received=service,
        )
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
        print(prefix + show.plain(line[:-1].decode(errors="replace")))
    sys.stdout.flush()

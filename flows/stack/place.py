"""A folder's stack on the disk: the lock that says that one runs, what runs, secrets and logs. All under FOLDER.

    up.lock       held by `up` for as long as it lives; the kernel frees it
    stack.json    what runs: {pid, ready, lines, services: {name: {pid, url}}}
    login         of the Prefect server, user:password, made once; only this user may read it
    s3.env        for `. .leptonflow/stack/s3.env` in another terminal; only this user may read it
    s3.access, s3.secret, webhook.token   made once; only this user may read them
    <service>.log what a service wrote, since `up` began; <service>.log.1 since the one before

What does not belong here: starting and ending anything.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from schemas.errors import LeptonflowError

FOLDER = Path(".leptonflow/stack")


def open_folder(folder: Path) -> Path:
    """The folder, made where it is missing; nobody else may look into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(folder, 0o700)
    except OSError as error:
        raise LeptonflowError(
            "this folder cannot hold a stack",
            expected=f"a folder at {folder} that can be written",
            received=error.strerror or str(error),
            hint="Run `leptonflow up` in another folder",
        ) from None
    return folder


def claim(folder: Path) -> int:
    """Take the folder's lock, whose descriptor is to be kept open. Raises LeptonflowError where a stack runs."""
    descriptor = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + 0.3  # whoever only looks holds it for an instant
    while not _lock(descriptor):
        if time.monotonic() < deadline:
            time.sleep(0.02)
            continue
        os.close(descriptor)
        there = state(folder)
        url = there.get("services", {}).get("prefect", {}).get("url")
        raise LeptonflowError(
            f"a stack runs in this folder already: process {there.get('pid', 'unknown')}{f', {url}' if url else ''}",
            hint="`leptonflow down` stops it",
        )
    return descriptor


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def runs(folder: Path) -> bool:
    """Whether a stack runs here."""
    try:
        descriptor = os.open(folder / "up.lock", os.O_RDWR)
    except OSError:  # there never was one
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def state(folder: Path) -> dict[str, Any]:
    """What stack.json says, {} where there is none. Of a stack that is just starting it is awaited for a moment."""
    deadline = time.monotonic() + 2
    while True:
        with suppress(OSError, ValueError):
            document = json.loads((folder / "stack.json").read_text(encoding="utf-8"))
            if isinstance(document, dict):
                return document
        if time.monotonic() > deadline or not runs(folder):
            return {}
        time.sleep(0.02)


def publish(folder: Path, document: dict[str, Any]) -> None:
    """Write stack.json in one step."""
    write(folder / "stack.json", json.dumps(document, indent=1) + "\n")


def write(path: Path, text: str) -> None:
    """A file that only this user may read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def secret(path: Path, new: str | None = None) -> str:
    """The secret in this file, made where it is missing: `new`, else 64 random digits."""
    with suppress(FileNotFoundError):
        kept = path.read_text(encoding="utf-8").strip()
        if kept:
            os.chmod(path, 0o600)
            return kept
    made = new or secrets.token_hex(32)
    write(path, made + "\n")
    return made


def log(folder: Path, service: str) -> Path:
    """Where a service writes."""
    return folder / f"{service}.log"


def set_logs_aside(folder: Path) -> None:
    """Begin the logs anew; the last ones are kept as .log.1."""
    for path in folder.glob("*.log"):
        path.replace(path.with_name(path.name + ".1"))

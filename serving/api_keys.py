"""Who may ask: keys with names, of which only the sha256 is kept, in the environment or a file.

A key is 256 random bits, so that a plain hash of it cannot be guessed back.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from schemas.config import NAME
from schemas.errors import UsageError

VARIABLE, FILE = "LEPTONFLOW_API_KEYS", "LEPTONFLOW_API_KEYS_FILE"
LINE = re.compile(r"([^\s:,]+):([0-9a-f]{64})")
FOLLOW = 2.0  # seconds between two looks at the file
Keys = dict[str, bytes]  # a key's name -> its sha256


def new(name: str) -> tuple[str, str]:
    """(a key, the entry `name:sha256` for the settings). Raises UsageError for what is no name."""
    _named(name, f"the name of a key, {name!r},")
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"


def configured(environment: Mapping[str, str] = os.environ) -> Keys:
    """The keys of LEPTONFLOW_API_KEYS and of the file LEPTONFLOW_API_KEYS_FILE; entries apart by space, comma or line.

    A file has comments after #. Raises UsageError, which repeats nothing of what it read.
    """
    found = _parsed(environment.get(VARIABLE, ""), VARIABLE)
    if path := environment.get(FILE):
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            received = getattr(error, "strerror", None) or "bytes that are no UTF-8"
            raise UsageError(f"{FILE} cannot be read", expected="a text file", received=received) from None
        lines = [line.partition("#")[0] for line in text.splitlines()]
        found |= _parsed("\n".join(lines), FILE)
    return found


async def follow(keys: Keys, say: Callable[[str], None], environment: Mapping[str, str] = os.environ) -> None:
    """Bring the keys of a server up to date whenever their file changes: one that is taken out opens nothing any more.

    On the thread of the event loop, whose requests read them. A server that has keys never is without: where the file
    cannot be read, or has none, they stay.
    """
    path = environment.get(FILE)
    if not keys or not path:
        return
    seen = _stamp(path)
    while True:
        await asyncio.sleep(FOLLOW)
        if (now := _stamp(path)) == seen:
            continue
        seen = now
        try:
            found = configured(environment)
            if not found:
                raise UsageError("there are no API keys", expected=f"keys in {VARIABLE} or {FILE}", received="none")
        except UsageError as error:
            say(f"the API keys stay as they were: {error.line()}")
            continue
        keys.update(found)
        for name in keys.keys() - found.keys():
            del keys[name]
        say(f"the API keys are now those of {', '.join(sorted(keys))}")


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _parsed(text: str, where: str) -> dict[str, bytes]:
    found = {}
    for number, entry in enumerate(re.split(r"[\s,]+", text.strip()) if text.strip() else [], start=1):
        match = LINE.fullmatch(entry)
        if match is None:
            raise UsageError(
                f"entry {number} of {where} is no key", expected="name:sha256 with 64 hex digits",
                received="something else, which is not shown", hint="`leptonflow serve --new-key NAME` makes one",
            )  # fmt: skip
        _named(match[1], f"entry {number} of {where}")
        found[match[1]] = bytes.fromhex(match[2])
    return found


def _named(name: str, what: str) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(f"{what} has no valid name", expected=f"a name that matches {NAME.pattern}")


def owner(keys: Keys, given: bytes) -> str | None:
    """The name of the key that was given, None for no known one. The time it takes tells nothing about the keys."""
    sha256, found = hashlib.sha256(given).digest(), None
    for name, known in keys.items():
        if hmac.compare_digest(sha256, known):
            found = name
    return found

"""Who decides, and why: what a record says of a person's decision."""

from __future__ import annotations

import getpass
import os
import socket

from schemas.errors import UsageError


def person() -> str:
    """Who is at the keyboard: LEPTONFLOW_USER, else user@host."""
    given = os.environ.get("LEPTONFLOW_USER", "").strip()
    if given:
        return given
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def reason(given: str) -> str:
    """The reason of a decision, without spaces around it. Raises UsageError where it is empty."""
    if not given.strip():
        raise UsageError("--reason is empty", expected="a few words that explain the decision", received=repr(given))
    return given.strip()

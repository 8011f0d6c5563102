"""Who runs a command: the name that records give."""

from __future__ import annotations

import getpass
import os
import socket


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

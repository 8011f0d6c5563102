"""Standard output of a command with --json: exactly one document, whatever other code prints.

User code prints, so do libraries in C and child processes: all of it goes to standard error. What does not belong
here: what is in a document.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

_told: list[str] = []  # the document: one for a process
_apart: list[TextIO] = []  # the process's standard output, while file descriptor 1 is standard error


def keep_apart() -> None:
    """For the rest of this process, file descriptor 1 is standard error, and standard output the document's alone."""
    with contextlib.suppress(OSError):  # it is closed: there is no output to keep
        _apart.append(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        os.dup2(2, 1)


def tell(document: Any) -> None:
    """The command's document; the last one told counts."""
    _told[:] = [json.dumps(document, ensure_ascii=False, allow_nan=False, default=str)]


def of_one_document(command: Callable[[], int]) -> int:
    """Run the command, then write what it told; its status, or 1 where that could not be written."""
    _told.clear()
    out = _apart[0] if _apart else sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        status = command()
    # A name of a file that is no UTF-8 has lone surrogates, which JSON can say and UTF-8 can not.
    text = "".join(f"{line}\n" for line in _told).encode("utf-8", "backslashreplace").decode("utf-8")
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError:  # the reader has closed the pipe
        return status or 1
    except OSError as error:
        print(f"leptonflow: the output could not be written completely: {error.strerror}", file=sys.stderr)
        return status or 1
    return status

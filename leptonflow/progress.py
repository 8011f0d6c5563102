"""How far the work is: the engine reports, whoever listens shows it. By default nobody does.

Drawing a bar does not belong here, nor does any decision about the work. The listener is one for
the process and not per thread, because a stage may report from a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int], None]  # stage, done, total (0: not known)
Note = Callable[[str], None]  # one line of news for a person

_report: Report | None = None
_note: Note | None = None
_stopped = False


class Stopped(BaseException):
    """The person asked to stop while a stage worked in another thread. Not an error of the work."""


def report(stage: str, done: int, total: int) -> None:
    """Say that `done` of `total` of this stage is done. Raises Stopped once `stop` was called."""
    if _stopped:
        raise Stopped(stage)
    if _report is not None:
        _report(stage, done, total)


def note(text: str) -> None:
    """Say one line of news, such as that another command is being waited for."""
    if _note is not None:
        _note(text)


def stop() -> None:
    """End the working threads at their next report: a computing thread cannot be interrupted otherwise."""
    global _stopped
    _stopped = True


@contextmanager
def listen(to_report: Report | None = None, to_note: Note | None = None) -> Iterator[None]:
    """Within this block, reports and notes go to these callbacks."""
    global _report, _note, _stopped
    before = _report, _note
    _report, _note, _stopped = to_report, to_note, False
    try:
        yield
    finally:
        _report, _note = before

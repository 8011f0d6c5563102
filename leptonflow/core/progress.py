"""How far the work is: the engine reports, whoever listens shows it. By default nobody does.

A report is also where the work can end before its time: Ctrl-C and time limits are looked at here.
Drawing a bar does not belong here, nor does any decision about the work. Listeners belong to the
process and not to a thread, because a stage may report from a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from leptonflow.core import deadlines

Report = Callable[[str, int, int], None]  # stage, done, total (0: not known)
Note = Callable[[str], None]  # one line of news for a person

_listeners: tuple[tuple[Report | None, Note | None], ...] = ()
_stopped = False


class Stopped(BaseException):
    """The run ends while a stage works in another thread: not an error of this stage."""


def report(stage: str, done: int, total: int) -> None:
    """Say that `done` of `total` of this stage is done. Raises as `pulse` does."""
    pulse()
    for tell, _ in _listeners:
        if tell is not None:
            tell(stage, done, total)


def pulse() -> None:
    """A point where the work may end. Raises Stopped once `stop` was called, TimeLimit past the stage's deadline."""
    if _stopped:
        raise Stopped("the run ends")
    deadlines.check()


def note(text: str) -> None:
    """Say one line of news, such as that another command is being waited for."""
    for _, tell in _listeners:
        if tell is not None:
            tell(text)


def stop() -> None:
    """End the working threads at their next report: a computing thread cannot be interrupted otherwise."""
    global _stopped
    _stopped = True


@contextmanager
def listen(to_report: Report | None = None, to_note: Note | None = None) -> Iterator[None]:
    """Within this block, reports and notes go to these callbacks too."""
    global _listeners, _stopped
    if not _listeners:
        _stopped = False
    mine = (to_report, to_note)
    _listeners = (*_listeners, mine)
    try:
        yield
    finally:
        _listeners = tuple(each for each in _listeners if each is not mine)

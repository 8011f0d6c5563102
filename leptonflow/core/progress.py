"""How far the work is: the engine reports, whoever listens shows it. By default nobody does.

A report is also where the work can end before its time: Ctrl-C and time limits are looked at here.
Drawing a bar does not belong here, nor does any decision about the work. Listeners go with the context of
the work, which Prefect copies into the threads of its tasks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from leptonflow.core import deadlines

Report = Callable[[str, int, int], None]  # stage, done, total (0: not known)
Note = Callable[[str], None]  # one line of news for a person
Detail = Callable[[str, str], None]  # stage, what it is at


class _Work(NamedTuple):
    listeners: tuple[tuple[Report | None, Note | None, Detail | None], ...] = ()
    ended: tuple[threading.Event, ...] = ()  # of the outermost listener, then of each part that can end by itself
    said: set[str] | None = None  # by `once`; None while nobody listens


_NOBODY = _Work()
_work: ContextVar[_Work] = ContextVar("work", default=_NOBODY)


class Stopped(BaseException):
    """The run ends while a stage works in another thread: not an error of this stage."""


def report(stage: str, done: int, total: int) -> None:
    """Say that `done` of `total` of this stage is done. Raises as `pulse` does."""
    pulse()
    for tell, _, _ in _work.get().listeners:
        if tell is not None:
            tell(stage, done, total)


def pulse() -> None:
    """A point where the work may end. Raises Stopped once it shall, TimeLimit past the stage's deadline."""
    if any(event.is_set() for event in _work.get().ended):
        raise Stopped("the run ends")
    deadlines.check()


def note(text: str) -> None:
    """Say one line of news, such as that another command is being waited for."""
    for _, tell, _ in _work.get().listeners:
        if tell is not None:
            tell(text)


def once(text: str) -> None:
    """`note`, unless another stage or process of the run has said the same."""
    said = _work.get().said
    if said is not None and text not in said:
        said.add(text)
        note(text)


def detail(stage: str, text: str) -> None:
    """Say in a few words what a stage is at, such as its epoch and loss: what is said next replaces it."""
    for _, _, tell in _work.get().listeners:
        if tell is not None:
            tell(stage, text)


@contextmanager
def listen(
    to_report: Report | None = None, to_note: Note | None = None, to_detail: Detail | None = None
) -> Iterator[Callable[[], None]]:
    """Within this block, reports, notes and details go to these callbacks too.

    Yields what ends the work of the outermost such block, in all its threads, at their next report: a computing thread
    cannot be interrupted otherwise.
    """
    work = _work.get()
    ended = work.ended or (threading.Event(),)
    said = set[str]() if work.said is None else work.said
    token = _work.set(_Work((*work.listeners, (to_report, to_note, to_detail)), ended, said))
    try:
        yield ended[0].set
    finally:
        _work.reset(token)


@contextmanager
def part() -> Iterator[Callable[[], None]]:
    """Yields what ends the work of this block alone, in all its threads, at their next report."""
    work, own = _work.get(), threading.Event()
    token = _work.set(work._replace(ended=(*work.ended, own)))
    try:
        yield own.set
    finally:
        _work.reset(token)

"""How long a stage may take: a deadline that goes with the work, looked at between two steps of it.

A computing thread cannot be stopped from outside, so the work itself looks: `progress` does at each
report. The limits are the YAML's (`limits`). What does not belong here: what a stage is made of.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import TimeLimit

if TYPE_CHECKING:
    from schemas.config import Pipeline


@dataclass(frozen=True)
class Limit:
    """A stage's limit. `deadline` is wall-clock time, which another machine knows too."""

    stage: str  # its key under `limits` in the YAML
    seconds: float
    deadline: float

    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - time.time()

    def check(self) -> None:
        """Raises TimeLimit once the deadline has passed."""
        if self.left() < 0:
            raise self.exceeded()

    def exceeded(self) -> TimeLimit:
        """The error that names the stage, its limit and the key to change."""
        return TimeLimit(
            f"the stage {self.stage} took longer than its limit",
            expected=f"at most {self.seconds:g} s (limits.{self.stage} in the pipeline's YAML)",
            hint=f"Raise limits.{self.stage} if the work needs it; the next run resumes from what is done",
        )


def start(config: Pipeline, stage: str) -> Limit:
    """The limit of a stage that begins now."""
    seconds = config.limits.of(stage)
    return Limit(stage, seconds, time.time() + seconds)


_current: ContextVar[Limit | None] = ContextVar("limit", default=None)


@contextmanager
def within(limit: Limit) -> Iterator[None]:
    """What is called in this block, in this thread, has this limit."""
    token = _current.set(limit)
    try:
        limit.check()
        yield
    finally:
        _current.reset(token)


def current() -> Limit | None:
    """The limit of the work that this thread does."""
    return _current.get()


def check() -> None:
    """Raises TimeLimit where this thread's work is past its deadline."""
    limit = _current.get()
    if limit is not None:
        limit.check()

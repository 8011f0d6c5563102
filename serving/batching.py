"""Requests wait in a bounded queue, and one thread per pipeline predicts what is there at once.

The batch is whatever waits. Only under load, when the batch before had several requests, is it worth a short wait for
those that are on their way. The queue belongs to the event loop, which hands the thread whole batches. What a request
asks, and which model answers it, does not belong here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from schemas.errors import LeptonflowError

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
WAIT = 0.002  # seconds, under load


class QueueFull(LeptonflowError):
    """More examples wait for the model than may. `seconds`: until it is worth trying again."""

    seconds = 1.0


class TooLate(LeptonflowError):
    """The request's time was over before its turn came."""


@dataclass(eq=False, slots=True)
class Job(Generic[Ask, Answer]):
    """The examples of one request. deadline: of time.monotonic."""

    asked: Sequence[Ask]
    deadline: float
    future: asyncio.Future[list[Answer]]


class Batcher(Generic[Ask, Answer]):
    """predict: the examples of a batch -> an answer for each. It is called by one thread, one batch after another.

    Everything but `close` and `waiting` is for the thread of the event loop.

    on_batch: told the size of every batch that was answered
    """

    def __init__(
        self, name: str, predict: Callable[[list[Ask]], list[Answer]], *, queue: int, batch: int, wait: float = WAIT
    ) -> None:
        self._predict, self._most, self._batch, self._wait = predict, queue, batch, wait
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: deque[Job[Ask, Answer]] = deque()
        self._waiting = 0  # examples: of the jobs, and those that room is held for
        self._expected = 0  # requests that are likely to wait soon: of the last batch, and those beside it
        self._busy = self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._seconds = 0.0  # for one example, on average
        self.on_batch: Callable[[int], None] = lambda size: None
        self._batches: SimpleQueue[list[Job[Ask, Answer]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"predict-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Examples that were let in, and that the model has not begun with."""
        return self._waiting

    @contextmanager
    def held(self, examples: int) -> Iterator[None]:
        """Room in the queue for examples that are not ready to be submitted yet. Raises QueueFull."""
        self._admit(examples)
        self._waiting += examples
        try:
            yield
        finally:
            self._waiting -= examples

    def submit(self, asked: Sequence[Ask], deadline: float) -> asyncio.Future[list[Answer]]:
        """Queue the examples of one request. Raises QueueFull.

        A request with more examples than the queue may hold is taken where nothing else waits.
        """
        self._admit(len(asked))
        self._loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Answer]] = self._loop.create_future()
        self._jobs.append(Job(asked, deadline, future))
        self._waiting += len(asked)
        self._next()
        return future

    def close(self, seconds: float | None = None) -> bool:
        """Answer what waits, then end the thread. False where that takes longer: its prediction hangs.

        Not on the thread of the event loop, which is needed for what waits.
        """
        self._closed = True
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._next)
        except RuntimeError:  # it is closed: nobody waits any more
            self._loop = None
        if self._loop is None:
            self._batches.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _admit(self, examples: int) -> None:
        """Raises QueueFull where there is no room for them."""
        if self._closed:
            raise QueueFull("the server is stopping", hint="Try again")
        if self._waiting and self._waiting + examples > self._most:
            full = QueueFull(
                "too many requests at once", expected=f"at most {self._most} examples that wait",
                received=f"{examples} more than the {self._waiting} that wait", hint="Try again later",
            )  # fmt: skip
            full.seconds = self._waiting * self._seconds
            raise full

    def _next(self, waited: bool = False) -> None:
        """Give the thread its next batch where it has none, or end it."""
        if self._busy:
            return
        if not self._jobs:
            if self._closed:
                self._batches.put(None)
            return
        if waited or self._closed or len(self._jobs) >= self._expected or self._waiting >= self._batch:
            self._start()
        elif self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(self._wait, self._next, True)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, count = time.monotonic(), 0
        jobs: list[Job[Ask, Answer]] = []
        while self._jobs and count < self._batch:
            job = self._jobs.popleft()
            self._waiting -= len(job.asked)
            if job.future.done():  # whoever asked is gone
                continue
            if job.deadline <= now:
                job.future.set_exception(TooLate("the model had no time for it within the limit"))
                continue
            jobs.append(job)
            count += len(job.asked)
        if jobs:
            self._busy = True
            self._batches.put(jobs)
        elif self._closed:
            self._batches.put(None)

    def _work(self) -> None:
        """The thread."""
        while (jobs := self._batches.get()) is not None:
            began = time.monotonic()
            found: list[Answer] | Exception
            try:
                found = self._predict([each for job in jobs for each in job.asked])
            except Exception as error:  # noqa: BLE001 - whatever a model does: these fail, the next go on
                found = error
            except SystemExit:
                found = RuntimeError("the model ended the process")
            loop = self._loop
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._answered, jobs, found, time.monotonic() - began)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _answered(self, jobs: list[Job[Ask, Answer]], found: list[Answer] | Exception, seconds: float) -> None:
        self._busy, self._expected = False, len(jobs) + len(self._jobs)
        self._next()
        at = 0
        for job in jobs:
            to = at + len(job.asked)
            if not job.future.done():
                if isinstance(found, Exception):
                    job.future.set_exception(found)
                else:
                    job.future.set_result(found[at:to])
            at = to
        if not isinstance(found, Exception):
            self._seconds += 0.1 * (seconds / at - self._seconds)
            self.on_batch(at)

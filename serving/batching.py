"""Requests wait in a bounded queue, and one thread per pipeline predicts what is there at once.

The batch is whatever waits. Only under load, when the batch before had several requests, is it worth a short wait for
those that are on their way. What a request asks, and which model answers it, does not belong here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
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


@dataclass(eq=False)
class Job(Generic[Ask, Answer]):
    """The examples of one request. deadline: of time.monotonic."""

    asked: Sequence[Ask]
    deadline: float
    future: asyncio.Future[list[Answer]]
    loop: asyncio.AbstractEventLoop


class Batcher(Generic[Ask, Answer]):
    """predict: the examples of a batch -> an answer for each. It is called by one thread, one batch after another.

    on_batch: told the size of every batch that was answered, on that thread
    """

    def __init__(
        self, name: str, predict: Callable[[list[Ask]], list[Answer]], *, queue: int, batch: int, wait: float = WAIT
    ) -> None:
        self._predict, self._most, self._batch, self._wait = predict, queue, batch, wait
        self._queue: SimpleQueue[Job[Ask, Answer] | None] = SimpleQueue()
        self._put = self._taken = 0  # examples; each is written by one thread
        self._closed = False
        self._seconds = 0.0  # for one example, on average
        self.on_batch: Callable[[int], None] = lambda size: None
        self._thread = threading.Thread(target=self._work, name=f"predict-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Examples in the queue."""
        return self._put - self._taken

    def submit(self, asked: Sequence[Ask], deadline: float) -> asyncio.Future[list[Answer]]:
        """Queue the examples of one request, on the thread of the event loop. Raises QueueFull.

        A request with more examples than the queue may hold is taken where nothing else waits.
        """
        if self._closed:
            raise QueueFull("the server is stopping", hint="Try again")
        if self.waiting and self.waiting + len(asked) > self._most:
            full = QueueFull(
                "too many requests at once", expected=f"at most {self._most} examples that wait",
                received=f"{len(asked)} more than the {self.waiting} that wait", hint="Try again later",
            )  # fmt: skip
            full.seconds = self.waiting * self._seconds
            raise full
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Answer]] = loop.create_future()
        self._put += len(asked)
        self._queue.put(Job(asked, deadline, future, loop))
        return future

    def close(self, seconds: float | None = None) -> bool:
        """Answer what waits, then end the thread. False where that takes longer: its prediction hangs."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        before = 0
        while (jobs := self._gather(before)) is not None:
            before = len(jobs)
            if jobs:
                self._answer(jobs)

    def _gather(self, before: int) -> list[Job[Ask, Answer]] | None:
        """The requests of the next batch; None at the end. before: requests of the last one."""
        job = self._queue.get()
        jobs: list[Job[Ask, Answer]] = []
        until, count = 0.0, 0
        while job is not None:
            self._taken += len(job.asked)
            jobs.append(job)
            count += len(job.asked)
            if count >= self._batch:
                return jobs
            try:
                job = self._queue.get_nowait()
            except Empty:
                if len(jobs) >= before or not self._wait:
                    return jobs
                until = until or time.monotonic() + self._wait
                try:
                    job = self._queue.get(timeout=max(0.0, until - time.monotonic()))
                except Empty:
                    return jobs
        if jobs:
            self._queue.put(None)  # the end comes after these
            return jobs
        return None

    def _answer(self, jobs: list[Job[Ask, Answer]]) -> None:
        began = time.monotonic()
        late = [job for job in jobs if job.deadline <= began or job.future.cancelled()]
        jobs = [job for job in jobs if job not in late] if late else jobs
        _deliver([(job, TooLate("the model had no time for it within the limit")) for job in late])
        asked = [each for job in jobs for each in job.asked]
        if not asked:
            return
        try:
            answers = self._predict(asked)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a model does: these fail, the next go on
            failed = error if isinstance(error, Exception) else RuntimeError("the model ended the process")
            _deliver([(job, failed) for job in jobs])
            return
        at, results = 0, []
        for job in jobs:
            results.append((job, answers[at : at + len(job.asked)]))
            at += len(job.asked)
        _deliver(results)
        self._seconds += 0.1 * ((time.monotonic() - began) / len(asked) - self._seconds)
        self.on_batch(len(asked))


def _deliver(results: Sequence[tuple[Job[Ask, Answer], list[Answer] | Exception]]) -> None:
    """Hand the answers to the event loop, all at once."""
    if not results:
        return

    def hand() -> None:
        for job, result in results:
            if job.future.done():
                continue
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    try:
        results[0][0].loop.call_soon_threadsafe(hand)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return

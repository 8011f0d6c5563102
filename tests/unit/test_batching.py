"""The queue before a model: bounded, in order, several requests at once, and nothing is lost at the end."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serving.batching import Batcher, QueueFull, TooLate


class Gate:
    """A model that squares numbers once it is let; it keeps the sizes of its batches."""

    def __init__(self) -> None:
        self.open, self.busy, self.sizes = threading.Event(), threading.Event(), []  # type: ignore[var-annotated]

    def __call__(self, asked: list[int]) -> list[int]:
        self.busy.set()
        assert self.open.wait(30)
        self.sizes.append(len(asked))
        if -1 in asked:
            raise ValueError("no such number")
        if -2 in asked:
            sys.exit("a model's own code")
        return [each * each for each in asked]


def run(made: Callable[[Batcher[int, int], Gate], Coroutine[Any, Any, None]], **limits: Any) -> Gate:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher("test", gate, **{"queue": 4, "batch": 3, **limits})
    try:
        asyncio.run(made(batcher, gate))
    finally:
        gate.open.set()
        batcher.close()
    return gate


def soon() -> float:
    return time.monotonic() + 30


def test_what_waits_is_predicted_at_once_and_in_order() -> None:
    async def story(batcher: Batcher[int, int], gate: Gate) -> None:
        first = batcher.submit([1], soon())
        await asyncio.to_thread(gate.busy.wait, 30)
        others = [batcher.submit([2, 3], soon()), batcher.submit([4], soon()), batcher.submit([5], soon())]
        assert batcher.waiting == 4
        gate.open.set()
        assert await asyncio.gather(first, *others) == [[1], [4, 9], [16], [25]]
        assert batcher.waiting == 0

    assert run(story).sizes == [1, 3, 1]


def test_a_full_queue_refuses_and_takes_again_when_it_has_room() -> None:
    async def story(batcher: Batcher[int, int], gate: Gate) -> None:
        kept = [batcher.submit([0], soon())]
        await asyncio.to_thread(gate.busy.wait, 30)
        kept += [batcher.submit([n], soon()) for n in range(4)]
        with pytest.raises(QueueFull):
            batcher.submit([9], soon())
        gate.open.set()
        await asyncio.gather(*kept)
        assert await batcher.submit([9] * 50, soon()) == [81] * 50  # more than the queue holds, where nothing waits

    run(story)


def test_room_that_is_held_counts_as_waiting() -> None:
    async def story(batcher: Batcher[int, int], gate: Gate) -> None:
        gate.open.set()
        with batcher.held(3):
            assert batcher.waiting == 3
            with pytest.raises(QueueFull), batcher.held(2):
                pass
            with pytest.raises(QueueFull):
                batcher.submit([1, 2], soon())
            assert await batcher.submit([2], soon()) == [4]
        assert batcher.waiting == 0

    run(story)


def test_requests_that_come_together_are_one_batch_again() -> None:
    """Clients that ask again as soon as they are answered."""

    async def client(batcher: Batcher[int, int]) -> None:
        for number in range(30):
            assert await batcher.submit([number], soon()) == [number * number]

    async def story(batcher: Batcher[int, int], gate: Gate) -> None:
        gate.open.set()
        await asyncio.gather(*(client(batcher) for _ in range(8)))

    sizes = run(story, queue=20, batch=10).sizes
    assert sum(sizes) == 240 and len(sizes) < 90


def test_a_request_whose_time_is_over_is_not_predicted() -> None:
    async def story(batcher: Batcher[int, int], gate: Gate) -> None:
        first = batcher.submit([1], soon())
        await asyncio.to_thread(gate.busy.wait, 30)
        late, gone = batcher.submit([2], time.monotonic()), batcher.submit([3], soon())
        gone.cancel()
        gate.open.set()
        assert await first == [1]
        with pytest.raises(TooLate):
            await late

    assert run(story).sizes == [1]


def test_what_fails_fails_its_own_batch() -> None:
    async def story(batcher: Batcher[int, int], gate: Gate) -> None:
        gate.open.set()
        with pytest.raises(ValueError):
            await batcher.submit([-1], soon())
        with pytest.raises(RuntimeError):
            await batcher.submit([-2], soon())
        assert await batcher.submit([3], soon()) == [9]

    run(story)


def test_the_end_comes_after_what_waits() -> None:
    async def story(batcher: Batcher[int, int], gate: Gate) -> None:
        waiting = [batcher.submit([n], soon()) for n in range(4)]
        ended = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0)
        gate.open.set()
        assert await asyncio.gather(*waiting) == [[0], [1], [4], [9]]
        await ended
        with pytest.raises(QueueFull):
            batcher.submit([1], soon())

    run(story)


def test_a_model_that_hangs_does_not_hold_the_end() -> None:
    async def story(batcher: Batcher[int, int], gate: Gate) -> None:
        batcher.submit([1], soon())
        await asyncio.to_thread(gate.busy.wait, 30)
        assert not await asyncio.to_thread(batcher.close, 0.01)

    run(story)

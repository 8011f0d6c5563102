"""From the examples of a request to their predictions: ids, the queue, time limits, and what failed as a status.

The routes that show them are predictions and inference_protocol.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from leptonflow.workloads.base import Examined
from schemas.errors import LeptonflowError, TrainingError
from schemas.served import new_request_id
from serving.batching import QueueFull, TooLate
from serving.live_models import Live
from serving.problems import Problem, told
from serving.request_bodies import Example, Look
from serving.service import ExampleRequest, NotReady, Prediction, Service, examined


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request: its id, when it came, and until when it must be answered (of time.monotonic)."""

    request_id: str
    at: datetime
    began: float
    deadline: float


def arrived(seconds: float) -> Arrival:
    """A request that comes now and may take so long."""
    at, began = datetime.now(UTC), time.monotonic()
    return Arrival(new_request_id(at), at, began, began + seconds)


def decoders() -> ThreadPoolExecutor:
    """Threads for large examples."""
    return ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="decode")


async def predicted(
    service: Service, pool: ThreadPoolExecutor, arrival: Arrival, examples: Sequence[Example], source: str
) -> list[tuple[str, str, Prediction]]:
    """(request id, name, answer) of each example. The first has the request's id, each other one its own.

    Raises Problem: 503 where no version is loaded, 429 where the queue is full, 504 where time ran out, 500.
    """
    if why := service.why_not():
        raise not_ready(service, why)
    ids = [arrival.request_id, *(new_request_id(arrival.at) for _ in examples[1:])]
    try:
        async with asyncio.timeout_at(_of_loop(arrival.deadline)):
            looks = await _looks(service, pool, examples)
            asked = [
                ExampleRequest(id, each.name, look, source, arrival.at, arrival.began)
                for id, each, look in zip(ids, examples, looks, strict=True)
            ]
            answers = await service.batcher.submit(asked, arrival.deadline)
    except QueueFull as error:
        raise Problem(429, error, {"retry-after": str(max(1, round(error.seconds)))}) from None
    except NotReady as error:
        raise not_ready(service, error.line()) from None
    except (TimeoutError, TooLate):
        limit = service.config.serving.seconds
        raise told(
            504, "the prediction took too long", expected=f"an answer within {limit:g} seconds",
            hint="Try again, with fewer examples in one request", retry_after=1,
        ) from None  # fmt: skip
    except Exception as error:  # whatever a model raises
        logging.getLogger("leptonflow.serving").exception("a model failed")
        hidden = LeptonflowError("the model failed", hint="The server's log says why")
        raise Problem(500, error if isinstance(error, TrainingError) else hidden) from None
    return list(zip(ids, (each.name for each in examples), answers, strict=True))


def not_ready(service: Service, why: str) -> Problem:
    """503: nothing is loaded."""
    error = LeptonflowError(f"the pipeline {service.name} cannot be served now", received=why, hint="Try again later")
    return Problem(503, error, {"retry-after": "1"})


async def _looks(service: Service, pool: ThreadPoolExecutor, examples: Sequence[Example]) -> list[Look]:
    """How the queue's thread gets each example: of a large one, what was decoded here.

    The queue holds room for what is decoded, so that what waits for the pool is bounded too. Raises QueueFull.
    """
    live = service.live
    if live is None or not any(each.large for each in examples):
        return [each.look for each in examples]
    with service.batcher.held(len(examples)):
        return [await _decoded(live, pool, each) if each.large else each.look for each in examples]


async def _decoded(live: Live, pool: ThreadPoolExecutor, example: Example) -> Look:
    seen = await asyncio.get_running_loop().run_in_executor(pool, examined, example.look, live)

    def look(other: Live) -> Examined:
        same = other.workload is live.workload and other.served.manifest.input == live.served.manifest.input
        return seen if same else example.look(other)

    return look


def _of_loop(deadline: float) -> float:
    """A time of time.monotonic by the event loop's clock."""
    return asyncio.get_running_loop().time() + deadline - time.monotonic()

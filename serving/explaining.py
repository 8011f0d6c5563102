"""`?explain=1`: which parts of a request's examples mattered for their predictions.

How an example is taken apart does not belong here (leptonflow.evaluation.explanations).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request

from leptonflow.evaluation import explanations
from leptonflow.workloads import catalog
from schemas.errors import UsageError
from serving.predicting import Arrival
from serving.problems import Problem, told
from serving.request_bodies import Example
from serving.service import Prediction, Service, examined

MOST = 4  # examples of one request: each costs as many predictions as full batches do
WANTED = ("1", "true")


def explainer() -> ThreadPoolExecutor:
    """One thread: explanations leave the rest of the machine to predictions."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain")


def wanted(request: Request, service: Service, examples: Sequence[Example]) -> bool:
    """Whether the request asks for it. Raises Problem 422 where it cannot have it."""
    if request.query_params.get("explain") not in WANTED:
        return False
    if len(examples) > MOST:
        raise told(
            422, "too many examples to explain in one request", expected=f"at most {MOST}", received=str(len(examples))
        )
    try:
        explanations.check(catalog.load(service.config.workload), len(examples))
    except UsageError as error:
        raise Problem(422, error) from None
    return True


async def explained(
    pool: ThreadPoolExecutor,
    service: Service,
    arrival: Arrival,
    examples: Sequence[Example],
    answers: Sequence[Prediction],
) -> list[dict[str, Any] | None]:
    """The document of each example, by the version that predicted it; None where there is no prediction.

    Raises Problem 504 where the request's time is over.
    """
    work = asyncio.get_running_loop().run_in_executor(
        pool, lambda: [_document(arrival, *each) for each in zip(examples, answers, strict=True)]
    )
    try:
        async with asyncio.timeout(arrival.deadline - time.monotonic()):
            return await work
    except TimeoutError:
        raise told(
            504, "the explanation took too long", hint="Try again, with fewer examples in one request", retry_after=1,
            expected=f"an answer within {service.config.serving.seconds:g} seconds",
        ) from None  # fmt: skip


def _document(arrival: Arrival, example: Example, answer: Prediction) -> dict[str, Any] | None:
    live = answer.live
    seen = None if answer.error else examined(example.look, live)
    if seen is None or seen.encoded is None:
        return None
    if time.monotonic() > arrival.deadline:  # nobody waits for it any more
        raise TimeoutError
    given = live.served.manifest.input
    inputs = live.workload.codec.stack([seen.encoded], given)
    (found,) = explanations.explained(live.workload, inputs, given, live.served)
    return found

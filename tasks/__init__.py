"""Floor 2: Prefect tasks, one module a stage. Each takes references, calls one engine function, returns a reference.

What a stage does belongs to the engine, in what order to flows. What all stages share is here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE

from leptonflow.storage import s3
from schemas.errors import StoreRefused, StoreUnreachable

P = ParamSpec("P")
R = TypeVar("R")

# A store that is away is waited for twice: in each request, so that no fold is lost to a server's restart, and by
# the task as a whole. Three times 30 s and the pauses between make some two minutes.
PATIENCE = 30.0
PAUSES = [5.0, 20.0]
JITTER = 0.2


def stage(name: str, run_name: str | Callable[..., str] | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that tries again, later and later, where the store is out of reach, and only there.

    Nothing is cached or kept by Prefect: what is done already, the digests on the store decide.
    run_name: what one run of the task is called, a template or a function of its parameters.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def patient(*args: P.args, **kwargs: P.kwargs) -> R:
            with s3.patient(PATIENCE):
                return function(*args, **kwargs)

        return task(
            name=name,
            task_run_name=run_name or name,
            retries=len(PAUSES),
            retry_delay_seconds=PAUSES,
            retry_jitter_factor=JITTER,
            retry_condition_fn=out_of_reach,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(patient)

    return decorate


def out_of_reach(task: Task[..., Any], run: object, state: State[Any]) -> bool:
    """Whether the task failed because the store is away. One that refuses stays as it is."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StoreUnreachable) and not isinstance(error, StoreRefused)

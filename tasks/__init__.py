"""Floor 2: Prefect tasks, one module a stage. Each takes references, calls one engine function, returns a reference.

What a stage does belongs to the engine, in what order to flows. What all stages share is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE

from schemas.errors import StoreUnreachable

P = ParamSpec("P")
R = TypeVar("R")


def stage(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that tries again, twice, where the store could not be reached, and only there.

    Nothing is cached or kept by Prefect: what is done already, the digests on the store decide.
    """
    return task(
        name=name,
        retries=2,
        retry_delay_seconds=[1, 5],
        retry_condition_fn=unreachable,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def unreachable(task: Task[..., Any], run: object, state: State[Any]) -> bool:
    """Whether the store's being out of reach failed the task."""
    return isinstance(state.result(raise_on_failure=False), StoreUnreachable)

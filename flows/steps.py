"""Runs a flow's tasks one after another, each on the same store and pipeline, and keeps how long each took."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Concatenate, ParamSpec, TypeVar

from prefect import Task, get_run_logger
from prefect.context import FlowRunContext, SyncClientContext

from schemas.config import Pipeline

P = ParamSpec("P")
R = TypeVar("R")


class Steps:
    """`step(task, ...)` runs a task of this pipeline on this store. `seconds` are those of each stage."""

    def __init__(self, store: str, config: Pipeline) -> None:
        self.store = store
        self.config = config
        self.seconds: dict[str, float] = {}

    def __call__(self, task: Task[Concatenate[str, Pipeline, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The task's result, computed here and now. Raises what the engine raises."""
        began = time.perf_counter()
        try:
            return task(self.store, self.config, *args, **kwargs)
        finally:
            self._took(task.name, time.perf_counter() - began)

    def fan_out(self, task: Task[..., R], each: Iterable[int], *args: object) -> list[R]:
        """One task for each number, given last; side by side as far as the flow's task runner allows."""
        began = time.perf_counter()
        futures = [task.submit(self.store, self.config, *args, number) for number in each]
        results: list[R] = [future.result() for future in futures]
        self._took(task.name, time.perf_counter() - began)
        return results

    def name_run(self, name: str) -> None:
        """Rename the flow run: its name tells what it is about only once the batches are in."""
        run = FlowRunContext.get()
        if run is not None and run.flow_run is not None:
            with SyncClientContext.get_or_create() as context:
                context.client.update_flow_run(run.flow_run.id, name=name)

    def _took(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 3)
        get_run_logger().info("%s took %.2f s", stage, seconds)

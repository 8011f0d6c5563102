"""Where the fits of a run are computed: Prefect's task runner for the YAML's `training.runner`, and the engine's part.

What does not belong here: a fit in a process of its own (leptonflow.training.runners).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import ray_cluster, ray_fits
from leptonflow.core import progress
from leptonflow.training.runners import seats
from leptonflow.training.runners.fit_process import Processes
from leptonflow.training.runners.fit_runner import FitRunner, Here
from leptonflow.training.workspace import Workspace
from schemas.config import Pipeline
from schemas.records import Plan

Futures = Sequence[PrefectFuture[Any]]


class Computing(NamedTuple):
    """tasks: Prefect's runner, entered; fits: what its tasks call; completed: the futures as they come to their end."""

    tasks: Any
    fits: FitRunner
    completed: Callable[[Futures], Iterator[PrefectFuture[Any]]]


@contextmanager
def opened(store: str, config: Pipeline, plan: Plan, workspace: Workspace) -> Iterator[Computing]:
    """Computes fits while the block runs. Raises ConfigurationError where the YAML asks for what is not there."""
    if config.training.runner.name == "ray":
        with _on_ray(store, config, plan) as computing:
            yield computing
        return
    fits: FitRunner = Here(workspace)
    most = 1  # seeds and graphs belong to the process
    if config.training.runner.name == "process":
        given = seats.seats(config, config.training.folds)
        progress.note(seats.told(config, given))
        fits, most = Processes(given), len(given)
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=most)
    with runner as tasks:
        yield Computing(tasks, fits, lambda futures: as_completed(list(futures)))


@contextmanager
def _on_ray(store: str, config: Pipeline, plan: Plan) -> Iterator[Computing]:
    """Raises ClusterError where the cluster does not answer."""
    with ray_cluster.connected(config) as options:
        from prefect_ray import RayTaskRunner
        from prefect_ray.context import remote_options

        fits = ray_fits.workers(store, config, plan)
        with RayTaskRunner() as tasks, remote_options(**options):
            yield Computing(tasks, fits, lambda futures: ray_fits.completed(futures, fits.news))

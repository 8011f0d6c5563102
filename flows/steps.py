"""One run of the flow at work: its tasks one after another on one store and pipeline, and what lasts as long as it.

What does not belong here: which stages there are, and in what order (retrain).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from prefect import State, Task
from prefect.futures import PrefectFuture
from prefect.states import Completed
from prefect.utilities.callables import get_call_parameters

from flows import artifacts, notifications, preemption, run_log, run_names, run_page
from flows.artifacts import Story
from flows.fit_runners import Computing
from leptonflow.core import deadlines, garbage_collection, progress
from leptonflow.core.deadlines import Limit
from leptonflow.data.dataset import admission
from leptonflow.keras_runtime import keras_models
from leptonflow.runs import pipeline_status
from leptonflow.storage import run_lock
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.constants import WAITING
from schemas.records import Plan

P = ParamSpec("P")
R = TypeVar("R")


class Steps:
    """`step(task, ...)` runs a task of this pipeline on this store. `seconds` are those of each stage."""

    def __init__(self, store: str, config: Pipeline) -> None:
        self.store = store
        self.config = config
        self.seconds: dict[str, float] = {}
        self._limits: dict[str, Limit] = {}
        self._page = run_page.Page(config.name)
        self._stop: Callable[[], None] = lambda: None  # ends the work of the tasks, while `at_work`
        self._fits: set[PrefectFuture[Any]] = set()  # those under way

    def __call__(self, task: Task[Concatenate[str, Pipeline, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The task's result, computed here and now. Raises what the engine raises."""
        with self._timed(task.name) as told:
            result = task(self.store, self.config, *args, **kwargs)
            told.append(run_names.line(task.name, result))
        return result

    def fan_out(
        self, task: Task[..., R], each: Sequence[tuple[Any, ...]], on: Computing, *args: object,
        enough: Callable[[Sequence[R]], bool] = lambda results: False,
    ) -> list[R]:  # fmt: skip
        """One task for each of these last arguments; side by side as far as the runner of fits has room for them.

        Once `enough` says so of the results so far, the other tasks are ended, and these results are all.
        """
        with self._timed(task.name) as told, progress.part() as end:
            given = [(self.store, self.config, *args, *last) for last in each]
            futures = [on.tasks.submit(task, get_call_parameters(task.fn, values, {})) for values in given]
            self._fits.update(futures)
            for future in futures:
                future.add_done_callback(self._fits.discard)
            try:
                results: list[R] = []
                finished: dict[int, R] = {}
                for future in on.completed(futures):
                    finished[futures.index(future)] = future.result()
                    results = [result for _, result in sorted(finished.items(), key=lambda of: of[0])]
                    if enough(results):
                        end()
                        break
            except BaseException:
                self._stop()  # others compute already, and would be waited for
                raise
            told.append(run_names.line(task.name, results))
        return results

    def limit(self, stage: str) -> Limit:
        """The stage's time limit, by its name in the YAML. Its clock starts with the first call."""
        if stage not in self._limits:
            self._limits[stage] = deadlines.start(self.config, stage)
        return self._limits[stage]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold the pipeline's lock, and follow the work on the run's page."""
        page = self._page
        page.name(None, run_names.STARTING)
        with ExitStack() as stack:
            stack.enter_context(_plain_log())
            path = stack.enter_context(run_log.kept(self.config.name))
            if path is not None:
                page.log.info("this log is kept in %s", path.absolute())
            moving = run_page.Moving(page, self.config.training.folds)
            stack.callback(moving.close)
            told = progress.listen(moving.report, lambda text: page.log.info("%s", text), moving.detail)
            self._stop = stack.enter_context(told)
            stack.enter_context(preemption.heard(self._save))
            stack.enter_context(run_lock.one_at_a_time(open_store(self.store), self.config.name))
            yield

    def _save(self) -> None:
        """End the fits, each at its next step, where it saves itself; not waited for longer than a worker does."""
        self._stop()
        deadline = time.monotonic() + preemption.SAVE_SECONDS
        while self._fits and time.monotonic() < deadline:
            time.sleep(preemption.LOOK)

    @contextmanager
    def prepared(self, plan: Plan) -> Iterator[None]:
        """Start the children that validate batches, if some are pending; Keras is imported while they start."""
        with ExitStack() as stack:
            if plan.waiting:
                stack.enter_context(admission.tools())
                with garbage_collection.paused(freeze=True):
                    keras_models.keras()
            yield

    def trains_on(self, snapshot: str) -> None:
        """Rename the run: its snapshot is known once the batches are ingested."""
        self._page.name(snapshot, run_names.TRAINING)

    def end(self, story: Story) -> State[dict[str, Any]]:
        """Put the outcome on the run's page and send notifications; the final state, named by the verdict."""
        document, page, name = story.document, self._page, self.config.name
        why = run_names.sentence(document)
        address = page.report_address(document["run_id"]) if document["report"] else None
        page.show(artifacts.artifacts(name, self.store, story, address))
        with run_page.tolerated(page.log):
            history = pipeline_status.history(open_store(self.store), self.config)
            champion = artifacts.champion(name, self.store, history)
            if champion is not None:
                page.show_changed(champion)
        page.name(document["snapshot"], document["verdict"], end=document["verdict"])
        if document["verdict"] != WAITING or story.trained:  # once, not at each run that finds it waiting still
            notifications.notify(self.config, document["verdict"], why, page.run, page.log)
        return Completed(name=document["verdict"], message=why, data=document)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[list[str]]:
        """Add the block's time to the stage's, and say so in one line with what the block appends."""
        began = time.perf_counter()
        told: list[str] = []
        try:
            yield told
        finally:
            seconds = time.perf_counter() - began
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 3)
            outcome = told[0] if told else "failed"
            self._page.log.info("%s took %.2f s%s", stage, seconds, f": {outcome}" if outcome else "")


@contextmanager
def _plain_log() -> Iterator[None]:
    """One line a stage, which is ours: Prefect's own of each task that completed is left out."""

    def is_news(record: logging.LogRecord) -> bool:
        return record.levelno != logging.INFO or not str(record.msg).startswith("Finished in state")

    logger = logging.getLogger("prefect.task_runs")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)

"""Fits on the workers of a Ray cluster: only references get there, and the user's own code by way of the store.

What does not belong here: the cluster itself (ray_cluster).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from leptonflow.core import accelerators, progress, store_keys
from leptonflow.core.code_digests import code_digests
from leptonflow.core.hashing import sha256
from leptonflow.registry import model_sources
from leptonflow.storage import store_identity
from leptonflow.storage.address import open_store
from leptonflow.storage.objects import adopt, recorded
from leptonflow.training import model_fits
from leptonflow.training.runners.fit_runner import Here
from leptonflow.training.workspace import Workspace
from schemas.config import Pipeline
from schemas.errors import LeptonflowError, TrainingError
from schemas.records import FitResult, ObjectRef, Plan

INTERVAL = 0.5  # seconds between two looks at what the workers say
REPORTS = 1.0  # seconds between two reports of a fit


class Workers:
    """Computes a fit in the process where it is called, which shares no folder with that of the run.

    source: the user's own code and files on the store, None where there are none; code: the digest of the code that
    trains; precision: what `auto` is for the run; news: the queue that takes what a fit says to the run.
    """

    def __init__(self, source: ObjectRef | None, code: str, precision: str, news: Any) -> None:
        self.source = source
        self.code = code
        self.precision = precision
        self.news = news
        self._last: dict[str, float] = {}

    def fit(self, store: str, config: Pipeline, plan: Plan, fold: int | None) -> FitResult:
        """As FitRunner says. Raises TrainingError where this process would train with other code than the run has."""
        mine = _code(config)
        if mine != self.code:
            raise TrainingError(
                "a worker of the Ray cluster has another leptonflow, Keras or backend than the run",
                expected=f"code {self.code[:12]}",
                received=mine[:12],
                hint="Install the same versions on every machine of the cluster, or start it from the same image",
            )
        opened = open_store(store)
        if store_identity.known_id(opened) is None:
            raise TrainingError(
                "a worker of the Ray cluster does not find the store",
                expected="a store that every machine of the cluster reaches, such as s3://bucket/prefix",
                received=f"none at {opened.uri}",
            )
        data = None if self.source is None else recorded(opened, self.source.key, self.source.sha256)
        with model_sources.unpacked(data, config) as own, progress.listen(self._report, self._note, self._detail):
            return Here(Workspace()).fit(store, accelerators.fixed(own, self.precision), plan, fold)

    def _report(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._last.get(stage, -REPORTS) >= REPORTS:
            self._last[stage] = now
            self._say("report", stage, done, total)

    def _note(self, text: str) -> None:
        self._say("note", text)

    def _detail(self, stage: str, text: str) -> None:
        now = time.monotonic()
        if now - self._last.get(f"{stage} at", -REPORTS) >= REPORTS:
            self._last[f"{stage} at"] = now
            self._say("detail", stage, text)

    def _say(self, *words: Any) -> None:
        from ray.exceptions import RayError

        with suppress(RayError):  # the run learns of it another way, and no fit fails for its progress
            self.news.put(words)


def workers(store: str, config: Pipeline, plan: Plan) -> Workers:
    """What the tasks of a plan call on whatever worker. Puts the user's own code on the store."""
    from ray.util.queue import Queue

    version, _ = model_fits.planned(plan)
    data, source = model_sources.archive(config), None
    if data is not None:
        key = store_keys.fit_key(config.name, version, None, "source.zip")
        lies_there = adopt(open_store(store), key, data)
        source = ObjectRef(key=key, sha256=sha256(lies_there), bytes=len(lies_there))
    precision = accelerators.precision(config.training)
    return Workers(source, _code(config), precision, Queue(actor_options={"num_cpus": 0}))


def _code(config: Pipeline) -> str:
    return code_digests(config, own=False)["train"]


def completed(futures: Sequence[Any], news: Any) -> Iterator[Any]:
    """The futures as they come to their end, while what the workers say is passed on.

    Raises as `progress.pulse`, and TrainingError where the cluster lost a fit for good.
    """
    import ray

    waiting = {future.wrapped_future: future for future in futures}
    while waiting:
        progress.pulse()
        done, _ = ray.wait([*waiting], timeout=INTERVAL)
        for kind, *words in news.get_nowait_batch(news.qsize()):
            if kind == "report":
                progress.report(*words)
            elif kind == "detail":
                progress.detail(*words)
            else:
                progress.once(words[0])  # each worker says it
        for each in done:
            try:
                ray.get(each)
            except LeptonflowError:
                raise
            except Exception as error:  # whatever Ray raises for a worker that died, or that could not begin
                raise _lost(error) from error
            yield waiting.pop(each)


def _lost(error: Exception) -> TrainingError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return TrainingError(
        "the Ray cluster did not finish a fit",
        expected="workers with this leptonflow, and memory enough for a fit",
        received=f"{type(error).__name__}: {' '.join([*lines[:1], *lines[-1:]])[:400]}",
        hint="A larger training.runner.memory lets fewer fits run on a machine at a time; "
        "the next run resumes from what is done",
    )

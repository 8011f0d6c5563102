"""One served pipeline: the version that answers, the queue before it, and what is known of its state.

Finding the version that should answer does not belong here (champion_watch), nor does HTTP (predictions).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from leptonflow.registry.champion_log import Champion
from leptonflow.workloads.base import Examined
from schemas.config import Pipeline
from schemas.errors import LeptonflowError
from schemas.served import Served, inputs_chosen
from serving.batching import Batcher
from serving.live_models import Live

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Log(Protocol):
    """Where what was served is kept. `add` neither waits nor raises; `dropped` counts the rows that were lost."""

    dropped: int

    def add(self, row: Served) -> None: ...

    def close(self) -> None: ...


class NotReady(LeptonflowError):
    """No version is loaded: the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One example of a request.

    look    reads it for the version that answers
    source  the interface it came by; None: it is not logged
    began   when its request came, of time.monotonic
    """

    request_id: str
    name: str
    look: Callable[[Live], Examined]
    source: str | None
    at: datetime
    began: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction by `live`, or the error why there is none."""

    live: Live
    error: str | None = None
    label: str | None = None
    probability: float | None = None
    outputs: NDArray[np.float64] | None = None  # (K,)


class Service:
    """live: the version that answers. champion: the last record of the promotions log, as far as it was read.

    pin        the version that is served whatever the champion is
    problem    why `live` is not what it should be, in one line; None where it is
    store_problem  why the promotions log could not be read at the last look
    """

    def __init__(self, config: Pipeline, log: Log | None = None, pin: str | None = None) -> None:
        self.config, self.pin = config, pin
        self.live: Live | None = None
        self.champion: Champion | None = None
        self.problem: str | None = "no version is loaded yet"
        self.store_problem: str | None = None
        self.swaps = self.failed_loads = 0
        self._log = log
        limits = config.serving
        self.batcher: Batcher[Asked, Answer] = Batcher(
            config.name, self._predict, queue=limits.queue, batch=limits.batch
        )

    @property
    def name(self) -> str:
        return self.config.name

    def why_not(self) -> str | None:
        """Why no prediction can be made, in one line; None where a version is loaded."""
        return None if self.live is not None else self.store_problem or self.problem

    def canary(self) -> Asked:
        """The first reference row of whichever version answers."""
        now = datetime.now().astimezone()
        return Asked("", "canary", lambda live: Examined(None, None, encoded=live.canary[0]), None, now, 0.0)

    def _predict(self, asked: list[Asked]) -> list[Answer]:
        """Called by the queue's thread: one batch, one version."""
        live = self.live
        if live is None:
            raise NotReady(f"the pipeline {self.name} cannot be served", received=self.why_not(), hint="Try again")
        seen = [each.look(live) for each in asked]
        good = [number for number, each in enumerate(seen) if each.encoded is not None]
        answers = [Answer(live, error=_words(each)) for each in seen]
        if not good:
            return answers
        outputs, features = live.predict([seen[number].encoded or b"" for number in good])
        answer, classes = live.workload.target.answer, live.served.classes
        for row, number in enumerate(good):
            label, probability = answer(outputs[row], classes)
            answers[number] = Answer(live, None, label, probability, outputs[row])
            if self._log is not None and asked[number].source is not None:
                of = None if features is None else features[row]
                self._log.add(self._served(asked[number], answers[number], seen[number], of))
        return answers

    def _served(
        self, asked: Asked, answer: Answer, examined: Examined, features: NDArray[np.float32] | None
    ) -> Served:
        """The row of the prediction log."""
        outputs: Any = answer.outputs
        chosen = self.config.serving.log_inputs
        return Served(
            pipeline=self.name, request_id=asked.request_id, at=asked.at, version=answer.live.version,
            predicted=answer.label or "", probability=answer.probability, outputs=outputs,
            metadata=examined.facts or {}, features=features, seconds=time.monotonic() - asked.began,
            runtime=answer.live.served.runtime, source=asked.source or "",
            inputs=examined.encoded if chosen and inputs_chosen(asked.request_id, chosen.rate) else None,
        )  # fmt: skip


def _words(examined: Examined) -> str:
    """Why an example is not read, in the words of `predict`."""
    return f"{examined.rule}: {examined.reason}" if examined.rule else str(examined.reason)

"""One served pipeline: the version that answers, the queue before it, and what is known of its state.

Finding the version that should answer does not belong here (champion_watch), nor does HTTP (predictions).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from leptonflow.registry.champion_log import Champion
from leptonflow.workloads.base import Examined
from schemas.config import Pipeline
from schemas.errors import LeptonflowError
from schemas.served import Served, canary_chosen, inputs_chosen
from serving.batching import Batcher
from serving.live_models import Live

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Log(Protocol):
    """Where what was served is kept. `add` neither waits nor raises; `dropped` counts the rows that were lost."""

    dropped: int

    @property
    def waiting(self) -> int: ...

    def add(self, row: Served) -> None: ...

    def close(self) -> None: ...


class NotReady(LeptonflowError):
    """No version is loaded: the message says why."""


@dataclass(frozen=True, slots=True)
class ExampleRequest:
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
class Prediction:
    """A prediction by `live`, or the error why there is none."""

    live: Live
    error: str | None = None
    label: str | None = None
    probability: float | None = None
    outputs: NDArray[np.float64] | None = None  # (K,)


@dataclass(frozen=True, slots=True)
class LiveCandidate:
    """A candidate that predicts beside the version that answers.

    share  of the requests that it answers, 0..1; all: it predicts every request, else only those
    """

    live: Live
    share: float
    all: bool


class Service:
    """live: the version that answers. champion: the last record of the promotions log, as far as it was read.

    beside     another version that predicts too, to be compared; None: there is none
    pin        the version that is served whatever the champion is
    problem    why `live` is not what it should be, in one line; None where it is
    problem_beside  why no candidate predicts although there is one, in one line
    store_problem  why the promotions log could not be read at the last look
    """

    def __init__(self, config: Pipeline, log: Log | None = None, pin: str | None = None) -> None:
        self.config, self.pin = config, pin
        self.live: Live | None = None
        self.beside: LiveCandidate | None = None
        self.champion: Champion | None = None
        self.problem: str | None = "no version is loaded yet"
        self.store_problem: str | None = None
        self.problem_beside: str | None = None
        self.swaps = self.failed_loads = 0
        self._log = log
        limits = config.serving
        self.batcher: Batcher[ExampleRequest, Prediction] = Batcher(
            config.name, self._predict, queue=limits.queue, batch=limits.batch
        )

    @property
    def name(self) -> str:
        return self.config.name

    def why_not(self) -> str | None:
        """Why no prediction can be made, in one line; None where a version is loaded."""
        return None if self.live is not None else self.store_problem or self.problem

    def canary(self) -> ExampleRequest:
        """The first reference row of whichever version answers."""
        now = datetime.now().astimezone()
        return ExampleRequest("", "canary", lambda live: Examined(None, None, encoded=live.canary[0]), None, now, 0.0)

    def _predict(self, asked: list[ExampleRequest]) -> list[Prediction]:
        """Called by the queue's thread: one batch, one version."""
        live = self.live
        if live is None:
            raise NotReady(f"the pipeline {self.name} cannot be served", received=self.why_not(), hint="Try again")
        seen = [examined(each.look, live) for each in asked]
        good = [number for number, each in enumerate(seen) if each.encoded is not None]
        answers = [Prediction(live, error=each.refusal) for each in seen]
        if not good:
            return answers
        found, beside = _predictions(live, [seen[number] for number in good]), self.beside
        if beside is not None and beside.live.version == live.version:  # it has just become the champion
            beside = None
        others = self._others(beside, asked, seen, good) if beside is not None else {}
        for number, first in zip(good, found, strict=True):
            second = others.get(number)
            if beside is not None and second is not None and canary_chosen(asked[number].request_id, beside.share):
                first, second = second, first
            answers[number] = first.answer
            if self._log is not None and asked[number].source is not None and first.answer.error is None:
                self._log.add(self._served(asked[number], first, seen[number]))
                if second is not None:
                    self._log.add(self._served(asked[number], second, seen[number], shadow=True))
        return answers

    def _others(
        self, beside: LiveCandidate, asked: list[ExampleRequest], seen: list[Examined], good: list[int]
    ) -> dict[int, _WithFeatures]:
        """What the version beside predicts, of those examples that it predicts.

        One that fails predicts no more: the version that answers is not to suffer from it.
        """
        real = [number for number in good if asked[number].source is not None]
        if not beside.all:
            real = [number for number in real if canary_chosen(asked[number].request_id, beside.share)]
        try:
            found = _predictions(beside.live, [seen[number] for number in real]) if real else []
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a candidate's model does
            self.beside, self.problem_beside = None, f"{beside.live.version} failed: {type(error).__name__}"
            return {}
        return {number: each for number, each in zip(real, found, strict=True) if each.answer.error is None}

    def _served(self, asked: ExampleRequest, found: _WithFeatures, examined: Examined, shadow: bool = False) -> Served:
        """The row of the prediction log."""
        answer, features, statistics = found
        outputs: Any = answer.outputs
        chosen = self.config.serving.log_inputs
        return Served(
            pipeline=self.name, request_id=asked.request_id, at=asked.at, version=answer.live.version,
            predicted=answer.label or "", probability=answer.probability, outputs=outputs,
            metadata=examined.facts or {}, features=features, seconds=time.monotonic() - asked.began,
            runtime=answer.live.served.runtime, source=asked.source or "",
            inputs=examined.encoded if chosen and inputs_chosen(asked.request_id, chosen.rate) else None,
            shadow=shadow, input_statistics=statistics,
        )  # fmt: skip


def examined(look: Callable[[Live], Examined], live: Live) -> Examined:
    """What `look` sees. Whatever a decoder raises is of this example: the others of its batch are answered."""
    try:
        return look(live)
    except Exception as error:
        logging.getLogger("leptonflow.serving").exception("an example could not be examined")
        return Examined(None, f"it could not be examined: {type(error).__name__}")


class _WithFeatures(NamedTuple):
    answer: Prediction
    features: NDArray[np.float32] | None
    input_statistics: dict[str, float] | None


def _predictions(live: Live, seen: list[Examined]) -> list[_WithFeatures]:
    """What a version predicts of examples that were read; an error where that is no finite number."""
    import numpy as np

    encoded = [each.encoded or b"" for each in seen]
    outputs, features = live.predict(encoded)
    statistics = live.input_statistics(encoded)
    answer, classes = live.workload.target.answer, live.served.classes
    return [
        _WithFeatures(
            Prediction(live, None, *answer(row, classes), row) if np.isfinite(row).all()
            else Prediction(live, error="the model's output is not a finite number"),
            None if features is None else features[number],
            statistics[number] if statistics else None,
        )
        for number, row in enumerate(outputs)
    ]  # fmt: skip

"""The YAML's section `serving`: how a champion is served over HTTP. It is in no version and in no run id."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from schemas.promotion import duration
from schemas.rules import MOST, Frozen
from schemas.schedule import Schedule


class LogInputs(Frozen):
    """Of which share of the requests the prediction log keeps the example too."""

    rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Canary(Frozen):
    """A candidate that its gate passed answers a share of the requests, and labels of those decide about it.

    share          of the requests, by their ids
    promote_after  so many labelled ones, and the gate decides on them
    timeout        seconds; with too few labels by then the canary is taken back
    """

    share: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)]
    promote_after: Annotated[int, Field(ge=10, le=1_000_000)]
    timeout: Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)] = 7 * 86400

    _duration = field_validator("timeout", mode="before")(duration)


class Monitor(Frozen):
    """When it is looked for drift in what is served.

    schedule  of the deployment
    after     new predictions since the last look, without which a look does nothing
    rows      of the newest predictions in a look
    retrain   whether a drift that was found asks for a retraining
    """

    schedule: Schedule = Field(default_factory=lambda: Schedule(cron="*/15 * * * *"))
    after: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    rows: Annotated[int, Field(ge=50, le=10_000)] = 1_000
    retrain: bool = True


class Serving(Frozen):
    """What one request may ask, and how many wait.

    examples  in one request
    body_mb   megabytes of one request's body
    queue     examples that wait for the model; a request beyond is answered 429
    batch     examples that the model predicts at once, at most
    seconds   from a request's first byte to its answer
    threads   of one prediction in ONNX Runtime
    log_inputs  None: the prediction log keeps no example
    monitor   None: nobody looks for drift by itself
    onnx      whether a version's package has its model for ONNX Runtime too
    shadow      candidate: the newest version that is not the champion predicts every request too, and is logged
    canary      None: who passes its gate is promoted at once
    """

    examples: Annotated[int, Field(ge=1, le=10_000)] = 64
    body_mb: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] = 16
    queue: Annotated[int, Field(ge=1, le=100_000)] = 256
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    seconds: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 10
    threads: Annotated[int, Field(ge=1, le=1024)] = 1  # a small model gains nothing by more
    log_inputs: LogInputs | None = None
    monitor: Monitor | None = None
    onnx: bool = True
    shadow: Literal["candidate"] | None = None
    canary: Canary | None = None

"""The YAML's section `serving`: how a champion is served over HTTP. It is in no version and in no run id."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.rules import Frozen


class LogInputs(Frozen):
    """Of which share of the requests the prediction log keeps the example too."""

    rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Serving(Frozen):
    """What one request may ask, and how many wait.

    examples  in one request
    body_mb   megabytes of one request's body
    queue     examples that wait for the model; a request beyond is answered 429
    batch     examples that the model predicts at once, at most
    seconds   from a request's first byte to its answer
    threads   of one prediction in ONNX Runtime
    log_inputs  None: the prediction log keeps no example
    onnx      whether a version's package has its model for ONNX Runtime too
    """

    examples: Annotated[int, Field(ge=1, le=10_000)] = 64
    body_mb: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] = 16
    queue: Annotated[int, Field(ge=1, le=100_000)] = 256
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    seconds: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 10
    threads: Annotated[int, Field(ge=1, le=1024)] = 1  # a small model gains nothing by more
    log_inputs: LogInputs | None = None
    onnx: bool = True

"""A prediction that was served, as the prediction log keeps it, and the ids of requests.

The columns of the file are those of the table `served` in `schemas.tables`. What does not belong here: writing
(leptonflow.monitoring.prediction_log).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REQUEST_ID = re.compile(r"[0-9a-f]{32}")
_TIME = 12  # hex digits: milliseconds since 1970


@dataclass(frozen=True, slots=True)
class Served:
    """One prediction. `request_id` is the server's own (`new_request_id`): of several at once each has its own.

    predicted    as the workload's `answer` says it; probability: the one given to it, 0..1, None where there is none
    outputs      (K,) of the model
    metadata     of the example, as the workload's `examine` returns it; empty where only an array was sent
    input_statistics  the workload's numbers of the example as the model takes it, by name; None where it has none
    features     (F,) of the model's penultimate layer; None where the version has none
    inputs       the example as a part holds it; None unless `serving.log_inputs` chose it
    shadow       another version answered the request; the row lies in the table `shadow`
    seconds      from the request's arrival to its prediction
    runtime      what computed it: onnxruntime or keras
    source       which interface it came by, such as predict or infer
    """

    pipeline: str
    request_id: str
    at: datetime
    version: str
    predicted: str
    probability: float | None
    outputs: NDArray[np.floating[Any]]
    metadata: Mapping[str, Any]
    features: NDArray[np.float32] | None
    seconds: float
    runtime: str
    source: str
    inputs: bytes | None = None
    shadow: bool = False
    input_statistics: Mapping[str, float] | None = None


def new_request_id(at: datetime | None = None) -> str:
    """An id that nobody can guess, 32 hex digits; its first 12 are the time, by which its file is found."""
    now = int((at or datetime.now(UTC)).timestamp() * 1000)
    return f"{now:0{_TIME}x}{secrets.token_hex(16 - _TIME // 2)}"


def requested_at(request_id: str) -> int:
    """When the request came, in milliseconds since 1970, as its id says."""
    return int(request_id[:_TIME], 16)


def date_of(milliseconds: int) -> str:
    """The date (UTC) of a time, which is the folder of the log."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")


def canary_chosen(request_id: str, share: float) -> bool:
    """Whether the canary answers this request: a share (0..1) of all, by the hash of their ids alone."""
    return int(hashlib.sha256(b"canary" + request_id.encode()).hexdigest()[:13], 16) < share * 16.0**13


def inputs_chosen(request_id: str, rate: float) -> bool:
    """Whether the inputs of this request are logged: a share `rate` (0..1) of all, by their ids alone."""
    return int(request_id[_TIME:], 16) < rate * 16.0 ** (32 - _TIME)

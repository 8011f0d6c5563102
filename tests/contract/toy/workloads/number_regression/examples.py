"""An example is a cell of numbers, such as `0.5 -1 2`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from number_sections import Input
from numpy.typing import NDArray

from leptonflow.workloads.base import Codec, Examined, Malformed
from schemas.errors import TrainingError


def examine(data: bytes, given: Input) -> Examined:
    """The numbers of a cell or a file."""
    try:
        numbers = np.array([float(each) for each in data.decode().split()], "<f4")
    except ValueError as error:
        return Examined("not-numbers", " ".join(str(error).split()))
    if len(numbers) != given.size or not np.isfinite(numbers).all():
        return Examined("not-numbers", f"{given.size} finite numbers are expected, there are {len(numbers)}")
    facts = {"largest": float(numbers.max()), "spread": float(np.ptp(numbers))}
    return Examined(None, None, sha256(numbers.tobytes()).hexdigest(), facts, numbers.tobytes())


def label_fault(label: str) -> str | None:
    """Why a label is no number."""
    try:
        return None if math.isfinite(float(label)) else f"the label {label!r} is not finite"
    except ValueError:
        return f"the label {label!r} is not a number"


def _arrow(given: Input) -> Any:
    import pyarrow as pa

    return pa.binary(4 * given.size)


def _stack(encoded: Sequence[bytes], given: Input) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(encoded), "<f4").reshape(len(encoded), given.size)


CODEC = Codec(
    column="numbers",
    arrow=_arrow,
    read=lambda column, given: _stack(column.to_pylist(), given),
    empty=lambda count, given: np.empty((count, given.size), np.float32),
    stack=_stack,
    raw=lambda rows: [row.astype("<f4").tobytes() for row in rows],
    bytes=lambda given: 4 * given.size,
)


def encode(rows: NDArray[Any], vocabulary: str | None, given: Input) -> NDArray[np.float32]:
    """What the model takes."""
    if rows.shape[1:] != (given.size,) or rows.dtype != np.float32:
        raise TrainingError("the model does not take these examples", received=f"{rows.shape} of {rows.dtype}")
    return rows


def request(body: bytes, given: Input) -> NDArray[np.float32]:
    """A served body: numbers with spaces between them."""
    found = examine(body, given)
    if found.encoded is None:
        raise TrainingError("the body holds no example", received=found.reason or "nothing")
    return np.frombuffer(found.encoded, "<f4")


def malformed(given: Input) -> Malformed:
    """One number too many, and words."""
    return Malformed({"a number too many": np.zeros((1, given.size + 1), np.float32)}, {"words": b"one two three"})

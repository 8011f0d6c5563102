"""The metrics of one number for each example, and what a file of predictions holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from number_sections import NAMES
from numpy.typing import NDArray

from leptonflow.workloads.base import Metric, Metrics, Target, score
from leptonflow.workloads.number_regression.examples import label_fault

Floats = NDArray[np.float64]
WORDS = {"mean": "the mean of the training examples"}


class NumberScores:
    """The mean absolute error and the root of the mean squared one, of N numbers."""

    metrics = tuple(Metric(name, False) for name in NAMES)
    correct = None
    confidence = None

    def __init__(self, truth: Floats, outputs: Floats, classes: Sequence[str]) -> None:
        self.errors = outputs[:, 0] - truth

    def __len__(self) -> int:
        return len(self.errors)

    def of(self, chosen: NDArray[np.int64]) -> NumberScores:
        return NumberScores(-self.errors[chosen], np.zeros((len(chosen), 1)), ())

    def value(self, metric: Metric, weights: NDArray[np.int64]) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            if metric.name == NAMES[0]:
                return np.asarray(weights @ np.abs(self.errors) / weights.sum(axis=1))
            return np.asarray(np.sqrt(weights @ self.errors**2 / weights.sum(axis=1)))

    def proportion(self, metric: Metric) -> None:
        return None

    def alike(self, metric: Metric) -> NDArray[np.int64]:
        return np.arange(len(self), dtype=np.int64)

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        return ()


def _columns(truth: Floats, outputs: Floats, classes: Sequence[str]) -> dict[str, Any]:
    import pyarrow as pa

    return {
        "label": pa.array([str(value) for value in truth], pa.string()),
        "predicted": pa.array([f"{value:.6g}" for value in outputs[:, 0]], pa.string()),
        "number": pa.array(outputs[:, 0], pa.float64()),
        "error": pa.array(outputs[:, 0] - truth, pa.float64()),
    }


def _restore(table: Any, classes: Sequence[str]) -> tuple[Floats, Floats]:
    return _read(table["label"].to_pylist(), classes), np.asarray(table["number"], np.float64)[:, None]


def _read(labels: Sequence[str], classes: Sequence[str]) -> Floats:
    return np.array([float(label) for label in labels], np.float64)


TARGET = Target(
    classes=False,
    fault=label_fault,
    read=_read,
    fit=lambda truth, classes: truth[:, None].astype(np.float32),
    curve=lambda truth, outputs: {"loss": float(np.mean((outputs[:, 0] - truth) ** 2))},
    scores=NumberScores,
    columns=_columns,
    stored=("label", "number"),
    restore=_restore,
    answer=lambda output, classes: (f"{output[0]:.6g}", None),
)


def baselines(
    train: Any, truth: Floats, holdout: Any, holdout_truth: Floats, classes: Sequence[str], seed: int
) -> dict[str, Metrics]:
    """Always the mean of the training examples."""
    return {"mean": score(NumberScores(holdout_truth, np.full((len(holdout_truth), 1), truth.mean()), classes))}

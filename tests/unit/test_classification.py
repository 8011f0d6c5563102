"""The metrics that every classification shares: scikit-learn's, for any weights of the examples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

from leptonflow.workloads import classification
from leptonflow.workloads.base import Metric
from leptonflow.workloads.classification import ClassScores

CLASSES = ("a", "b", "c", "d")


def predictions(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Class d has no example and c is never predicted."""
    random = np.random.default_rng(seed)
    rows = random.dirichlet([1, 1, 1, 1], n)
    rows[:, 2] *= 0.01
    return random.integers(0, 3, n), rows


def by_scikit_learn(labels: np.ndarray, rows: np.ndarray) -> dict[str, float | None]:
    """The same metrics as scikit-learn has them; null for a class without examples."""
    rows = rows / rows.sum(axis=1, keepdims=True)
    predicted, names = rows.argmax(axis=1), ("precision", "recall", "f1")
    *values, support = precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=0)
    found = {"accuracy": accuracy_score(labels, predicted)}
    found |= {name: each[support > 0].mean() for name, each in zip(names, values, strict=True)}
    found["log_loss"] = log_loss(labels, rows, labels=range(4))
    for name, each in zip(names, values, strict=True):
        found |= {f"{name}[{label}]": each[at] if support[at] else None for at, label in enumerate(CLASSES)}
    return found


@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_equal_to_scikit_learn(n: int) -> None:
    labels, rows = predictions(n)
    found, expected = classification.score(labels, rows, CLASSES), by_scikit_learn(labels, rows)
    assert list(found) == list(expected)
    assert [name for name in found if found[name] is None] == [name for name in found if expected[name] is None]
    assert found == pytest.approx(expected, abs=1e-12)


def test_weights_are_how_often_an_example_counts() -> None:
    labels, rows = predictions(60)
    weights = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=50)
    scores = ClassScores(labels, rows, CLASSES)
    found = {metric: scores.value(metric, weights) for metric in classification.metrics(CLASSES)}
    for number, each in enumerate(weights):
        expected = by_scikit_learn(np.repeat(labels, each), np.repeat(rows, each, axis=0))
        for metric, values in found.items():
            assert values.shape == (50,) and values.dtype == np.float64
            value = expected[metric.key]
            assert values[number] == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True), metric


def test_a_class_that_no_resample_drew_has_no_value() -> None:
    scores = ClassScores(np.array([0, 0, 1]), np.eye(2)[[0, 1, 1]], ("a", "b"))
    weights = np.array([[1, 1, 1], [2, 1, 0], [0, 0, 3], [0, 0, 0]])
    assert scores.value(Metric("recall", True, "b"), weights).tolist()[:3] == pytest.approx([1, np.nan, 1], nan_ok=True)
    assert scores.value(Metric("recall", True), weights) == pytest.approx([0.75, 2 / 3, 1, np.nan], nan_ok=True)
    assert np.isnan(scores.value(Metric("accuracy", True), weights)[3])
    assert scores.correct.tolist() == [True, False, True]


@pytest.mark.parametrize("bad", [np.nan, np.inf, None])
def test_what_is_not_finite_has_no_metrics(bad: float | None) -> None:
    labels, rows = predictions(10)
    rows[4] = 0 if bad is None else bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification.score(labels, rows, CLASSES)
        scores = ClassScores(labels, rows, CLASSES)
    assert set(found.values()) == {None} and len(found) == 5 + 12
    assert not scores.correct[4]
    assert np.isnan(scores.value(Metric("f1", True), np.ones((3, 10), np.int64))).all()


def test_without_examples_nothing_has_a_value() -> None:
    found = classification.score(np.zeros(0, np.int64), np.zeros((0, 2)), ("a", "b"))
    assert set(found.values()) == {None}


def test_what_does_not_exist_is_refused() -> None:
    scores = ClassScores(np.array([0, 1]), np.eye(2), ("a", "b"))
    once = np.ones((1, 2), np.int64)
    with pytest.raises(ValueError, match=r"choose from accuracy, .*recall\[b\]"):
        scores.value(Metric("recall", True, "c"), once)
    with pytest.raises(ValueError, match="no metric is named 'auc'"):
        scores.value(Metric("auc", True), once)
    with pytest.raises(ValueError, match=r"expected \(2, 3\)"):
        ClassScores(np.array([0, 1]), np.eye(2), ("a", "b", "c"))


def test_targets_are_one_hot() -> None:
    rows = classification.targets(np.array([1, 0]), 3)
    assert rows.dtype == np.float32 and rows.tolist() == [[0, 1, 0], [1, 0, 0]]

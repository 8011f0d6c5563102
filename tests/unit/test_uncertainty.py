"""Intervals of every metric: held against the gate's own bootstrap, and against leaving each example out by hand."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from leptonflow.evaluation import metric_intervals
from leptonflow.gate.rules import scores
from leptonflow.statistics import intervals, paired
from leptonflow.workloads.base import named
from leptonflow.workloads.classification import ClassScores

CLASSES = ("cat", "dog", "owl", "elk")


def made(n: int, k: int = 4, seed: int = 3, only: int | None = None) -> tuple[Any, Any, Any]:
    """(labels, candidate, champion) of N examples and K classes; the labels below `only` where it is given."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, only or k, n)

    def model(strength: float) -> Any:
        rows = random.normal(size=(n, k))
        rows[np.arange(n), labels] += strength
        rows = np.exp(2 * rows)
        return rows / rows.sum(axis=1, keepdims=True)

    return labels, model(2.0), model(1.6)


def between(labels: Any, mine: Any, its: Any = None, confidence: float = 0.95) -> dict[str, Any]:
    classes = [str(number) for number in range(mine.shape[1])]
    pair = [None if rows is None else ClassScores(labels, rows, classes) for rows in (mine, its)]
    assert pair[0] is not None
    return metric_intervals.between(pair[0], pair[1], confidence)


def statistic(metric: str, labels: Any, rows: Any) -> Any:
    found = ClassScores(labels, rows, CLASSES)
    return scores.statistic(named(found, metric), found)


@pytest.mark.parametrize("metric", ["precision", "recall", "f1", "log_loss"])
def test_they_agree_with_the_bootstrap_that_the_gate_uses(metric: str) -> None:
    labels, mine, its = made(300)
    found = between(labels, mine, its)[metric]
    one, other = (statistic(metric, labels, rows) for rows in (mine, its))
    alone = intervals.bootstrap(one, 300, 0.95, seed=5, resamples=1500)
    pair = paired.bootstrap_difference(lambda i: one(i) - other(i), 300, 0.0, 0.975, seed=5, resamples=1500)
    assert found.candidate == pytest.approx((alone.low, alone.high), abs=0.1 * (alone.high - alone.low))
    assert found.difference == pytest.approx((pair.low, pair.high), abs=0.1 * (pair.high - pair.low))


def test_accuracy_has_the_intervals_of_wilson_and_tango() -> None:
    labels, mine, its = made(250)
    found = between(labels, mine, its)["accuracy"]
    right, theirs = mine.argmax(axis=1) == labels, its.argmax(axis=1) == labels
    wilson = intervals.wilson(int(right.sum()), 250, 0.95)
    tango = paired.non_inferiority(int((right & ~theirs).sum()), int((theirs & ~right).sum()), 250, 0.0, 0.975)
    assert found.candidate == (wilson.low, wilson.high) and found.difference == (tango.low, tango.high)


@pytest.mark.parametrize("metric", ["accuracy", "precision", "recall", "f1", "log_loss"])
@pytest.mark.parametrize("only", [4, 3])
def test_the_jackknife_is_that_of_leaving_each_example_out(metric: str, only: int) -> None:
    """By kinds of examples; a class that has one example alone leaves the mean with it."""
    labels, mine, _ = made(60, only=only)
    labels[labels == 2] = 1
    labels[0] = 2
    found = ClassScores(labels, mine, CLASSES)
    kind = named(found, metric)
    _, first, which, counts = np.unique(found.alike(kind), return_index=True, return_inverse=True, return_counts=True)
    few = found.of(first)
    left, times = metric_intervals._without(
        counts, lambda weights: few.value(kind, weights)[:, None], 7, np.random.default_rng(0)
    )
    one, everything = statistic(metric, labels, mine), np.arange(60)
    assert left[which, 0] == pytest.approx([one(np.delete(everything, i)) for i in everything])
    assert times.tolist() == counts.tolist()


def test_what_never_varies_has_no_interval_and_a_proportion_has_one() -> None:
    labels = np.array([0, 1, 1, 0] * 5)
    rows = np.where(labels[:, None] == np.arange(2), 0.9, 0.1)
    found = between(labels, rows, rows.copy())
    assert found["f1"] == metric_intervals.Between(None, None, None)
    accuracy = found["accuracy"]
    assert accuracy.candidate and accuracy.candidate[0] < 0.9 and accuracy.difference


def test_without_a_champion_and_without_numbers() -> None:
    labels, mine, _ = made(50)
    alone = between(labels, mine)
    assert all(each.candidate and each.champion is None and each.difference is None for each in alone.values())
    mine[3] = np.nan
    assert between(labels, mine) == {}, "no metric has a value where a probability is no number"
    assert between(labels[:0], mine[:0]) == {}


def test_the_same_predictions_have_the_same_intervals() -> None:
    labels, mine, its = made(120)
    assert between(labels, mine, its) == between(labels, mine, its)


@pytest.mark.slow
def test_the_cost_is_bounded_in_numbers_drawn() -> None:
    """A large holdout with as many cells as there can be: some seconds of this process's own time, not minutes."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 300, 30_000)
    mine, its = (np.eye(300)[random.integers(0, 300, 30_000)] * 0.9 + 1e-4 for _ in range(2))
    began = time.process_time()
    found = between(labels, mine, its)
    assert time.process_time() - began < 20
    assert found["f1"].difference

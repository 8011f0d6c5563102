"""Intervals of every metric: held against the gate's own bootstrap, and against leaving each example out by hand."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from leptonflow.evaluation import metric_intervals
from leptonflow.gate.rules import scores
from leptonflow.statistics import intervals, paired

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


@pytest.mark.parametrize("metric", ["precision", "recall", "f1", "log_loss"])
def test_they_agree_with_the_bootstrap_that_the_gate_uses(metric: str) -> None:
    labels, mine, its = made(300)
    found = metric_intervals.between(labels, mine, its, 0.95)[metric]
    one, other = (scores.statistic(metric, labels, rows, CLASSES) for rows in (mine, its))
    alone = intervals.bootstrap(one, 300, 0.95, seed=5, resamples=1500)
    pair = paired.bootstrap_difference(lambda i: one(i) - other(i), 300, 0.0, 0.975, seed=5, resamples=1500)
    assert found.candidate == pytest.approx((alone.low, alone.high), abs=0.1 * (alone.high - alone.low))
    assert found.difference == pytest.approx((pair.low, pair.high), abs=0.1 * (pair.high - pair.low))


def test_accuracy_has_the_intervals_of_wilson_and_tango() -> None:
    labels, mine, its = made(250)
    found = metric_intervals.between(labels, mine, its, 0.95)["accuracy"]
    right, theirs = mine.argmax(axis=1) == labels, its.argmax(axis=1) == labels
    wilson = intervals.wilson(int(right.sum()), 250, 0.95)
    tango = paired.non_inferiority(int((right & ~theirs).sum()), int((theirs & ~right).sum()), 250, 0.0, 0.975)
    assert found.candidate == (wilson.low, wilson.high) and found.difference == (tango.low, tango.high)


@pytest.mark.parametrize("only", [4, 3])
def test_the_jackknife_is_that_of_leaving_each_example_out(only: int) -> None:
    """In the table of counts; a class that has one example alone leaves the mean with it."""
    labels, mine, _ = made(60, only=only)
    labels[labels == 2] = 1
    labels[0] = 2
    said = mine.argmax(axis=1)
    cells, which, counts = np.unique(np.stack([labels, said], axis=1), axis=0, return_inverse=True, return_counts=True)
    left = metric_intervals._without_one(counts, cells[:, 0], cells[:, 1], 4)
    everything = np.arange(60)
    for column, metric in enumerate(metric_intervals.MACRO):
        one = scores.statistic(metric, labels, mine, CLASSES)
        by_hand = [one(np.delete(everything, i)) for i in everything]
        assert left[which.ravel(), column] == pytest.approx(by_hand)


def test_the_values_in_the_table_of_counts_are_the_metrics() -> None:
    labels, mine, _ = made(80, only=3)
    cells, counts = np.unique(np.stack([labels, mine.argmax(axis=1)], axis=1), axis=0, return_counts=True)
    found = metric_intervals._scores(*metric_intervals._totals(counts[None, :], cells[:, 0], cells[:, 1], 4))[0]
    one = [scores.statistic(metric, labels, mine, CLASSES)(np.arange(80)) for metric in metric_intervals.MACRO]
    assert found == pytest.approx(one)


def test_what_never_varies_has_no_interval_and_a_proportion_has_one() -> None:
    labels = np.array([0, 1, 1, 0] * 5)
    rows = np.where(labels[:, None] == np.arange(2), 0.9, 0.1)
    found = metric_intervals.between(labels, rows, rows.copy(), 0.95)
    assert found["f1"] == metric_intervals.Between(None, None, None)
    accuracy = found["accuracy"]
    assert accuracy.candidate and accuracy.candidate[0] < 0.9 and accuracy.difference


def test_without_a_champion_and_without_numbers() -> None:
    labels, mine, _ = made(50)
    alone = metric_intervals.between(labels, mine, None, 0.95)
    assert all(each.candidate and each.champion is None and each.difference is None for each in alone.values())
    mine[3] = np.nan
    assert "log_loss" not in metric_intervals.between(labels, mine, None, 0.95)
    assert metric_intervals.between(labels[:0], mine[:0], None, 0.95) == {}


def test_the_same_predictions_have_the_same_intervals() -> None:
    labels, mine, its = made(120)
    assert metric_intervals.between(labels, mine, its, 0.95) == metric_intervals.between(labels, mine, its, 0.95)


def test_the_cost_is_bounded_in_numbers_drawn() -> None:
    """A large holdout with as many cells as there can be: some seconds of this process's own time, not minutes."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 300, 30_000)
    mine, its = (np.eye(300)[random.integers(0, 300, 30_000)] * 0.9 + 1e-4 for _ in range(2))
    began = time.process_time()
    found = metric_intervals.between(labels, mine, its, 0.95)
    assert time.process_time() - began < 20
    assert found["f1"].difference

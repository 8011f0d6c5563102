"""Rules on the candidate alone: intervals, calibration, baselines, overfitting, latency and size; and looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leptonflow.gate.rules import scores
from leptonflow.statistics import intervals
from leptonflow.statistics.calibration import expected_error
from leptonflow.workloads import catalog
from leptonflow.workloads.base import named
from leptonflow.workloads.classification import ClassScores
from schemas.config import Pipeline
from schemas.records import RuleResult
from tests.verdicts import decide, fold_scores, measured, pipeline, rows

N = 300
LABELS = np.arange(N) % 2
RIGHT = np.arange(N) % 10 > 0  # 270 of 300: every wrong one is a cat


def weighed(rule: dict[str, Any], sure: float = 0.9, **known: Any) -> RuleResult:
    return decide(pipeline(rule), **measured(LABELS, rows(LABELS, RIGHT, sure), **known)).rules[0]


# --- a metric over any choice of examples


@pytest.mark.parametrize("seed", range(5))
def test_fast_metrics_are_the_workloads(seed: int) -> None:
    random = np.random.default_rng(seed)
    classes = ("a", "b", "c", "d")
    labels = random.integers(0, 4 - seed % 2, 80)  # sometimes a class without examples
    found = random.random((80, 4)) ** 3
    found[np.arange(80), labels] += random.random(80)
    found /= found.sum(axis=1, keepdims=True)
    chosen = random.integers(0, 80, 60)
    expected = catalog.load("image_classification").score(labels[chosen], found[chosen], classes)
    of = ClassScores(labels, found, classes)
    for metric, value in expected.items():
        mine = scores.statistic(named(of, metric), of)(chosen)
        assert np.isnan(mine) if value is None else mine == pytest.approx(value, abs=1e-12), metric


# --- bounds with a confidence


def test_at_least_with_confidence_is_decided_by_the_lower_end_of_wilsons_interval() -> None:
    expected = intervals.wilson(270, 300, 0.95)
    for value, passed in ((0.86, True), (0.88, False)):
        rule = weighed({"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": value, "confidence": 0.95})
        assert (rule.value, rule.passed, rule.bound) == (0.9, passed, value)
        assert (rule.low, rule.high, rule.n) == (expected.low, expected.high, 300)
        assert (rule.confidence, rule.method) == (0.95, "wilson")
        assert f"lower end of its 0.95 interval is {expected.low:.4f}" in rule.sentence


def test_of_a_class_only_its_own_examples_count() -> None:
    for metric, right, n in (("recall[cat]", 120, 150), ("precision[dog]", 150, 180)):
        rule = weighed({"rule": "at_least", "metric": metric, "on": "holdout", "value": 0.5, "confidence": 0.9})
        expected = intervals.wilson(right, n, 0.9)
        assert (rule.value, rule.low, rule.n) == (pytest.approx(right / n), expected.low, n)


def test_a_class_that_is_never_predicted_has_no_precision_that_passes() -> None:
    """With a confidence as without one: no example was called cat, and that is not `cannot be computed`."""
    found = measured(LABELS, rows(LABELS, LABELS == 1))
    asked = {"rule": "at_least", "metric": "precision[cat]", "on": "holdout", "value": 0.5}
    for rule in (asked, {**asked, "confidence": 0.95}):
        row = decide(pipeline(rule), **found).rules[0]
        assert (row.value, row.passed) == (0.0, False)
    assert (row.low, row.high, row.n) == (0.0, 1.0, 0)


def test_at_most_with_confidence_is_decided_by_the_upper_end_of_a_bootstrap() -> None:
    asked = {"rule": "at_most", "metric": "log_loss", "on": "holdout", "confidence": 0.95}
    rule = weighed({**asked, "value": 0.34})
    assert rule.value is not None and rule.high is not None and rule.low is not None
    assert rule.value < 0.34 < rule.high and rule.passed is False and rule.method == "bca bootstrap"
    assert weighed({**asked, "value": 0.5}).passed is True
    assert weighed({**asked, "value": 0.34}) == rule, "the same resamples each time"


def test_over_the_folds_the_interval_is_of_the_out_of_fold_predictions() -> None:
    rule = {"rule": "at_least", "metric": "accuracy", "value": 0.8, "confidence": 0.95}
    found = weighed(rule, oof=(LABELS, rows(LABELS, LABELS >= 0)))
    assert (found.value, found.n, found.passed) == (1.0, 300, True)
    assert "300 out-of-fold predictions" in found.sentence
    assert weighed(rule).passed is None, "without them it is not guessed"


# --- calibration


def test_calibration_is_the_expected_error_with_its_interval() -> None:
    rule = weighed({"rule": "calibration", "value": 0.05})
    assert (rule.passed, rule.metric) == (True, "expected_calibration_error")
    assert rule.value == pytest.approx(0.0, abs=1e-9), "0.9 sure and 90% right"
    assert rule.high is not None and rule.high > 0.01 and rule.confidence == 0.95 and rule.n == N
    sure = weighed({"rule": "calibration", "value": 0.05}, sure=0.99)
    assert (sure.value, sure.passed) == (pytest.approx(expected_error(np.full(N, 0.99), RIGHT)), False)
    between = {"rule": "calibration", "value": 0.1}
    assert weighed(between, sure=0.99).passed is True
    assert weighed({**between, "confidence": 0.95}, sure=0.99).passed is False, "the upper end is above it"


# --- baseline, overfit, latency, size

WORDS = {"majority": "always the largest class", "logistic": "a logistic regression on small images"}
BASELINES = {"majority": {"accuracy": 0.5, "log_loss": 0.7}, "logistic": {"accuracy": 0.89, "log_loss": 0.4}}


@pytest.mark.parametrize(
    ("metric", "margin", "passed"),
    [("accuracy", 0.0, True), ("accuracy", 0.01, False), ("accuracy", 0.02, False), ("log_loss", 0.0, True),
     ("log_loss", 0.1, False)],
)  # fmt: skip
def test_baseline_must_be_beaten_by_more_than_the_margin(metric: str, margin: float, passed: bool) -> None:
    rule = weighed({"rule": "baseline", "metric": metric, "margin": margin}, baselines=BASELINES, baseline_words=WORDS)
    best = BASELINES["logistic"][metric]
    bound = best - margin if metric == "log_loss" else best + margin
    assert (rule.passed, rule.bound) == (passed, pytest.approx(bound))
    assert "logistic regression" in rule.sentence and "largest class" in rule.sentence


@pytest.mark.parametrize(("metric", "margin", "beyond"), [
    ("accuracy", 0.11, True), ("accuracy", 0.1, False), ("log_loss", 0.4, True), ("log_loss", 0.3, False),
])  # fmt: skip
def test_a_bound_that_no_candidate_can_have_is_said_to_be_one(metric: str, margin: float, beyond: bool) -> None:
    rule = weighed({"rule": "baseline", "metric": metric, "margin": margin}, baselines=BASELINES, baseline_words=WORDS)
    assert rule.passed is False and ("no candidate can reach: lower the rule's margin" in rule.sentence) is beyond


def test_a_baseline_without_a_mistake_tells_nothing_of_a_candidate_without_one() -> None:
    perfect = {"logistic": {"accuracy": 1.0}}
    rule = {"rule": "baseline", "metric": "accuracy"}
    assert weighed(rule, baselines=perfect).passed is False
    mine = measured(LABELS, rows(LABELS, LABELS >= 0), baselines=perfect)
    found = decide(pipeline(rule), **mine).rules[0]
    assert found.passed is None and "cannot separate them" in found.sentence
    assert decide(pipeline({**rule, "margin": 0.1}), **mine).rules[0].passed is False


def test_overfit_is_training_against_holdout() -> None:
    rule = {"rule": "overfit", "metric": "accuracy", "value": 0.05}
    assert weighed(rule, training={"accuracy": 0.94}).passed is True
    found = weighed(rule, training={"accuracy": 1.0})
    assert (found.value, found.bound, found.passed) == (pytest.approx(0.1), 0.05, False)
    loss = weighed({**rule, "metric": "log_loss"}, training={"log_loss": 0.1})
    assert loss.value is not None and loss.value > 0 and loss.passed is False
    assert weighed(rule).passed is None
    assert weighed(rule, training={"accuracy": float("nan")}).passed is False
    broken = weighed(rule, training={"accuracy": None, "log_loss": None})  # as a workload scores NaN
    assert broken.passed is False and "not a finite number" in broken.sentence
    classless = {"rule": "overfit", "metric": "recall[cat]", "value": 0.05}
    assert weighed(classless, training={"accuracy": 0.9, "recall[cat]": None}).passed is None


def test_latency_and_size_hold_their_budgets() -> None:
    for rule, known in (("latency", {"latency_ms": 12.5}), ("size", {"package_bytes": 12_500_000})):
        tight, wide = ({"rule": rule, "value": value} for value in (12.0, 12.5))
        assert [weighed(r, **known).passed for r in (tight, wide)] == [False, True]
        assert weighed(tight, **known).value == 12.5
        assert weighed(tight).passed is None and "was not measured" in weighed(tight).sentence


def test_what_cannot_be_weighed_alone_promotes_nothing() -> None:
    config = pipeline({"rule": "overfit", "metric": "accuracy", "value": 1.0}, {"rule": "latency", "value": 1.0})
    assert decide(config).verdict == "refused"


@pytest.mark.parametrize("rule", [
    {"rule": "calibration", "value": 1.0},
    {"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.0, "confidence": 0.9},
    {"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.0},
    {"rule": "at_most", "metric": "log_loss", "on": "holdout", "value": 100.0},
    {"rule": "baseline", "metric": "accuracy"},
    {"rule": "overfit", "metric": "accuracy", "value": 1.0},
])  # fmt: skip
@pytest.mark.parametrize("scored", [True, False], ids=["the scores are numbers", "as the workload scores them"])
def test_probabilities_that_are_no_numbers_fail_by_name(rule: dict[str, Any], scored: bool) -> None:
    bad = rows(LABELS, RIGHT)
    bad[7] = np.nan
    found = measured(LABELS, rows(LABELS, RIGHT) if scored else bad, baselines=BASELINES, training={"accuracy": 0.9})
    found["evidence"] = replace(found["evidence"], candidate=bad)
    row = decide(pipeline(rule), **found).rules[0]
    assert (row.value, row.passed) == (None, False) and "not a finite number" in row.sentence


@pytest.mark.parametrize("rule", [
    {"rule": "calibration", "value": 1.0},
    {"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.0, "confidence": 0.9},
    {"rule": "baseline", "metric": "accuracy"},
])  # fmt: skip
def test_an_empty_holdout_passes_nothing(rule: dict[str, Any]) -> None:
    none = np.zeros(0, np.int64)
    found = measured(none, np.zeros((0, 2)), baselines=BASELINES)
    verdict = decide(pipeline(rule), **found)
    assert (verdict.rules[0].passed, verdict.verdict) == (None, "refused")


# --- looks


def looking(config: Pipeline, looks: int) -> Any:
    return decide(config, cv=fold_scores(accuracy=(0.95, 0.0)), **measured(LABELS, rows(LABELS, RIGHT), looks=looks))


def test_looks_are_counted_and_warned_of_past_the_yamls_number() -> None:
    config = pipeline({"rule": "at_least", "metric": "accuracy", "value": 0.9})
    few, many = looking(config, 50), looking(config, 51)
    assert (few.looks, few.warnings, many.looks, len(many.warnings)) == (50, (), 51, 1)
    assert "51 earlier verdicts evaluated on this holdout, more than 50" in many.warnings[0]
    assert many.warnings[0] in many.sentence and many.verdict == few.verdict == "promoted"
    sooner = config.model_copy(update={"looks": config.looks.model_copy(update={"warn": 3})})
    assert len(looking(sooner, 4).warnings) == 1

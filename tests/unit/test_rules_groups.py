"""Gate, explanation and report where examples come in groups: the groups are resampled, and every sentence says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leptonflow.evaluation import metric_intervals
from leptonflow.gate.evidence import together
from leptonflow.gate.explanation import paragraph, would_change
from leptonflow.statistics import paired
from leptonflow.workloads import classification_errors
from leptonflow.workloads.classification import ClassScores
from schemas.records import RuleResult, Verdict
from tests.verdicts import CLASSES, SURE, champion, decide, measured, only, pipeline, rows

N = 400
LABELS = np.arange(N) % 2
GROUPS = np.arange(N) // 20  # 20 groups of 20
SAID = "by the cluster bootstrap over 20 groups: examples of one group are not independent"
NONE: Any = None


def found(mine: Any, theirs: Any = NONE, groups: Any = GROUPS, **known: Any) -> dict[str, Any]:
    other = None if theirs is None else rows(LABELS, theirs, SURE)
    return measured(LABELS, rows(LABELS, mine), other, groups=groups, **known)


def against(mine: Any, theirs: Any, groups: Any = GROUPS, **rule: Any) -> tuple[RuleResult, Verdict]:
    asked = {"rule": "against_champion", "metric": "accuracy", "margin": 0.05, **rule}
    verdict = decide(pipeline(asked), champion=champion(), against=1, **found(mine, theirs, groups))
    return only(verdict, "against_champion"), verdict


RIGHT = np.ones(N, bool)
ONE_GROUP_LOST = GROUPS != 3  # 20 examples, all of one group
SPREAD = np.arange(N) % 20 != 7  # 20 examples, one of each group


def test_a_loss_that_one_group_makes_is_less_certain_than_one_that_all_share() -> None:
    alone, _ = against(ONE_GROUP_LOST, RIGHT, margin=0.1)
    spread, verdict = against(SPREAD, RIGHT, margin=0.1)
    independent, plain = against(ONE_GROUP_LOST, RIGHT, None, margin=0.1)
    assert (alone.passed, spread.passed, independent.passed) == (False, True, True)
    assert alone.value == spread.value == independent.value == -0.05
    assert alone.low is not None and spread.low is not None and alone.low < -0.1 < spread.low
    assert (alone.n, alone.method) == (N, "paired cluster bca bootstrap")
    assert SAID in alone.sentence and SAID.partition(":")[0] in spread.sentence
    # Nothing varies over the groups of `spread`: what is shown is what independent examples show, and so it is said.
    assert "the test for independent examples" in spread.sentence and "decides here" not in alone.sentence
    exact = paired.non_inferiority(0, 20, N, 0.1, 0.95)
    assert spread.low == exact.low and f"at most {-exact.low:#.4g} worse" in spread.sentence
    assert "group" not in independent.sentence and independent.method == "tango score"
    assert (verdict.groups, plain.groups) == (20, None)
    assert "groups" not in plain.model_dump() and verdict.model_dump()["groups"] == 20


@pytest.mark.parametrize("metric", ["f1", "log_loss", "recall[cat]"])
def test_another_metric_is_resampled_by_group_too(metric: str) -> None:
    alone, _ = against(ONE_GROUP_LOST, RIGHT, metric=metric, margin=0.2)
    spread, _ = against(SPREAD, RIGHT, metric=metric, margin=0.2)
    plain, _ = against(ONE_GROUP_LOST, RIGHT, None, metric=metric, margin=0.2)
    assert alone.value == pytest.approx(plain.value) and plain.method == "paired bca bootstrap"
    assert alone.low is not None and spread.low is not None and alone.low < spread.low
    assert SAID in alone.sentence and alone.method == "paired cluster bca bootstrap" and alone.n == N


def test_too_few_groups_say_that_no_candidate_can_pass() -> None:
    few, verdict = against(RIGHT, RIGHT, np.arange(N) // 200)
    assert few.passed is False
    assert "with 2 groups in the holdout no candidate can pass; from 4 on one can" in few.sentence
    assert (few.low, few.high) == (-1.0, 1.0) and "at most 1.000 worse" in few.sentence  # and not what pairs alone show
    (change,) = [each for each in would_change(verdict, {"accuracy": 1.0}) if each.rule == "against_champion"]
    assert (change.needed, change.by, change.reachable) == (None, None, False)
    assert change.sentence.startswith("more groups") and "no candidate can have more than 0" in change.sentence
    assert verdict.warnings and "2 groups" in verdict.warnings[0]


@pytest.mark.parametrize("metric", ["accuracy", "recall[dog]", "precision[cat]", "f1", "log_loss"])
def test_the_interval_of_a_metric_is_wider(metric: str) -> None:
    rule = {"rule": "at_least" if metric != "log_loss" else "at_most", "metric": metric, "on": "holdout"}
    asked = pipeline({**rule, "value": 0.5, "confidence": 0.95})
    grouped, plain = (decide(asked, **found(ONE_GROUP_LOST, groups=g)).rules[0] for g in (GROUPS, None))
    assert grouped.low is not None and plain.low is not None and grouped.high is not None and plain.high is not None
    assert grouped.high - grouped.low > 1.3 * (plain.high - plain.low)
    assert grouped.method == "cluster bca bootstrap" and SAID in grouped.sentence and SAID not in plain.sentence
    assert grouped.n == plain.n and grouped.value == plain.value


def test_the_folds_have_groups_of_their_own() -> None:
    asked = pipeline({"rule": "at_least", "metric": "accuracy", "on": "cv", "value": 0.5, "confidence": 0.9})
    oof = (LABELS, rows(LABELS, ONE_GROUP_LOST))
    row = decide(asked, **found(RIGHT, oof=oof, oof_groups=GROUPS // 2)).rules[0]
    assert "over 10 groups" in row.sentence and row.method == "cluster bca bootstrap"


def test_calibration_is_resampled_by_group() -> None:
    asked = pipeline({"rule": "calibration", "value": 0.5, "confidence": 0.95})
    grouped, plain = (decide(asked, **found(ONE_GROUP_LOST, groups=g)).rules[0] for g in (GROUPS, None))
    assert grouped.high is not None and plain.high is not None and grouped.high > plain.high
    assert grouped.method == "cluster percentile bootstrap" and SAID in grouped.sentence


def test_slices_are_tested_by_group_and_need_two() -> None:
    rule = {"rule": "slices", "by": ["batch"], "margin": 0.0, "minimum": 10}
    batches = tuple("one" if g == 3 else "few" if g in (4, 5) else "many" for g in GROUPS)
    lost = ~np.isin(GROUPS, (3, 4, 5)) & (np.arange(N) % 4 != 0)
    given = found(lost, RIGHT, batches=batches, newest="one")
    verdict = decide(pipeline(rule), champion=champion(), against=1, **given)
    by = {str(row.slice): row for row in verdict.rules if row.rule == "slices"}
    assert (by["batch=many"].passed, by["batch=few"].passed, by["batch=one"].passed) == (False, True, None)
    assert "(340 examples in 17 groups)" in by["batch=many"].sentence
    assert by["batch=one"].sentence.endswith("20 examples in 1 group, at least 10 in 2 groups are needed")


def test_the_explanation_names_the_groups() -> None:
    _, verdict = against(ONE_GROUP_LOST, RIGHT)
    told = paragraph("p", verdict)
    assert "The examples of the holdout are 20 groups, which every test resamples" in told
    assert "paired cluster bca bootstrap" in told
    (change,) = [each for each in would_change(verdict) if each.rule == "against_champion"]
    assert change.needed_n is None or "examples in more groups" in change.sentence


def test_the_reports_intervals_are_by_group() -> None:
    mine, its = (ClassScores(LABELS, rows(LABELS, right), CLASSES) for right in (ONE_GROUP_LOST, RIGHT))
    plain = metric_intervals.between(mine, its, 0.95)
    grouped = metric_intervals.between(mine, its, 0.95, GROUPS)
    assert plain.keys() == grouped.keys()
    for name, each in grouped.items():
        for one, other in ((each.candidate, plain[name].candidate), (each.difference, plain[name].difference)):
            assert one is not None and other is not None and one[1] - one[0] > other[1] - other[0], name
    assert grouped["accuracy"].champion == plain["accuracy"].champion  # all right: Wilson's, which has a width


def test_the_reports_shares_are_by_group() -> None:
    ids = [f"{n:03}" for n in range(N)]
    given = (ids, LABELS, rows(LABELS, ONE_GROUP_LOST), None, CLASSES, ["b"] * N, ids)
    plain, grouped = (classification_errors.analyse(*given, groups=groups) for groups in (None, GROUPS))
    for one, other in zip(
        (grouped.candidate, *(g.candidate for g in grouped.per_class)),
        (plain.candidate, *(g.candidate for g in plain.per_class)),
        strict=True,
    ):
        assert (one.right, one.n, one.value) == (other.right, other.n, other.value)
        assert one.low is not None and other.low is not None and one.low < other.low
    assert [bin.share.n for bin in grouped.reliability.bins] == [bin.share.n for bin in plain.reliability.bins]


def test_groups_of_one_example_each_are_none() -> None:
    assert together({}, ["a", "b"]) is None
    assert together({"a": "x", "b": "y"}, ["a", "b"]) is None
    numbers = together({"a": "x", "b": "y", "c": "x"}, ["a", "b", "c"])
    assert numbers is not None and numbers.tolist() == [0, 1, 0]

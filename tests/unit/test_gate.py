"""The gate: each rule by itself, then what they decide together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from leptonflow.gate import decision
from schemas.errors import ConfigurationError, LeptonflowError
from schemas.records import RuleResult
from tests.verdicts import (
    CANDIDATE,
    CHAMPION,
    champion,
    decide,
    evaluation,
    fold_scores,
    infra,
    measured,
    only,
    pipeline,
    records,
    rows,
)

AT_LEAST = {"rule": "at_least", "metric": "accuracy", "value": 0.9}
AGAINST = {"rule": "against_champion", "metric": "accuracy", "margin": 0.01}


def test_rules_stand_in_the_yamls_order_then_those_of_every_verdict() -> None:
    verdict = decide(pipeline(AGAINST, {"rule": "fold_spread", "metric": "accuracy", "value": 0.05}, AT_LEAST))
    own = ["against_champion", "fold_spread", "at_least"]
    always = ["infra_validate", "same-predictions", "stale-snapshot", "rolled-back"]
    assert [r.rule for r in verdict.rules] == [*own, *always]
    assert [r.metric for r in verdict.rules[3:]] == [None] * 4
    assert (verdict.verdict, verdict.champion, verdict.against) == ("promoted", None, 0)


def test_at_least_tells_the_mean_over_the_folds() -> None:
    rule = only(decide(pipeline(AT_LEAST)), "at_least")
    assert rule == RuleResult(
        rule="at_least", metric="accuracy", value=0.9812, bound=0.9, passed=True,
        sentence="accuracy over 5 folds is 0.9812 on average, at least 0.9000 is required",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "value", "passed"),
    [
        ({"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.97}, 0.97, True),
        ({"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.98}, 0.97, False),
        ({"rule": "at_most", "metric": "accuracy", "on": "holdout", "value": 0.96}, 0.97, False),
        ({"rule": "at_most", "metric": "log_loss", "value": 0.2}, 0.2, True),
        ({"rule": "at_most", "metric": "log_loss", "value": 0.1}, 0.2, False),
        ({"rule": "fold_spread", "metric": "accuracy", "value": 0.01}, 0.01, True),
        ({"rule": "fold_spread", "metric": "accuracy", "value": 0.009}, 0.01, False),
    ],
)
def test_bounds(rule: dict[str, Any], value: float, passed: bool) -> None:
    cv = fold_scores(accuracy=(0.9812, 0.01), log_loss=(0.2, 0.1))
    found = decide(pipeline(rule), cv=cv).rules[0]
    assert (found.value, found.bound, found.passed) == (value, rule["value"], passed)


def test_a_failed_bound_never_reads_as_met() -> None:
    rule = decide(pipeline(AT_LEAST), cv=fold_scores(accuracy=(0.899999, 0.0))).rules[0]
    assert rule.passed is False
    assert "is 0.899999 on average, at least 0.900000 is required" in rule.sentence


@pytest.mark.parametrize("on", ["cv", "holdout"])
def test_what_cannot_be_computed_is_null_with_the_reason(on: str) -> None:
    config = pipeline({"rule": "at_least", "metric": "recall[cat]", "on": on, "value": 0.5}, AT_LEAST)
    cv = fold_scores(accuracy=(0.95, 0.0), **{"recall[cat]": (None, None)})
    for folds in (cv, fold_scores(accuracy=(0.95, 0.0))):
        verdict = decide(config, cv=folds, evaluation=evaluation({"accuracy": 0.9, "recall[cat]": None}))
        assert (verdict.rules[0].value, verdict.rules[0].passed) == (None, None)
        assert "cannot be computed" in verdict.rules[0].sentence
        assert verdict.verdict == "promoted"


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_finite_number_never_passes(broken: float) -> None:
    config = pipeline(
        AT_LEAST, {"rule": "at_most", "metric": "accuracy", "on": "holdout", "value": 1.0},
        {"rule": "fold_spread", "metric": "accuracy", "value": 1.0}, AGAINST,
    )  # fmt: skip
    verdict = decide(
        config, cv=fold_scores(accuracy=(broken, broken)), champion=champion(), against=1,
        evaluation=evaluation({"accuracy": broken}, {"accuracy": 0.5}),
    )  # fmt: skip
    assert [(r.value, r.passed) for r in verdict.rules[:4]] == [(None, False)] * 4
    assert all("accuracy" in r.sentence and "not a finite number" in r.sentence for r in verdict.rules[:4])


def test_check_metrics_names_the_classes() -> None:
    config = pipeline({"rule": "at_least", "metric": "recall[cow]", "value": 0.5})
    decision.check_metrics(config, ["cat", "cow"])
    with pytest.raises(ConfigurationError) as raised:
        decision.check_metrics(config, ["cat", "dog"])
    assert raised.value.exit_status == 2
    assert "gate.0.metric" in raised.value.message
    assert "cat, dog" in str(raised.value)


# --- against the champion


@pytest.mark.parametrize(
    ("candidate", "of_champion", "passed"),
    [(0.96, 0.95, True), (0.95, 0.95, True), (0.95, 0.96, False), (0.949, 0.96, False)],
)
def test_against_champion_within_its_margin(candidate: float, of_champion: float, passed: bool) -> None:
    verdict = decide(
        pipeline(AGAINST), champion=champion(), against=1,
        evaluation=evaluation({"accuracy": candidate}, {"accuracy": of_champion}),
    )  # fmt: skip
    rule = only(verdict, "against_champion")
    assert (rule.value, rule.bound, rule.passed) == (pytest.approx(candidate - of_champion), -0.01, passed)
    assert (rule.low is not None and rule.low > -0.01) is passed
    assert (rule.n, rule.confidence, rule.method) == (1000, 0.95, "tango score")
    assert verdict.champion == CHAMPION


def test_lower_log_loss_is_better() -> None:
    config = pipeline({"rule": "against_champion", "metric": "log_loss"})
    labels = np.arange(400) % 2
    right = np.arange(400) % 10 > 0
    for sure, passed in ((0.9, True), (0.6, False)):
        found = measured(labels, rows(labels, right, sure), rows(labels, right, 0.7))
        rule = decide(config, champion=champion(), against=1, **found).rules[0]
        mine, theirs = (found["evaluation"].candidate_scores, found["evaluation"].champion_scores)
        assert rule.passed is passed
        assert rule.value == pytest.approx(theirs.metrics["log_loss"] - mine.metrics["log_loss"])
        assert ("better" if passed else "worse") in rule.sentence.split(", ")[1]
        assert str(rule.bound) == "0.0", "a margin of 0 is not -0.0"
        assert rule.method == "paired bca bootstrap"


def test_without_a_champion_it_is_null_and_alone_it_refuses_naming_the_ways_out() -> None:
    verdict = decide(pipeline(AGAINST))
    assert only(verdict, "against_champion").passed is None
    assert only(verdict, "stale-snapshot").passed is None
    assert verdict.verdict == "refused"
    assert "at_least" in verdict.sentence
    assert f"`leptonflow promote digits --version {CANDIDATE} --reason TEXT`" in verdict.sentence


@pytest.mark.parametrize("why", ["it has other classes: cat, dog", "models/digits/a/model.keras is damaged", None])
def test_a_champion_that_cannot_be_compared_refuses_and_names_the_way_out(why: str | None) -> None:
    found = evaluation({"accuracy": 0.99}, of=CHAMPION, not_comparable=why)
    verdict = decide(pipeline(AT_LEAST, AGAINST), champion=champion(), against=1, evaluation=found)
    rule = only(verdict, "against_champion")
    assert (rule.value, rule.passed, verdict.verdict) == (None, False, "refused")
    assert (why or "no scores") in rule.sentence
    assert f"leptonflow promote digits --version {CANDIDATE} --reason TEXT" in rule.sentence


def test_a_champion_whose_score_is_no_number_is_not_worse_than_anything() -> None:
    found = evaluation({"accuracy": 0.99}, {"accuracy": math.nan})
    rule = only(decide(pipeline(AGAINST), champion=champion(), against=1, evaluation=found), "against_champion")
    assert (rule.value, rule.passed) == (None, False)
    assert f"leptonflow promote digits --version {CANDIDATE}" in rule.sentence


@pytest.mark.parametrize(("mean", "word"), [(0.95, "promoted"), (0.85, "refused")])
def test_candidate_and_champion_are_the_same_version(mean: float, word: str) -> None:
    found = evaluation({"accuracy": 0.9}, {"accuracy": 0.9}, of=CANDIDATE)
    verdict = decide(
        pipeline(AGAINST, AT_LEAST), champion=champion(CANDIDATE, snapshot_number=9), against=1, evaluation=found,
        cv=fold_scores(accuracy=(mean, 0.0)), snapshot_number=3,
    )  # fmt: skip
    assert verdict.verdict == word
    assert "stays" in verdict.sentence
    assert only(verdict, "against_champion").passed is None
    assert only(verdict, "stale-snapshot").passed is True, "the same version has the same data"


# --- the rules of every verdict


def test_infra_validate_refuses_alone() -> None:
    verdict = decide(pipeline(AT_LEAST), infra=infra(passed=False))
    rule = only(verdict, "infra_validate")
    assert (rule.value, rule.bound, rule.passed) == (0.5, 1e-5, False)
    assert verdict.verdict == "refused"
    assert "infra_validate" in verdict.sentence


@pytest.mark.parametrize(("theirs", "passed"), [(4, False), (3, True), (2, True)])
def test_stale_snapshot(theirs: int, passed: bool) -> None:
    found = evaluation({"accuracy": 0.99}, {"accuracy": 0.1})
    verdict = decide(pipeline(AT_LEAST), champion=champion(snapshot_number=theirs), against=1, evaluation=found)
    rule = only(verdict, "stale-snapshot")
    assert (rule.value, rule.bound, rule.passed) == (3, theirs, passed)
    assert verdict.verdict == ("promoted" if passed else "refused")


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ([], True),
        ([("promotion", CHAMPION, None), ("promotion", CANDIDATE, CHAMPION)], True),
        ([("promotion", CANDIDATE, None), ("override", CHAMPION, CANDIDATE)], True),
        ([("promotion", CANDIDATE, CHAMPION), ("rollback", CHAMPION, CANDIDATE)], False),
        ([("override", CANDIDATE, CHAMPION), ("rollback", CHAMPION, CANDIDATE), ("promotion", "x", CHAMPION)], False),
        ([("rollback", CHAMPION, CANDIDATE), ("override", CANDIDATE, CHAMPION)], True),
        ([("rollback", CHAMPION, CANDIDATE), ("rollback", CANDIDATE, CHAMPION)], True),
        ([("rollback", CHAMPION, CANDIDATE), ("promotion", CANDIDATE, CHAMPION)], False),
        ([("override", CANDIDATE, None), ("rollback", CHAMPION, CANDIDATE)], False),
    ],
)
def test_what_a_person_took_down_comes_back_only_by_a_person(
    changes: list[tuple[str, str, str | None]], passed: bool
) -> None:
    verdict = decide(pipeline(AT_LEAST), history=records(*changes))
    rule = only(verdict, "rolled-back")
    assert rule.passed is passed
    assert verdict.verdict == ("promoted" if passed else "refused")
    if not passed:
        assert "kim@lab" in rule.sentence
        assert "too many sevens" in rule.sentence, "a reason of two lines is told in one"
        assert f"leptonflow promote digits --version {CANDIDATE} --reason TEXT" in rule.sentence


# --- together


def test_one_false_refuses_and_the_sentence_names_each() -> None:
    config = pipeline(
        AT_LEAST, {"rule": "fold_spread", "metric": "accuracy", "value": 0.001},
        {"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.99},
    )  # fmt: skip
    verdict = decide(config)
    assert [r.passed for r in verdict.rules[:3]] == [True, False, False]
    assert verdict.verdict == "refused"
    assert "fold_spread: accuracy over 5 folds has a standard deviation of 0.01000" in verdict.sentence
    assert "on the holdout is 0.9700" in verdict.sentence
    assert "\n" not in verdict.sentence


def test_numbers_of_other_versions_are_no_evidence() -> None:
    for changes in (
        {"infra": infra(version="x")},
        {"version": "x"},
        {"champion": champion(), "against": 1},
        {"evaluation": evaluation({"accuracy": 0.9}, {"accuracy": 0.8})},
    ):
        with pytest.raises(LeptonflowError, match="other versions"):
            decide(pipeline(AT_LEAST), **changes)

"""`against_champion`: which test answers which question, and what its row says."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leptonflow.gate import explanation
from leptonflow.statistics import folds, paired, power
from schemas.records import RuleResult, Verdict
from tests.verdicts import CANDIDATE, CHAMPION, champion, decide, fold_scores, measured, only, pairs, pipeline, rows


def weighed(rule: dict[str, Any], found: dict[str, Any], **changes: Any) -> Verdict:
    config = pipeline({"rule": "against_champion", "metric": "accuracy", **rule})
    return decide(config, champion=champion(), against=1, **{**found, **changes})


def against(rule: dict[str, Any], found: dict[str, Any], **changes: Any) -> RuleResult:
    return only(weighed(rule, found, **changes), "against_champion")


def test_accuracy_within_a_margin_is_tangos_test_on_the_pairs() -> None:
    expected = paired.non_inferiority(20, 30, 2000, 0.01, 0.95)
    rule = against({"margin": 0.01}, pairs(20, 30, 1900, 50))
    assert (rule.value, rule.low, rule.high, rule.n) == (-0.005, expected.low, expected.high, 2000)
    assert (rule.bound, rule.confidence, rule.method) == (-0.01, 0.95, expected.method)
    assert rule.passed is (expected.p_value < 0.05)
    assert "0.005000 worse" in rule.sentence and "required: at most 0.01000 worse" in rule.sentence


def test_as_good_on_few_examples_is_not_shown_to_be_as_good() -> None:
    few, many = (against({"margin": 0.01}, pairs(n, n, 96 * n, n)) for n in (4, 100))
    assert (few.value, few.passed) == (0.0, False)
    assert (many.value, many.passed) == (0.0, True)


@pytest.mark.parametrize("test", ["non_inferiority", "superiority"])
def test_without_a_margin_only_a_better_candidate_passes_by_exact_mcnemar(test: str) -> None:
    for b, c, passed in ((12, 2, True), (7, 2, False), (5, 5, False), (0, 0, False)):
        rule = against({"test": test}, pairs(b, c, 300))
        expected = paired.mcnemar(b, c, b + c + 300, 0.95)
        assert (rule.passed, rule.method, rule.bound) == (passed, "exact mcnemar", 0.0)
        assert passed is (expected.p_value < 0.05)
        assert (rule.low, rule.high) == (expected.low, expected.high)


def test_superiority_by_a_margin_asks_for_more_than_the_margin() -> None:
    better = pairs(60, 5, 900, 35)  # 5.5 percentage points
    found = against({"test": "superiority", "margin": 0.02}, better)
    assert (found.passed, found.bound) == (True, 0.02)
    assert found.low is not None and found.low > 0.02
    assert "required: more than 0.02000 better" in found.sentence
    assert against({"test": "superiority", "margin": 0.05}, better).passed is False
    assert against({"test": "superiority", "margin": 1.0}, better).passed is False


def test_a_margin_that_nothing_can_miss_passes() -> None:
    assert against({"margin": 1.0}, pairs(0, 30, 0)).passed is True
    assert against({"margin": 25.0, "metric": "log_loss"}, pairs(0, 30, 10)).passed is True


@pytest.mark.parametrize("metric", ["f1", "recall", "log_loss", "recall[cat]"])
def test_other_metrics_are_bootstrapped_in_pairs_and_the_same_each_time(metric: str) -> None:
    better, worse = pairs(40, 5, 500, 20), pairs(5, 40, 500, 20)
    first = against({"metric": metric, "margin": 0.01}, better)
    assert (first.passed, first.method) == (True, "paired bca bootstrap")
    assert first == against({"metric": metric, "margin": 0.01}, better)
    assert against({"metric": metric, "margin": 0.01}, worse).passed is False
    mine, theirs = (s.metrics[metric] for s in (better["evaluation"].candidate_scores,
                                                better["evaluation"].champion_scores))  # fmt: skip
    assert first.value == pytest.approx(abs(mine - theirs))


def test_the_sentence_says_where_an_equal_candidate_would_seldom_pass_and_the_holdout_needed() -> None:
    # The figures: 360 examples, 2% discordant, margin 0.01.
    chance = power.pass_rate(0.0, 7 / 360, 360, 0.01, 0.95)
    size = power.needed(0.0, 7 / 360, 0.01, 0.95, 0.8)
    assert 0.25 < chance < 0.4 and size is not None
    verdicts = set()
    for b, c in ((4, 3), (7, 0)):
        verdict = weighed({"margin": 0.01}, pairs(b, c, 353))
        told = f"would pass in {chance:.0%} of cases; a holdout of {size}"
        assert all(told in each for each in (only(verdict, "against_champion").sentence, *verdict.warnings))
        assert verdict.sentence.count(told) == (0 if verdict.verdict == "promoted" else 1)
        assert explanation.paragraph("digits", verdict).count(told) == 1
        verdicts.add(verdict.verdict)
    assert verdicts == {"promoted", "refused"}
    enough = weighed({"margin": 0.01}, pairs(20, 20, 4960))
    assert "would pass in" not in enough.sentence and enough.warnings == ()
    assert "without a margin only a better candidate passes" in weighed({}, pairs(4, 3, 353)).sentence


def test_superiority_says_that_an_equal_candidate_seldom_passes_whatever_the_holdout() -> None:
    chance = power.pass_rate(0.0, 65 / 1000, 1000, -0.02, 0.95)
    assert 0 < chance < 0.01
    verdict = weighed({"test": "superiority", "margin": 0.02}, pairs(60, 5, 900, 35))
    for sentence in (only(verdict, "against_champion").sentence, *verdict.warnings):
        assert (
            f"an equally accurate one would pass in {chance:.1%} of cases, and no holdout size changes that" in sentence
        )
    assert len(verdict.warnings) == 1 and "equally accurate" not in verdict.sentence
    alike = weighed({"test": "superiority", "margin": 0.02}, pairs(0, 0, 50))
    assert "0.0% discordant, an equally accurate one would pass in 0.0% of cases" in alike.sentence
    without = weighed({"test": "superiority"}, pairs(4, 3, 353))
    assert "an equally accurate one would pass in at most 0.05 of cases" in without.sentence


@pytest.mark.parametrize(("margin", "confidence"), [(0.01, 0.95), (0.05, 0.9), (0.3, 0.99)])
def test_two_versions_that_answer_alike_pass_from_the_size_that_the_sentence_names(
    margin: float, confidence: float
) -> None:
    rule = {"margin": margin, "confidence": confidence}
    few = weighed(rule, pairs(0, 0, 5))
    told = re.search(r"even a candidate with .* cannot pass; from (\d+) examples on it would", few.sentence)
    assert told is not None and few.verdict == "refused"
    size = int(told[1])
    assert [against(rule, pairs(0, 0, n)).passed for n in (size - 1, size)] == [False, True]
    assert weighed(rule, pairs(0, 0, size)).warnings == ()


def test_what_is_not_proven_to_be_held_out_is_not_compared() -> None:
    found = pairs(40, 5, 500)
    found["evidence"] = replace(found["evidence"], disjoint="the champion held out 0.1, the holdout is 0.2")
    verdict = weighed({"margin": 0.01}, found)
    rule = only(verdict, "against_champion")
    assert (rule.value, rule.passed, verdict.verdict) == (None, False, "refused")
    assert "not comparable: the champion held out 0.1" in rule.sentence
    assert f"leptonflow promote digits --version {CANDIDATE} --reason TEXT" in rule.sentence


def test_probabilities_that_are_no_numbers_refuse() -> None:
    labels = np.arange(100) % 2
    good, bad = rows(labels, labels >= 0), rows(labels, labels >= 0)
    bad[3] = np.nan
    for mine, theirs, whose in ((bad, good, "accuracy on the holdout"), (good, bad, "the champion's accuracy")):
        for found in (measured(labels, good, good), measured(labels, mine, theirs)):
            found["evidence"] = replace(found["evidence"], candidate=mine, champion=theirs)
            rule = against({"margin": 0.5}, found)
            assert (rule.value, rule.passed) == (None, False)
            assert rule.sentence.startswith(whose) and "not a finite number" in rule.sentence


# --- over the folds


def over_folds(mine: list[float], theirs: list[float], **changes: Any) -> RuleResult:
    found = pairs(20, 20, 1900)
    cv = {"accuracy": {"mean": np.mean(theirs), "std": 0.01, "folds": theirs}}
    found["evidence"] = replace(found["evidence"], champion_cv=cv, **changes)
    folded = {"accuracy": {"mean": float(np.mean(mine)), "std": 0.01, "folds": mine}}
    return only(weighed({"margin": 0.01}, found, cv=folded), "against_champion_cv")


CHAMPIONS = [0.95, 0.96, 0.94, 0.95, 0.955]


@pytest.mark.parametrize(("shift", "passed"), [(0.03, True), (0.0, True), (-0.06, False), (-0.011, None)])
def test_the_same_folds_are_compared_by_the_corrected_t_test(shift: float, passed: bool | None) -> None:
    noise = [0.002, -0.002, 0.001, -0.001, 0.0]
    mine = [value + shift + n for value, n in zip(CHAMPIONS, noise, strict=True)]
    rule = over_folds(mine, CHAMPIONS)
    _, p = folds.corrected_t([a - b for a, b in zip(mine, CHAMPIONS, strict=True)], 4, 1, 0.01)
    assert rule.passed is passed is (True if p < 0.05 else False if p > 0.95 else None)
    assert rule.value == pytest.approx(shift)
    assert (rule.n, rule.method, rule.bound) == (5, "corrected t", -0.01)


def test_other_folds_are_not_comparable_and_say_why() -> None:
    rule = over_folds(CHAMPIONS, CHAMPIONS, other_folds="the champion was cross-validated on snapshot 5aa5")
    assert (rule.value, rule.passed) == (None, None)
    assert rule.sentence.startswith("not comparable: the champion was cross-validated on snapshot 5aa5")
    assert "the paired test on the holdout decides" in rule.sentence
    assert over_folds(CHAMPIONS[:3], CHAMPIONS).passed is None


def test_there_is_no_row_of_the_folds_without_another_champion() -> None:
    config = pipeline({"rule": "against_champion", "metric": "accuracy"})
    assert "against_champion_cv" not in [r.rule for r in decide(config).rules]
    both = decide(config, champion=champion(), against=1, cv=fold_scores(accuracy=(0.9, 0.1)), **pairs(5, 5, 90))
    assert [r.rule for r in both.rules[:2]] == ["against_champion", "against_champion_cv"]
    assert both.champion == CHAMPION

"""Drawn rules decide as the gate's own do: held against the gate itself, exact chances and simulated holdouts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from leptonflow.gate import drawn_rules, simulation
from leptonflow.gate.evidence import Evidence
from leptonflow.gate.rules import slicing
from leptonflow.statistics import multiple, paired
from leptonflow.workloads.classification import ONE_CLASS
from schemas.config import Pipeline
from tests.verdicts import CLASSES, champion, decide, measured, pipeline, rows

AGAINST = {"rule": "against_champion", "metric": "accuracy", "margin": 0.01}
AT_LEAST = {"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.9}
SLICES = {"rule": "slices", "by": ["class", "batch", "newest"], "margin": 0.02}


def holdout(n: int = 400) -> Evidence:
    """Half cats, half dogs; three quarters from monday, a few from wednesday; a third of them bright."""
    batches = tuple("monday" if i < 0.75 * n else "tuesday" if i < 0.95 * n else "wednesday" for i in range(n))
    return Evidence(
        classes=CLASSES, target=ONE_CLASS, labels=np.arange(n) % 2, candidate=np.zeros((0, 2)), batches=batches,
        newest="tuesday",
        facts={"brightness": np.arange(n) % 3.0, "format": np.asarray(["png"] * n, object)},
    )  # fmt: skip


def simulated(*rules: dict[str, Any], n: int = 400, discordance: float = 0.1, **known: Any) -> simulation.Curve:
    accuracy = known.get("accuracy")
    found = drawn_rules.gate(
        pipeline(*rules), n, discordance, 2000, accuracy=accuracy, holdout=known.get("holdout", holdout())
    )
    return simulation.simulate(n, discordance, 0.01, 0.95, accuracy=accuracy, rules=found)


def near(share: float, expected: float, trials: int = 2000) -> bool:
    return abs(share - expected) <= 4.5 * math.sqrt(expected * (1 - expected) / trials) + 0.001


# --- at_least and at_most


@pytest.mark.parametrize("n", [1, 37, 300])
@pytest.mark.parametrize("kind", ["at_least", "at_most"])
@pytest.mark.parametrize("value", [0.0, 0.8, 1.0, 1.5])
@pytest.mark.parametrize("confidence", [None, 0.95])
def test_a_bound_lets_pass_what_the_gate_lets_pass(n: int, kind: str, value: float, confidence: float | None) -> None:
    asked = {"rule": kind, "metric": "accuracy", "on": "holdout", "value": value, "confidence": confidence}
    config = pipeline(asked)
    labels, counts = np.arange(n) % 2, sorted({*range(0, n + 1, max(1, n // 12)), n})
    right = np.asarray([counts])
    found = drawn_rules.bound(config.gate[0], n)(drawn_rules.Draws(n, right, right, right))[0]  # type: ignore[arg-type]
    for count, passed in zip(counts, found, strict=True):
        row = decide(config, **measured(labels, rows(labels, np.arange(n) < count))).rules[0]
        assert row.passed is bool(passed), count


def test_the_share_that_reaches_a_bound_is_the_binomials() -> None:
    curve = simulated(AGAINST, AT_LEAST, accuracy=0.9)
    assert [rule.simulated for rule in curve.rules] == [True, False, True]
    for point in curve.points:
        assert near(point.by_rule[2] or 0.0, float(stats.binom.sf(359, 400, 0.9 + point.difference)))
    assert curve.accuracy == 0.9


def test_an_accuracy_that_no_two_versions_can_have_is_the_nearest_that_they_can() -> None:
    """A champion right on 0.95 has no candidate better by 0.04 beside it with a discordance of 0.1: 0.93 has."""
    curve = simulated(AGAINST, {**AT_LEAST, "value": 0.97}, accuracy=0.95)
    (point,) = (point for point in curve.points if point.difference == 0.04)
    assert near(point.by_rule[2] or 0.0, float(stats.binom.sf(387, 400, 0.93 + 0.04)))
    never = simulated(AGAINST, AT_LEAST, accuracy=0.96)
    assert never.rules[2].why == "two versions that are right on 0.96 of all examples do not differ on 0.1"
    assert simulated(AGAINST, AT_LEAST, accuracy=0.04).rules[2].why is not None


# --- slices


def test_a_slice_of_everything_is_the_opposite_test_of_the_whole_holdout() -> None:
    rule = pipeline({"rule": "slices", "by": ["format"], "margin": 0.02}).gate[0]
    found = drawn_rules.slices(rule, 400, 1e4, holdout(), 0)  # type: ignore[arg-type]
    assert found.judge is not None
    random = np.random.default_rng(3)
    b, c = random.integers(0, 40, (2, 3, 500))
    passed = found.judge(drawn_rules.Draws(400, b, c, None))
    assert passed.shape == (3, 500) and 0 < passed.mean() < 1
    counts = zip(b.ravel().tolist(), c.ravel().tolist(), strict=True)
    assert passed.ravel().tolist() == [paired.inferiority(*pair, 400, 0.02) >= 0.05 for pair in counts]


@pytest.mark.parametrize(("difference", "discordance"), [(-0.04, 0.1), (0.0, 0.3)])
def test_slices_refuse_as_often_as_the_gate_does_on_whole_holdouts(difference: float, discordance: float) -> None:
    """Holdouts drawn example by example; slices overlap, and Holm counts them. The first few by the gate itself."""
    rule = {**SLICES, "by": ["class", "batch", "newest", "brightness"], "margin": 0.0, "minimum": 25}
    curve = simulated(AGAINST, rule, discordance=discordance)
    (point,) = (point for point in curve.points if point.difference == difference)
    known, random, passed, config = holdout(), np.random.default_rng(11), 0, pipeline(rule)
    chances = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    parts = [part.members for part in slicing.slices(config.gate[0], known)]  # type: ignore[arg-type]
    parts = [members for members in parts if members.sum() >= 25]
    for number in range(1000):
        who = random.choice(3, size=400, p=chances)
        counts = [(int((who[m] == 0).sum()), int((who[m] == 1).sum()), int(m.sum())) for m in parts]
        fine = min(multiple.holm([paired.inferiority(*each, 0.0) for each in counts])) >= 0.05
        passed += fine
        if number < 5:
            found = measured(
                known.labels, rows(known.labels, who != 1), rows(known.labels, who != 0),
                batches=known.batches, newest=known.newest, facts=known.facts,
            )  # fmt: skip
            verdict = decide(config, champion=champion(), against=1, **found)
            assert fine is all(row.passed is not False for row in verdict.rules if row.rule == "slices")
    share = point.by_rule[2]
    assert share is not None and share < 0.99
    assert abs(passed / 1000 - share) <= 4 * math.sqrt(share * (1 - share) / 1000) + 0.005


def test_a_holdout_of_another_size_falls_into_slices_as_todays_does() -> None:
    rule = pipeline({**SLICES, "minimum": 30}).gate[0]
    big, small = (drawn_rules.slices(rule, n, 1e3, holdout(), 0) for n in (4000, 20))  # type: ignore[arg-type]
    assert big.judge is not None
    assert small.judge is None and "no slice of 20 examples has the 30" in (small.why or "")
    huge = drawn_rules.slices(rule, 4000, 1e12, holdout(), 0)  # type: ignore[arg-type]
    assert huge.judge is None and "too many to simulate" in (huge.why or "")


# --- all rules together


def test_every_rule_is_simulated_on_the_same_draws_and_promoted_is_all_of_them() -> None:
    superior = {**AGAINST, "test": "superiority", "margin": 0.0}
    curve = simulated(AGAINST, superior, AT_LEAST, SLICES, accuracy=0.92)
    alone = simulation.simulate(400, 0.1, 0.01, 0.95)
    for point, by_itself in zip(curve.points, alone.points, strict=True):
        assert (point.by_rule[0], point.computed) == (by_itself.promoted, by_itself.computed)
        shares = [share for share in point.by_rule if share is not None]
        assert len(shares) == 4 and point.promoted <= min(shares)
    assert curve.needed == alone.needed and curve == simulated(AGAINST, superior, AT_LEAST, SLICES, accuracy=0.92)
    assert "passes against_champion in" in curve.sentence and "all 4 simulated rules in" in curve.sentence
    assert "is promoted in" in alone.sentence


def test_what_cannot_be_drawn_says_why() -> None:
    config: Pipeline = pipeline(
        AGAINST, {**AGAINST, "metric": "f1"}, {"rule": "at_least", "metric": "accuracy", "value": 0.5}, AT_LEAST,
        {**AT_LEAST, "metric": "recall[cat]"}, {"rule": "fold_spread", "metric": "accuracy", "value": 0.1}, SLICES,
        {"rule": "calibration", "value": 0.1}, {"rule": "baseline", "metric": "accuracy"},
        {"rule": "overfit", "metric": "accuracy", "value": 0.1}, {"rule": "latency", "value": 5},
        {"rule": "size", "value": 5},
    )  # fmt: skip
    found = drawn_rules.gate(config, 400, 0.1, 2000, accuracy=None, holdout=None)
    assert [(rule.rule, rule.metric) for rule in found if rule.judge] == [("against_champion", "accuracy")]
    why = {(rule.rule, rule.metric): rule.why for rule in found}
    assert len(found) == len(config.gate) + 1
    assert all((rule.judge is None) == bool(rule.why) for rule in found)
    for name, said in (
        (("against_champion_cv", "accuracy"), "folds"), (("against_champion", "f1"), "only accuracy is simulated"),
        (("at_least", "recall[cat]"), "only accuracy is simulated"), (("slices", "accuracy"), "no data has arrived"),
        (("calibration", None), "probabilities"), (("latency", None), "package"),
    ):  # fmt: skip
        assert said in (why[name] or "")
    assert [r.why for r in found if r.rule == "at_least"][1].startswith("no run has scored a champion")  # type: ignore[union-attr]

"""What holds for every verdict, whatever the rules and the scores."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonflow.core.hashing import canonical
from schemas.records import RuleResult, Verdict
from tests.verdicts import (
    CANDIDATE,
    champion,
    decide,
    evaluation,
    fold_scores,
    imagined,
    infra,
    measured,
    pairs,
    pipeline,
    records,
    rows,
)

METRICS = ("accuracy", "f1", "log_loss")
unit = st.floats(0, 1).map(lambda x: round(x, 6))
EXAMPLES = 40  # of a holdout: a bootstrap of 2,000 resamples takes milliseconds
maybe = st.none() | st.floats(0, 1)

higher_is_better = st.sampled_from(("accuracy", "f1"))
on = st.sampled_from(("cv", "holdout"))


def rule(name: str, metric: st.SearchStrategy[str], **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"rule": st.just(name), "metric": metric, **keys})


demands = st.one_of(
    rule("at_least", higher_is_better, on=on, value=unit),
    rule("against_champion", higher_is_better, margin=unit),
    rule("fold_spread", st.sampled_from(METRICS), value=unit),
    rule("at_most", st.just("log_loss"), on=on, value=unit),
)
rules = st.lists(demands, min_size=1, max_size=5)


@st.composite
def worlds(draw: st.DrawFn, value: st.SearchStrategy[float | None] = maybe) -> dict[str, Any]:
    """Everything that `decide` is given but the rules."""
    kind = draw(st.sampled_from(("none", "other", "same", "incomparable")))
    mine = {m: draw(value) for m in METRICS}
    theirs = {m: draw(value) for m in METRICS}
    cv = fold_scores(**{m: (draw(value), draw(value)) for m in METRICS})
    world: dict[str, Any] = {"cv": cv, "infra": infra(draw(st.booleans())), "snapshot_number": draw(st.integers(1, 3))}
    if draw(st.booleans()):
        world["history"] = records(("rollback", "b" * 12, CANDIDATE))
    if kind == "none":
        return {**world, "evaluation": evaluation(mine), "evidence": imagined(evaluation(mine), EXAMPLES)}
    held = champion(CANDIDATE) if kind == "same" else champion()
    other = {"champion": held, "against": 1, "champion_snapshot_number": draw(st.integers(1, 3))}
    if kind == "incomparable":
        found = evaluation(mine, not_comparable="it has other classes")
    else:
        found = evaluation(mine, mine if kind == "same" else theirs, of=held.version)
    return {**world, **other, "evaluation": found, "evidence": imagined(found, EXAMPLES)}


ALWAYS = ("infra_validate", "same-predictions", "stale-snapshot", "rolled-back")


def own(verdict: Verdict) -> list[RuleResult]:
    return list(verdict.rules[: -len(ALWAYS)])


@settings(deadline=None, max_examples=30)  # a bootstrap takes tens of milliseconds
@given(rules, worlds())
def test_promoted_needs_no_false_and_a_true_of_its_own(gate: list[dict[str, Any]], world: dict[str, Any]) -> None:
    verdict = decide(pipeline(*gate), **world)
    grounds = all(r.passed is not False for r in verdict.rules) and any(r.passed for r in own(verdict))
    assert (verdict.verdict == "promoted") == grounds
    held = world.get("champion")
    pair = ["against_champion", "against_champion_cv"][: 1 if held is None or held.version == CANDIDATE else 2]
    expected = [name for asked in gate for name in (pair if asked["rule"] in pair else [asked["rule"]])]
    assert [r.rule for r in verdict.rules] == [*expected, *ALWAYS]
    for found in verdict.rules:
        assert found.sentence
        assert "\n" not in found.sentence
        assert found.passed is None or found.value is not None or found.rule in (*ALWAYS[1::2], *pair)


@settings(deadline=None, max_examples=30)  # a bootstrap takes tens of milliseconds
@given(rules, worlds())
def test_a_verdict_is_the_same_each_time_and_survives_json(gate: list[dict[str, Any]], world: dict[str, Any]) -> None:
    verdict = decide(pipeline(*gate), **world)
    written = canonical(verdict)
    assert canonical(decide(pipeline(*gate), **world)) == written
    assert Verdict.model_validate_json(written) == verdict
    json.loads(written, parse_constant=lambda name: (_ for _ in ()).throw(AssertionError(name)))


@settings(deadline=None, max_examples=30)  # a bootstrap takes tens of milliseconds
@given(rules, worlds(st.floats(0, 1)), higher_is_better, st.floats(0, 1))
def test_a_better_candidate_is_never_refused_for_it(
    gate: list[dict[str, Any]], world: dict[str, Any], metric: str, gain: float
) -> None:
    before = decide(pipeline(*gate), **world)
    better = dict(world)
    over = world["cv"][metric]
    better["cv"] = {**world["cv"], metric: {**over, "mean": over["mean"] + gain}}
    measured = world["evaluation"]
    mine = measured.candidate_scores
    raised = mine.model_copy(update={"metrics": {**mine.metrics, metric: mine.metrics[metric] + gain}})
    better["evaluation"] = measured.model_copy(update={"candidate_scores": raised})
    better["evidence"] = imagined(better["evaluation"], EXAMPLES)
    after = decide(pipeline(*gate), **better)
    assert not (before.verdict == "promoted" and after.verdict == "refused"), after.sentence


counts = st.integers(0, 60)
margins = st.sampled_from((0.0, 0.005, 0.01, 0.05, 0.2))


def against(b: int, c: int, both: int, neither: int, margin: float, test: str = "non_inferiority") -> RuleResult:
    config = pipeline({"rule": "against_champion", "metric": "accuracy", "margin": margin, "test": test})
    return decide(config, champion=champion(), against=1, **pairs(b, c, both, neither)).rules[0]


@settings(deadline=None, max_examples=30)  # a bootstrap takes tens of milliseconds
@given(counts, counts, counts, counts, margins, st.sampled_from(("non_inferiority", "superiority")))
def test_one_more_example_that_the_candidate_gets_right_never_turns_a_pass_into_a_refusal(
    b: int, c: int, both: int, neither: int, margin: float, test: str
) -> None:
    before = against(b, c + 1, both, neither + 1, margin, test)
    won_back = against(b, c, both + 1, neither + 1, margin, test)
    for after in (won_back, against(b + 1, c + 1, both, neither, margin, test)):
        assert not (before.passed and not after.passed)
        assert (after.value or 0) > (before.value or 0)


@settings(deadline=None, max_examples=30)  # a bootstrap takes tens of milliseconds
@given(counts, counts, st.integers(1, 60), counts, margins)
def test_the_interval_and_the_decision_say_the_same(b: int, c: int, both: int, neither: int, margin: float) -> None:
    rule = against(b, c, both, neither, margin)
    assert rule.low is not None and rule.high is not None and rule.value is not None and rule.bound is not None
    assert rule.low - 1e-9 <= rule.value <= rule.high + 1e-9
    assert rule.passed is (rule.low > rule.bound) or abs(rule.low - rule.bound) < 1e-6
    turned = against(c, b, both, neither, margin)
    assert turned.value == -rule.value and abs((turned.low or 0) + rule.high) < 1e-6


@settings(deadline=None, max_examples=30)  # a bootstrap takes tens of milliseconds
@given(
    st.lists(st.booleans(), min_size=2, max_size=80),
    st.sampled_from(("accuracy", "f1", "recall[cat]", "log_loss")),
    unit,
    st.sampled_from((0.6, 0.9, 0.99)),
)
def test_a_confidence_only_ever_asks_for_more(right: list[bool], metric: str, value: float, confidence: float) -> None:
    labels = np.arange(len(right)) % 2
    kind = "at_most" if metric == "log_loss" else "at_least"
    asked = {"rule": kind, "metric": metric, "on": "holdout", "value": value}
    found = measured(labels, rows(labels, right))
    plain, sure = (decide(pipeline(r), **found).rules[0] for r in (asked, {**asked, "confidence": confidence}))
    assert plain.value is not None and sure.value is not None and sure.low is not None and sure.high is not None
    assert abs(plain.value - sure.value) < 1e-9
    if sure.method == "wilson":
        assert sure.low <= sure.value <= sure.high
        assert plain.passed or not sure.passed
    assert sure.passed is (sure.low >= value - 1e-12 if kind == "at_least" else sure.high <= value + 1e-12)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1, max_size=120), margins)
def test_slices_cover_the_holdout_once_and_the_small_ones_never_pass(
    examples: list[tuple[bool, bool, int]], margin: float
) -> None:
    labels, n = np.arange(len(examples)) % 2, len(examples)
    mine, theirs, batch = zip(*examples, strict=True)
    known = {"batches": tuple(f"b{b}" for b in batch), "facts": {"bytes": np.asarray(batch, float)}}
    found = measured(labels, rows(labels, mine), rows(labels, theirs), **known)
    for by in ("class", "batch", "bytes"):
        config = pipeline({"rule": "slices", "by": [by], "margin": margin, "minimum": 20})
        each = [r for r in decide(config, champion=champion(), against=1, **found).rules if r.rule == "slices"]
        assert sum(r.n or 0 for r in each) == n
        assert all((r.passed is None) == ((r.n or 0) < 20) for r in each)
        assert all((r.value or 0) < -margin for r in each if r.passed is False)

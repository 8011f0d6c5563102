"""What holds for every verdict, whatever the rules and the scores."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from leptonflow.digests import canonical
from schemas.records import RuleResult, Verdict
from tests.verdicts import CANDIDATE, champion, decide, evaluation, fold_scores, infra, pipeline, records

METRICS = ("accuracy", "f1", "log_loss")
unit = st.floats(0, 1).map(lambda x: round(x, 6))
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
        return {**world, "evaluation": evaluation(mine)}
    held = champion(CANDIDATE) if kind == "same" else champion()
    other = {"champion": held, "against": 1, "champion_snapshot_number": draw(st.integers(1, 3))}
    if kind == "incomparable":
        return {**world, **other, "evaluation": evaluation(mine, not_comparable="it has other classes")}
    return {**world, **other, "evaluation": evaluation(mine, mine if kind == "same" else theirs, of=held.version)}


def own(verdict: Verdict) -> list[RuleResult]:
    return list(verdict.rules[:-3])


@given(rules, worlds())
def test_promoted_needs_no_false_and_a_true_of_its_own(gate: list[dict[str, Any]], world: dict[str, Any]) -> None:
    verdict = decide(pipeline(*gate), **world)
    grounds = all(r.passed is not False for r in verdict.rules) and any(r.passed for r in own(verdict))
    assert (verdict.verdict == "promoted") == grounds
    assert [r.rule for r in verdict.rules] == [
        *(asked["rule"] for asked in gate), "infra_validate", "stale-snapshot", "rolled-back",
    ]  # fmt: skip
    for found in verdict.rules:
        assert found.sentence
        assert "\n" not in found.sentence
        assert found.passed is None or found.value is not None or found.rule in ("rolled-back", "against_champion")


@given(rules, worlds())
def test_a_verdict_is_the_same_each_time_and_survives_json(gate: list[dict[str, Any]], world: dict[str, Any]) -> None:
    verdict = decide(pipeline(*gate), **world)
    written = canonical(verdict)
    assert canonical(decide(pipeline(*gate), **world)) == written
    assert Verdict.model_validate_json(written) == verdict
    json.loads(written, parse_constant=lambda name: (_ for _ in ()).throw(AssertionError(name)))


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
    after = decide(pipeline(*gate), **better)
    assert not (before.verdict == "promoted" and after.verdict == "refused"), after.sentence


@given(st.floats(0, 2), st.floats(0, 2), unit)
def test_log_loss_is_accuracy_with_the_sides_changed(mine: float, theirs: float, margin: float) -> None:
    def weigh(metric: str, candidate: float, of_champion: float) -> RuleResult:
        config = pipeline({"rule": "against_champion", "metric": metric, "margin": margin})
        measured = evaluation({metric: candidate}, {metric: of_champion})
        return decide(config, champion=champion(), against=1, evaluation=measured).rules[0]

    loss, accuracy = weigh("log_loss", mine, theirs), weigh("accuracy", theirs, mine)
    assert (loss.value, loss.bound, loss.passed) == (accuracy.value, accuracy.bound, accuracy.passed)
    assert weigh("log_loss", theirs, mine).value == -(loss.value or 0.0)

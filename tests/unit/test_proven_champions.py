"""The best proven champion: which record it is, and that a candidate has to hold against it too."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leptonflow.core import store_keys
from leptonflow.gate.evidence import Beside
from leptonflow.registry import champion_log, manual_decisions, proven_champions
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.records import Evaluation, Rival, RuleResult, Verdict
from tests.small_packages import PIPELINE, fit_to_run, plan, put
from tests.verdicts import CANDIDATE, CHAMPION, SURE, champion, decide, measured, only, pipeline, rows, scores

AGAINST = {"rule": "against_champion", "metric": "accuracy", "margin": 0.02}
BEST = "b" * 12
CONFIG = pipeline(AGAINST)


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def row(low: float | None, rule: str = "against_champion", passed: bool | None = True) -> RuleResult:
    return RuleResult(
        rule=rule, metric="accuracy", value=0.0, bound=-0.02, passed=passed, sentence="so it is", low=low, high=0.1
    )  # fmt: skip


def retrain(store: Store, version: str, *rules: RuleResult) -> None:
    log = champion_log.promotions(store, PIPELINE)
    now = champion_log.champion(log)
    decided = Verdict(
        run_id=f"run-{version}", version=version, verdict="promoted", rules=rules, sentence="promoted",
        champion=now.version if now else None, against=log.number,
    )  # fmt: skip
    champion_log.settle(store, plan(version), decided, put(store, version))


def best(store: Store) -> tuple[str, int] | None:
    found = proven_champions.champions(store, CONFIG, champion_log.promotions(store, PIPELINE)).get("accuracy")
    return None if found is None else (found.version, found.number)


def test_it_is_the_first_until_one_is_shown_to_be_better(store: Store) -> None:
    assert best(store) is None
    retrain(store, "a")
    assert best(store) is None, "the last champion itself"
    retrain(store, "b", row(-0.01))
    retrain(store, "c", row(-0.015))
    assert best(store) == ("a", 1)
    retrain(store, "d", row(0.01))
    assert best(store) is None
    retrain(store, "e", row(-0.01))
    assert best(store) == ("d", 4)


def test_better_than_the_last_is_not_better_than_the_best(store: Store) -> None:
    retrain(store, "a")
    retrain(store, "b", row(-0.01))
    retrain(store, "c", row(0.01), row(-0.01, "against_best_champion"))
    assert best(store) == ("a", 1)
    retrain(store, "d", row(0.01), row(None, "against_best_champion", None))
    assert best(store) is None, "where the best cannot be compared, the last decides"


def test_a_persons_decision_sets_it_anew(store: Store) -> None:
    retrain(store, "a")
    retrain(store, "b", row(0.01))
    manual_decisions.rollback(store, PIPELINE, None, "b fails in the field", "kim", fit_to_run)
    assert best(store) is None
    retrain(store, "c", row(-0.01))
    assert best(store) == ("a", 3)
    put(store, "d")
    manual_decisions.promote(store, PIPELINE, "d", "fairer", "kim", fit_to_run)
    retrain(store, "e", row(-0.01))
    assert best(store) == ("d", 5)


def test_a_decision_that_is_gone_shows_nothing(store: Store) -> None:
    retrain(store, "a")
    retrain(store, "b", row(0.01))
    retrain(store, "c", row(-0.01))
    assert best(store) == ("b", 2)
    del store._objects[store_keys.decision_key(PIPELINE, "run-b", 1)]  # type: ignore[attr-defined]
    assert best(store) == ("a", 1)


# --- in the verdict


def beside(right: tuple[int, int, int], **rival: Any) -> dict[str, Any]:
    """1000 examples of which candidate, last and best champion get the first so many right."""
    labels = np.arange(1000) % 2
    mine, last, first = (
        rows(labels, np.arange(1000) < count, sure) for count, sure in zip(right, (0.9, SURE, 0.7), strict=True)
    )
    found = measured(labels, mine, last)
    evaluation: Evaluation = found["evaluation"]
    its = Rival(version=BEST, scores=scores(BEST, {"accuracy": right[2] / 1000}), not_comparable=None, predictions=None)
    rivals = (its.model_copy(update=rival),)
    return {
        "evaluation": evaluation.model_copy(update={"proven": rivals}),
        "evidence": replace(found["evidence"], proven={BEST: Beside(None if rival else first, None)}),
        "champion": champion(CHAMPION),
        "proven": {"accuracy": replace(champion(BEST), number=1)},
    }


def test_a_candidate_must_hold_against_both_and_the_verdict_says_which_decided() -> None:
    both = decide(pipeline(AGAINST), **beside((905, 910, 912)))
    assert both.verdict == "promoted"
    assert [only(both, name).passed for name in ("against_champion", "against_best_champion")] == [True, True]
    worn = decide(pipeline(AGAINST), **beside((905, 910, 930)))
    assert worn.verdict == "refused"
    assert [only(worn, name).passed for name in ("against_champion", "against_best_champion")] == [True, False]
    decided = only(worn, "against_best_champion")
    assert (decided.value, decided.bound, decided.n) == (-0.025, -0.02, 1000)
    assert f"the best proven champion is {BEST} (record 1)" in decided.sentence
    assert "this rule decided" in worn.sentence and BEST in worn.sentence
    worse = decide(pipeline(AGAINST), **beside((880, 910, 930)))
    assert "this rule decided" not in worse.sentence and only(worse, "against_champion").passed is False


@pytest.mark.parametrize("why", ["it has other classes", "its package is damaged"])
def test_a_best_proven_champion_that_cannot_be_compared_blocks_nobody(why: str) -> None:
    verdict = decide(pipeline(AGAINST), **beside((905, 910, 0), scores=None, not_comparable=why))
    found = only(verdict, "against_best_champion")
    assert (found.passed, verdict.verdict) == (None, "promoted")
    assert why in found.sentence and "leptonflow promote" not in found.sentence


def test_a_row_for_another_metric_has_its_own_best() -> None:
    gate = pipeline(AGAINST, {"rule": "against_champion", "metric": "f1", "margin": 0.5})
    verdict = decide(gate, **beside((905, 910, 912)))
    assert [(r.rule, r.metric) for r in verdict.rules if r.rule == "against_best_champion"] == [
        ("against_best_champion", "accuracy")
    ]


# --- the same predictions


def test_a_candidate_with_the_champions_predictions_does_not_replace_it() -> None:
    labels = np.arange(400) % 2
    mine = rows(labels, np.arange(400) < 380)
    same = decide(pipeline(AGAINST), champion=champion(), **measured(labels, mine, np.add(mine, [[4e-6, -4e-6]])))
    found = only(same, "same-predictions")
    assert (found.passed, same.verdict, found.n) == (False, "refused", 400)
    assert found.value == pytest.approx(4e-6) and found.bound == 1e-5
    assert CHAMPION in found.sentence and CHAMPION in same.sentence
    other = decide(pipeline(AGAINST), champion=champion(), **measured(labels, mine, np.add(mine, [[1e-4, -1e-4]])))
    assert (only(other, "same-predictions").passed, other.verdict) == (True, "promoted")


def test_where_there_is_nothing_to_compare_the_same_predictions_are_null() -> None:
    labels = np.arange(400) % 2
    mine = rows(labels, np.arange(400) < 380)
    alone = decide(pipeline({"rule": "at_least", "metric": "accuracy", "value": 0.5}), **measured(labels, mine))
    assert (only(alone, "same-predictions").passed, alone.verdict) == (None, "promoted")
    again = measured(labels, mine, mine)
    again["evaluation"] = again["evaluation"].model_copy(update={"champion": CANDIDATE})
    itself = decide(pipeline(AGAINST), champion=champion(CANDIDATE), **again)
    assert only(itself, "same-predictions").passed is None

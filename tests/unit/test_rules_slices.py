"""`slices`: a loss in one part of the holdout is found, chance is not taken for one, and the small ones are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leptonflow.statistics import multiple, paired
from schemas.records import RuleResult
from tests.verdicts import CLASSES, champion, decide, evaluation, measured, pipeline, rows

N = 400
LABELS = np.arange(N) % 2
BATCHES = tuple("monday" if i < 300 else "tuesday" if i < 390 else "wednesday" for i in range(N))


def slices(mine: Any, theirs: Any, rule: dict[str, Any], **known: Any) -> dict[str, RuleResult]:
    known = {"batches": BATCHES, "newest": "wednesday", **known}
    found = measured(LABELS, rows(LABELS, mine), rows(LABELS, theirs), **known)
    verdict = decide(pipeline({"rule": "slices", **rule}), champion=champion(), against=1, **found)
    return {str(r.slice): r for r in verdict.rules if r.rule == "slices"}


RIGHT = np.ones(N, bool)


def test_a_class_that_the_candidate_lost_refuses_and_the_others_do_not() -> None:
    lost = RIGHT & ~((LABELS == 1) & (np.arange(N) % 5 == 1))  # a fifth of the dogs
    found = slices(lost, RIGHT, {"by": ["class"]})
    assert list(found) == [f"class={name}" for name in CLASSES]
    assert (found["class=cat"].passed, found["class=dog"].passed) == (True, False)
    assert (found["class=dog"].value, found["class=dog"].bound, found["class=dog"].n) == (-0.2, -0.05, 200)
    p = [paired.inferiority(0, 0, 200, 0.05), paired.inferiority(0, 40, 200, 0.05)]
    assert multiple.holm(p)[1] < 0.05
    assert (
        "a significantly larger loss" in found["class=dog"].sentence and "over 2 slices" in found["class=dog"].sentence
    )
    assert found["class=dog"].low is not None and found["class=dog"].low < -0.2 < (found["class=dog"].high or 0)


def test_a_loss_that_is_no_more_than_the_margin_or_chance_passes() -> None:
    few = RIGHT & ~(np.isin(np.arange(N), range(0, 60, 6)))  # 10 of 200 cats: the margin itself
    assert all(found.passed for found in slices(few, RIGHT, {"by": ["class"]}).values())


def test_a_slice_too_small_to_judge_says_so_and_is_never_passed() -> None:
    found = slices(RIGHT, RIGHT, {"by": ["batch", "newest"], "minimum": 30})
    assert list(found) == ["batch=monday", "batch=tuesday", "batch=wednesday", "newest"]
    assert [found[name].passed for name in found] == [True, True, None, None]
    assert found["newest"].sentence == "newest is too small to test: 10 examples, at least 30 are needed"
    assert found["newest"].n == 10
    empty = slices(RIGHT, RIGHT, {"by": ["newest"]}, newest="sunday")["newest"]
    assert (empty.value, empty.passed, empty.n) == (None, None, 0)


def test_only_the_twenty_largest_batches_are_slices_and_the_others_are_named_together() -> None:
    many = tuple(f"b{min(i // 15, 24):02}" for i in range(N))  # b24 is the largest
    lost = RIGHT & ~np.isin(many, ["b20", "b21", "b22", "b23"])
    found = slices(lost, RIGHT, {"by": ["batch"], "minimum": 5}, batches=many)
    assert len(found) == 21 and "batch=b24" in found and "batch=b20" not in found
    rest = found["batch: 5 smaller batches"]
    assert (rest.passed, rest.n, rest.value) == (None, 75, -60 / 75)
    assert "only the 20 largest are: 75 examples" in rest.sentence
    assert "over 20 slices" in found["batch=b24"].sentence
    assert len(slices(RIGHT, RIGHT, {"by": ["batch"]}, batches=tuple(f"b{i // 20:02}" for i in range(N)))) == 20


def test_a_fact_is_cut_into_buckets_of_its_own_quantiles() -> None:
    brightness = np.arange(N, dtype=float)
    brightness[:40] = np.nan
    dark = RIGHT & ~((brightness >= 40) & (brightness < 130) & (np.arange(N) % 3 == 0))
    found = slices(dark, RIGHT, {"by": ["brightness"]}, facts={"brightness": brightness})
    assert list(found)[:2] == ["brightness=[40, 129.75)", "brightness=[129.75, 219.5)"]
    assert list(found)[3:] == ["brightness=[309.25, 399]", "brightness=missing"]
    assert [r.passed for r in found.values()] == [False, True, True, True, True]
    assert sum(r.n or 0 for r in found.values()) == N
    same = slices(RIGHT, RIGHT, {"by": ["width"]}, facts={"width": np.full(N, 28.0)})
    assert list(same) == ["width=[28, 28]"] and same["width=[28, 28]"].n == N


@pytest.mark.parametrize("wide", [320, 80])
def test_a_fact_of_few_values_is_cut_between_them(wide: int) -> None:
    """Most are 28 wide, or most are not: no quantile lies between the two."""
    width = np.where(np.arange(N) < wide, 28.0, 56.0)
    lost = RIGHT & ~((width == 56) & (np.arange(N) % 3 == 0))
    found = slices(lost, RIGHT, {"by": ["width"]}, facts={"width": width})
    assert {name: row.n for name, row in found.items()} == {"width=[28, 56)": wide, "width=[56, 56]": N - wide}
    assert [row.passed for row in found.values()] == [True, False]


def test_buckets_that_look_alike_are_still_told_and_judged_apart() -> None:
    """100 MB images that differ by a few bytes: six digits would name all four buckets the same."""
    lost = RIGHT & ~(np.arange(N) < 60)
    found = slices(lost, RIGHT, {"by": ["bytes"]}, facts={"bytes": 100_000_000 + np.arange(N, dtype=float)})
    assert len(found) == 4
    assert [row.passed for row in found.values()] == [False, True, True, True]


def test_a_fact_that_is_no_number_has_a_slice_for_each_value() -> None:
    kinds = np.asarray([None if i % 40 == 7 else "png" if i % 4 else "jpeg" for i in range(N)], object)
    lost = RIGHT & ~((kinds == "jpeg") & (np.arange(N) % 8 == 0))
    found = slices(lost, RIGHT, {"by": ["format"], "minimum": 15}, facts={"format": kinds})
    assert {name: row.n for name, row in found.items()} == {"format=jpeg": 100, "format=missing": 10, "format=png": 290}
    assert [row.passed for row in found.values()] == [False, None, True]
    many = np.asarray([f"f{i % 25:02}" for i in range(N)], object)
    assert "format: 5 smaller values" in slices(RIGHT, RIGHT, {"by": ["format"]}, facts={"format": many})


@pytest.mark.parametrize("buckets", [2, 7])
def test_buckets_cover_each_example_once(buckets: int) -> None:
    values = np.random.default_rng(1).integers(0, 9, N).astype(float)  # many equal ones
    found = slices(RIGHT, RIGHT, {"by": ["bytes"], "buckets": buckets}, facts={"bytes": values})
    assert sum(r.n or 0 for r in found.values()) == N
    assert len(found) <= buckets


def test_the_same_number_of_wrong_answers_in_each_slice_is_no_ones_loss() -> None:
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(100):
        mine, theirs = random.random(N) > 0.1, random.random(N) > 0.1
        found = slices(mine, theirs, {"by": ["class", "batch"], "margin": 0})
        refused += any(row.passed is False for row in found.values())
    assert refused <= 12, "Holm's correction keeps false alarms to one in twenty"


def test_without_a_champion_it_is_null_and_with_an_incomparable_one_it_refuses() -> None:
    config = pipeline({"rule": "slices"})
    (row,) = (r for r in decide(config).rules if r.rule == "slices")
    assert (row.passed, row.sentence) == (None, "there is no champion to compare with yet")
    found = evaluation({"accuracy": 0.9}, not_comparable="it has other classes")
    verdict = decide(config, champion=champion(), against=1, evaluation=found)
    assert (verdict.rules[0].passed, verdict.verdict) == (False, "refused")
    assert "leptonflow promote" in verdict.rules[0].sentence
    broken = measured(LABELS, rows(LABELS, RIGHT), rows(LABELS, RIGHT))
    bad = broken["evidence"].candidate.copy()
    bad[0] = np.nan
    broken["evidence"] = replace(broken["evidence"], candidate=bad)
    assert decide(config, champion=champion(), against=1, **broken).rules[0].passed is False


def test_the_terminal_counts_the_slices_that_passed_and_names_those_that_refused() -> None:
    from cli import show

    lost = RIGHT & ~((LABELS == 1) & (np.arange(N) % 5 == 1))
    found = measured(LABELS, rows(LABELS, lost), rows(LABELS, RIGHT), batches=BATCHES, newest="wednesday")
    config = pipeline({"rule": "slices", "by": ["class", "newest"]}, {"rule": "at_least", "metric": "f1", "value": 0.5})
    verdict = decide(config, champion=champion(), against=1, **found)
    lines = show._gate_lines([rule.model_dump() for rule in verdict.rules])
    assert [(line["rule"], line["passed"]) for line in lines[:3]] == [
        ("slices (1 passed, 1 too small)", True), ("slices: class=dog", False), ("at_least", None),
    ]  # fmt: skip
    assert len(lines) == len(verdict.rules) - 1

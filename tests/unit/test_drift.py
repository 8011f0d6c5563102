"""The newest batch beside the rest: what moved is told, what did not is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from leptonflow.data.validation.drift import Drift, compare


def sample(shift: float = 0.0, seed: int = 0) -> Drift:
    rng = np.random.default_rng(seed)
    batches = ["old"] * 300 + ["older"] * 300 + ["new"] * 200
    labels = ["cat"] * 600 + ["cat"] * 100 + ["dog"] * 100
    bright = rng.normal(100, 10, 800)
    bright[600:] += shift
    facts = {"brightness": bright, "contrast": rng.normal(50, 5, 800), "width": np.full(800, 28.0)}
    facts["contrast"][::7] = np.nan
    found = compare("new", batches, labels, facts, ("cat", "dog"))
    assert found is not None
    return found


def test_a_fact_that_moved_is_told_and_one_that_did_not_is_not() -> None:
    found = sample(shift=20)
    assert (found.newest, found.rest) == (200, 600)
    assert [(m.fact, m.moved) for m in found.facts] == [("brightness", True), ("contrast", False)]
    bright = found.facts[0]
    assert bright.newest == pytest.approx(120, abs=3) and bright.rest == pytest.approx(100, abs=3)
    assert bright.distance > 0.6


def test_distance_and_p_are_scipys_after_holm() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(100, 10, 800)
    test = ks_2samp(values[600:], values[:600], method="asymp")
    moved = {m.fact: m for m in sample().facts}
    assert moved["brightness"].distance == pytest.approx(float(test.statistic))
    assert moved["brightness"].p_value in (pytest.approx(float(test.pvalue)), pytest.approx(min(1, 2 * test.pvalue)))


def test_no_more_than_one_in_a_hundred_is_told_by_chance() -> None:
    told = sum(any(m.moved for m in sample(seed=seed).facts) for seed in range(200))
    assert told <= 6, "expected at most 2 of 200"


def test_the_shares_of_the_classes() -> None:
    found = sample()
    assert [(s.name, s.newest, s.rest) for s in found.classes] == [("cat", 0.5, 1.0), ("dog", 0.5, 0.0)]
    assert found.class_distance == 0.5


@pytest.mark.parametrize("batch", ["only", "another"])
def test_a_batch_alone_has_nothing_beside_it(batch: str) -> None:
    assert compare(batch, ["only"] * 3, ["cat"] * 3, {"a": np.arange(3.0)}, ("cat",)) is None

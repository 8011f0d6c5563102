"""Tests of two samples: their size where nothing differs, their effect where something does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from leptonflow.statistics import two_samples
from schemas.errors import LeptonflowError


def test_numbers_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=300), random.normal(0.5, size=200)
    found = two_samples.numbers(first, second)
    exact = stats.ks_2samp(first, second)
    assert (found.n, found.m, found.method) == (300, 200, "ks")
    assert found.effect == pytest.approx(exact.statistic)
    assert found.p_value == pytest.approx(exact.pvalue, rel=0.5)
    assert (found.of, found.values) == (None, (pytest.approx(first.mean()), pytest.approx(second.mean())))


def test_names_are_pearson_s_and_their_effect_does_not_grow_with_the_sample() -> None:
    first, second = ["a"] * 500 + ["b"] * 500, ["a"] * 400 + ["b"] * 600
    found = two_samples.names(first, second)
    exact = stats.chi2_contingency([[500, 500], [400, 600]], correction=False)
    assert found.p_value == pytest.approx(exact.pvalue)
    assert (found.of, found.values) == ("a", (0.5, 0.4))
    assert found.effect == pytest.approx((0.01 / 0.45 + 0.01 / 0.55 - 0.002) ** 0.5)
    assert two_samples.names(first * 10, second * 10).effect == pytest.approx(0.2, abs=0.002)
    same = [two_samples.names(*np.random.default_rng(k).integers(0, 10, (2, 500)).tolist()).effect for k in range(50)]
    assert np.median(same) < 0.05


def test_rare_names_count_together_and_a_single_name_is_no_difference() -> None:
    first, second = ["a"] * 100 + [f"x{n}" for n in range(20)], ["a"] * 100 + [f"y{n}" for n in range(20)]
    assert two_samples.names(first, second).effect == 0.0
    assert two_samples.names(["a"] * 50, ["a"] * 60).p_value == 1.0


def test_a_name_too_rare_for_the_approximation_is_tested_exactly() -> None:
    """Once in 100 and never in 10,000: by chance in 1 of 101 cases, by Pearson's approximation in 1 of 10^23."""
    reference = ["a", "b"] * 5_000
    once = two_samples.names(reference, ["a"] * 50 + ["b"] * 49 + ["c"])
    assert once.p_value == pytest.approx(2 * 100 / 10_100)
    assert two_samples.names(["a"] * 10_000, ["a"] * 99 + ["c"]).p_value == pytest.approx(100 / 10_100)
    often = two_samples.names(reference, ["a"] * 50 + ["b"] * 40 + ["c"] * 10)
    assert often.p_value < 1e-15 and often.effect > 0.15
    moved = two_samples.names(reference, ["a"] * 90 + ["b"] * 9 + ["c"])
    assert moved.p_value < 1e-12, "what the common names show is seen beside it"
    assert two_samples.names(reference, [str(n) for n in range(60)]).p_value < 1e-15, "no common name is left"


def test_a_class_that_is_rarely_the_largest_is_seen_by_its_mean_probability() -> None:
    """Twice as often, the third class raises its mean from 0.12 to 0.14; what is predicted never changes."""

    def rows(counts: list[int]) -> np.ndarray:
        means = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.45, 0.35, 0.2]])
        noise = np.random.default_rng(sum(counts)).normal(0, 0.02, (sum(counts), 1)) * [1, 1, -2]
        return np.repeat(means, counts, axis=0) + noise

    first, second = rows([800, 800, 400]), rows([333, 333, 334])
    found = two_samples.shares(first, second)
    assert (found.n, found.m, found.method) == (2000, 1000, "shares")
    assert found.p_value < 1e-8
    exact = stats.ttest_ind(first, second)  # with the variance within the samples
    assert found.p_value == pytest.approx(3 * exact.pvalue.min(), rel=0.9)
    assert (found.of, found.values) == (2, (pytest.approx(first[:, 2].mean()), pytest.approx(second[:, 2].mean())))
    both = np.concatenate([first, second])
    assert found.effect == pytest.approx(max(abs(first.mean(0) - second.mean(0)) / both.std(0)))


def test_shares_of_one_distribution_are_rarely_told_apart_and_rare_columns_are_left_out() -> None:
    random = np.random.default_rng(0)
    rejected = sum(
        two_samples.shares(*(random.dirichlet([0.1] * 10, count) for count in (2000, 150))).p_value < 0.01
        for _ in range(200)
    )
    assert rejected <= 8, "of 200 at the 1% level; 9 or more have a chance of 0.0001"
    rare = np.tile([0.99, 0.01], (100, 1)), np.tile([0.95, 0.05], (100, 1))
    assert two_samples.shares(*rare).p_value < 1e-6, "the first column is told apart"
    few = np.tile([0.06, 0.05], (100, 1)), np.tile([0.01, 0.02], (100, 1))
    assert (two_samples.shares(*few).effect, two_samples.shares(*few).p_value) == (0.0, 1.0)


def test_vectors_of_one_distribution_are_rarely_told_apart() -> None:
    """20 pairs at the 5% level: 4 or more rejections have a chance of 1.6%."""
    rejected, effects = 0, []
    for seed in range(20):
        random = np.random.default_rng(seed)
        found = two_samples.vectors(random.normal(size=(150, 8)), random.normal(size=(100, 8)), seed)
        rejected += found.p_value < 0.05
        effects.append(found.effect)
    assert rejected < 4
    assert np.median(effects) < 0.05


def test_vectors_that_differ_are_told_apart_by_an_effect_that_does_not_grow() -> None:
    random = np.random.default_rng(0)

    def pair(count: int) -> two_samples.TwoSamples:
        return two_samples.vectors(random.normal(size=(count, 8)), random.normal(0.3, 1.2, size=(count, 8)), 1)

    small, large = pair(300), pair(1500)
    assert small.p_value < 1e-4 and large.p_value < 1e-7
    assert small.effect == pytest.approx(large.effect, rel=0.25)
    assert two_samples.vectors(np.ones((10, 3)), np.ones((12, 3)), 0).p_value == 1.0


def test_too_few_are_refused() -> None:
    with pytest.raises(LeptonflowError):
        two_samples.vectors(np.zeros((1, 3)), np.zeros((9, 3)), 0)
    with pytest.raises(LeptonflowError):
        two_samples.numbers(np.zeros(0), np.zeros(3))

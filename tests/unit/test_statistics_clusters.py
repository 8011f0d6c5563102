"""The cluster bootstrap: against formulas, against simulated truth with few groups, and where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from leptonflow.statistics import clusters, intervals, paired
from schemas.errors import LeptonflowError


def test_the_mean_varies_as_the_groups_do() -> None:
    """Of groups of one size the standard error is that of the groups' means, and not that of the examples."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 10)
    values = random.normal(size=200)[groups] + random.normal(size=2000) / 10
    drawn = clusters.mean(values, groups, seed=1)
    means = values.reshape(200, 10).mean(axis=1)
    assert drawn.value == pytest.approx(values.mean()) and drawn.units == 200
    assert drawn.resampled.std() == pytest.approx(means.std() / 200**0.5, rel=0.05)
    assert drawn.resampled.std() > 2 * values.std() / 2000**0.5
    again = clusters.mean(values, groups, seed=1)
    assert (again.resampled == drawn.resampled).all()


def test_groups_of_unequal_size_count_by_their_examples() -> None:
    groups = np.array([0] * 90 + [1] * 5 + [2] * 5)
    right = groups == 0
    assert clusters.mean(right.astype(float), groups, seed=0).value == pytest.approx(0.9)


@pytest.mark.parametrize("units", [3, 5, 30, 1000])
def test_levels_are_widened_by_students_t_and_read_backwards(units: int) -> None:
    for level in (0.05, 0.3, 0.975):
        wide = intervals.widened(level, units)
        assert intervals.narrowed(wide, units) == pytest.approx(level)
        expected = stats.norm.cdf(stats.t.ppf(level, units - 1) * (units / (units - 1)) ** 0.5)
        assert wide == pytest.approx(expected)
    assert intervals.widened(0.05, None) == intervals.narrowed(0.05, None) == 0.05
    assert intervals.widened(0.025, 5) < intervals.widened(0.025, 30) < 0.025


def test_a_level_is_a_quantile_read_backwards() -> None:
    random = np.random.default_rng(3)
    groups = np.repeat(np.arange(12), 9)
    drawn = clusters.mean(random.normal(size=12)[groups], groups, seed=2)
    for level in (0.05, 0.5, 0.9):
        assert drawn.level(drawn.quantile(level)) == pytest.approx(level, abs=1e-6)


def test_the_least_groups_with_which_anything_can_be_shown() -> None:
    assert clusters.enough(0.95) == 4
    assert clusters.enough(0.9) < clusters.enough(0.95) < clusters.enough(0.99)


def test_an_interval_is_never_narrower_than_of_independent_examples() -> None:
    groups = np.repeat(np.arange(10), 10)
    perfect = clusters.share(np.ones(100, bool), groups, 0.95, seed=0)
    exact = intervals.wilson(100, 100, 0.95)
    assert (perfect.low, perfect.high, perfect.n) == (exact.low, exact.high, 100)
    alike = clusters.share(groups < 8, groups, 0.95, seed=0)  # all right or all wrong: 10 examples in truth
    assert alike.low < intervals.wilson(80, 100, 0.95).low and alike.high - alike.low > 0.4
    alone = clusters.share(np.ones(100, bool), np.zeros(100, np.int64), 0.95, seed=0)
    assert (alone.low, alone.high) == (0.0, 1.0)
    with pytest.raises(LeptonflowError, match="number of groups"):
        clusters.mean(np.ones(3), np.zeros(3, np.int64), seed=0)


def test_groups_only_take_certainty_away() -> None:
    """The same pairs pass as independent examples, and not where the losses are all of one group."""
    groups = np.repeat(np.arange(8), 50)
    lost = np.zeros(400, bool)
    lost[:8] = True  # all in the first group
    exact = paired.non_inferiority(0, 8, 400, 0.05, 0.95)
    drawn = clusters.mean(-lost.astype(float), groups, seed=0)
    test = clusters.difference(drawn, -0.05, exact, 0.95)
    assert exact.p_value < 0.05 < test.p_value
    assert test.low < -0.05 < exact.low and test.high >= exact.high and test.b is None
    assert test.difference == exact.difference == -0.02 and test.method == "paired cluster bca bootstrap"
    never = clusters.mean(np.zeros(400), groups, seed=0)  # no resample differs
    same = paired.non_inferiority(0, 0, 400, 0.05, 0.95)
    assert same.p_value < clusters.difference(never, -0.05, same, 0.95).p_value < 0.05  # of 8 groups no p is smaller
    assert clusters.inferiority(drawn, 0.05, 0.9) >= 0.9


@pytest.mark.parametrize("many", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_few_groups_keep_the_promised_error_rates(many: int) -> None:
    """Truly worse by the margin, with groups that differ: passes in about 5%. Tango's test alone: far more often."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(many), 20)
    repeats, passed, naive, held, narrow = 300, 0, 0, 0, 0
    for seed in range(repeats):
        worse, better = random.beta(2, 18, many)[groups], random.beta(1, 19, many)[groups]  # 0.1 and 0.05 on average
        chance = random.random(len(groups))
        lost, won = chance < worse, (chance >= worse) & (chance < worse + better)
        exact = paired.non_inferiority(int(won.sum()), int(lost.sum()), len(groups), 0.05, 0.95)
        drawn = clusters.mean(won.astype(float) - lost, groups, seed=seed, resamples=500)
        passed += clusters.difference(drawn, -0.05, exact, 0.95).p_value < 0.05
        naive += exact.p_value < 0.05
        right = random.random(len(groups)) < random.beta(8, 2, many)[groups]  # 0.8 on average
        share = clusters.share(right, groups, 0.95, seed=seed, resamples=500)
        held += share.low <= 0.8 <= share.high
        wilson = intervals.wilson(int(right.sum()), len(right), 0.95)
        narrow += wilson.low <= 0.8 <= wilson.high
    assert passed / repeats < 0.085 and naive > 1.4 * passed
    assert held / repeats > 0.9 > 0.82 > narrow / repeats

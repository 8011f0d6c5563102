"""Wilson's interval and the BCa bootstrap, against scipy's own and against simulated truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from leptonflow.statistics import intervals
from schemas.errors import LeptonflowError


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (81, 263), (5, 9), (1999, 2000)])
def test_wilson_is_scipys(successes: int, n: int, confidence: float) -> None:
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    ours = intervals.wilson(successes, n, confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (ours.method, ours.n, ours.confidence) == ("wilson", n, confidence)


def test_wilson_as_published() -> None:
    """Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3: 81/263, 15/148, 0/20, 1/29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, n), bounds in published.items():
        found = intervals.wilson(successes, n, 0.95)
        assert (round(found.low, 4), round(found.high, 4)) == bounds


@pytest.mark.parametrize(("successes", "n", "confidence"), [(1, 0, 0.9), (-1, 5, 0.9), (6, 5, 0.9), (1, 5, 1.0)])
def test_wilson_refuses(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(LeptonflowError) as refused:
        intervals.wilson(successes, n, confidence)
    assert refused.value.expected and refused.value.received is not None


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bca_is_scipys(confidence: float) -> None:
    """Skewed data, two statistics: the ends differ from scipy's by less than resampling itself explains."""
    data = np.random.default_rng(3).exponential(2.0, 60)
    for statistic in (np.mean, lambda x, axis=-1: np.std(x, axis=axis, ddof=1)):
        theirs = stats.bootstrap(
            (data,), statistic, confidence_level=confidence, method="BCa", n_resamples=20_000, rng=1, vectorized=True
        ).confidence_interval
        ours = intervals.bootstrap(
            lambda i, of=statistic: float(of(data[i])), len(data), confidence, seed=5, resamples=20_000
        )
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.025)
        plain = intervals.draw(lambda i, of=statistic: float(of(data[i])), len(data), seed=5, resamples=20_000)
        percentile = np.quantile(plain.resampled, (1 + confidence) / 2)
        assert abs(ours.high - theirs.high) < abs(percentile - theirs.high) / 2  # and the corrections are not idle


def test_bca_from_the_same_resamples_is_scipys_to_the_digit() -> None:
    """Both formulas on one set of resampled means."""
    data = np.random.default_rng(8).gamma(1.5, size=40)
    found = intervals.draw(lambda i: float(data[i].mean()), 40, seed=2, resamples=4000)
    left = np.asarray([np.delete(data, i).mean() for i in range(40)])
    away = left.mean() - left
    a = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    z0 = stats.norm.ppf((found.resampled < data.mean()).mean())
    assert (found.acceleration, found.bias) == pytest.approx((a, z0), abs=1e-9)
    level = stats.norm.cdf(z0 + (z0 + stats.norm.ppf(0.05)) / (1 - a * (z0 + stats.norm.ppf(0.05))))
    assert found.quantile(0.05) == pytest.approx(np.quantile(found.resampled, level), abs=1e-9)


def test_a_level_is_a_quantile_read_backwards() -> None:
    data = np.random.default_rng(8).gamma(1.5, size=40)
    found = intervals.draw(lambda i: float(data[i].mean()), 40, seed=2, resamples=2000)
    for level in (0.01, 0.05, 0.5, 0.9):
        assert found.level(found.quantile(level)) == pytest.approx(level, abs=1e-9)
    assert found.level(-1.0) == pytest.approx(1 / 2001)
    assert 0.99 < found.level(100.0) < 1


def test_bca_covers_the_truth_as_often_as_it_says() -> None:
    """400 samples of 50 with a known mean: 90% intervals, within four standard errors of 90% and BCa's own lack."""
    rng = np.random.default_rng(11)
    hit = 0
    for number in range(400):
        data = rng.exponential(1.0, 50)
        found = intervals.bootstrap(lambda i, d=data: float(d[i].mean()), 50, 0.9, seed=number, resamples=400)
        hit += found.low <= 1.0 <= found.high
    assert 0.84 <= hit / 400 <= 0.95


def test_the_bootstrap_is_seeded_and_groups_large_samples() -> None:
    data = np.random.default_rng(0).exponential(1.0, 5000)

    def mean(indices: Any) -> float:
        return float(data[indices].mean())

    one, two, other = (intervals.bootstrap(mean, 5000, 0.95, seed=s, resamples=500) for s in (1, 1, 2))
    assert one == two != other
    full = stats.bootstrap((data,), np.mean, method="BCa", n_resamples=500, rng=0).confidence_interval
    assert (one.low, one.high) == pytest.approx((full.low, full.high), abs=0.01)


def test_resamples_without_a_value_do_not_count() -> None:
    data = np.zeros(30)
    data[:5] = 1.0  # a class of five: 0.4% of resamples have none of it

    def share(indices: Any) -> float:
        rare = data[indices] == 1.0
        return float(rare.mean()) if rare.any() else float("nan")

    found = intervals.bootstrap(share, 30, 0.9, seed=0)
    assert 0 < found.low < 5 / 30 < found.high
    assert intervals.bootstrap(lambda i: 0.5, 30, 0.9, seed=0) == intervals.Interval(0.5, 0.5, 0.9, "bca bootstrap", 30)
    for nothing in (lambda i: float("nan"), lambda i: 1.0 if len(set(i.tolist())) == len(i) else float("nan")):
        with pytest.raises(LeptonflowError, match="statistic"):
            intervals.bootstrap(nothing, 30, 0.9, seed=0, resamples=200)
    with pytest.raises(LeptonflowError, match="examples"):
        intervals.bootstrap(lambda i: 0.5, 0, 0.9, seed=0)

"""Tango's score test, exact McNemar and the paired bootstrap: published values, brute force, simulated truth."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from leptonflow.statistics import paired
from schemas.errors import LeptonflowError

TABLES = [(0, 0, 30), (0, 1, 44), (1, 0, 44), (1, 7, 21), (16, 6, 161), (40, 20, 160), (0, 9, 9), (9, 0, 9), (3, 3, 6)]


def likeliest(b: int, c: int, n: int, d: float) -> float:
    """The restricted maximum likelihood estimate of P(c), by numeric search over all that d allows."""

    def loss(q: float) -> float:
        parts = ((b, q + d), (c, q), (n - b - c, 1 - 2 * q - d))
        return -sum(count * np.log(max(p, 1e-300)) for count, p in parts if count)

    found = minimize_scalar(loss, bounds=(max(0.0, -d), (1 - d) / 2), method="bounded", options={"xatol": 1e-12})
    return float(found.x)


@pytest.mark.parametrize(("b", "c", "n"), TABLES)
@pytest.mark.parametrize("d", [-0.6, -0.1, -0.01, 0.0, 0.05, 0.4])
def test_the_score_uses_the_likeliest_restricted_table(b: int, c: int, n: int, d: float) -> None:
    q = likeliest(b, c, n, d)
    variance = n * (2 * q + d * (1 - d))
    if variance < 1e-6:  # no pair may differ, or all of them differ one way
        assert (b, c, d) == (0, 0, 0.0) and float(paired.score(b, c, n, d)) == 0.0
        return
    # The numeric search stops some 1e-8 short of a boundary.
    assert float(paired.score(b, c, n, d)) == pytest.approx((b - c - n * d) / np.sqrt(variance), rel=1e-4, abs=1e-6)


def test_tangos_own_example_by_hand() -> None:
    """The data of Tango (1998), 44 pairs, 0 and 1 discordant, within 0.1: q is 0.1, Z = 3.4 / sqrt(3.96)."""
    assert float(paired.score(0, 1, 44, -0.1)) == pytest.approx(3.4 / 3.96**0.5)
    found = paired.non_inferiority(0, 1, 44, 0.1, 0.95)
    assert round(float(paired.score(0, 1, 44, -0.1)), 3) == 1.709
    assert (round(found.p_value, 3), found.method) == (0.044, "tango score")
    assert -0.1 < found.low < found.difference < found.high


def test_tangos_interval_as_published() -> None:
    """Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33:2850-2875, tables II and V."""
    found = paired.non_inferiority(1, 7, 21, 0.0, 0.975)
    assert (round(found.low, 3), round(found.high, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(
    ("b", "c", "n", "confidence", "published"),
    [
        (9, 3, 32, 0.975, (-0.027, 0.390)),  # Tango (1998)
        (0, 1, 44, 0.95, (-0.096, 0.037)),  # Tango (1998), the table above, 90% two-sided
        (16, 8, 86, 0.975, (-0.020, 0.207)),  # Agresti and Min (2005), Statistics in Medicine 24:729-740
    ],
)
def test_the_interval_is_that_of_the_published_examples(
    b: int, c: int, n: int, confidence: float, published: tuple[float, float]
) -> None:
    """As Laud's R package ratesci quotes and holds itself against them: its tests/testthat/test3.R, at 08a8e3e."""
    found = paired.non_inferiority(b, c, n, 0.0, confidence)
    assert (found.low, found.high) == pytest.approx(published, abs=0.0005)


def test_at_no_margin_the_score_is_mcnemars() -> None:
    for b, c in ((5, 9), (20, 3), (1, 1)):
        assert float(paired.score(b, c, 100, 0.0)) == pytest.approx((b - c) / np.sqrt(b + c))


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("margin", [0.0, 0.01, 0.1])
@pytest.mark.parametrize(("b", "c", "n"), TABLES)
def test_the_interval_answers_as_the_test_does(b: int, c: int, n: int, margin: float, confidence: float) -> None:
    found = paired.non_inferiority(b, c, n, margin, confidence)
    assert (found.low > -margin) == (found.p_value < 1 - confidence)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    turned = paired.non_inferiority(c, b, n, margin, confidence)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    assert paired.inferiority(b, c, n, margin) == pytest.approx(1 - found.p_value, abs=1e-12)


def test_arrays_are_scored_as_one_by_one() -> None:
    b, c = np.asarray([0, 1, 16, 40]), np.asarray([1, 0, 6, 20])
    together = paired.score(b, c, 200, -0.01)
    assert together.tolist() == [float(paired.score(x, y, 200, -0.01)) for x, y in zip(b, c, strict=True)]


@pytest.mark.parametrize("discordance", [0.05, 0.15, 0.25])
def test_the_chance_of_promoting_the_worse_is_as_said(discordance: float) -> None:
    """On the margin itself 5% pass: 20,000 simulated holdouts of 2,000, within four standard errors."""
    rng = np.random.default_rng(17)
    worse, better = (discordance + 0.01) / 2, (discordance - 0.01) / 2
    b, c, _ = rng.multinomial(2000, [better, worse, 1 - discordance], size=20_000).T
    share = float(paired.passes(b, c, 2000, 0.01, 0.95).mean())
    assert abs(share - 0.05) < 4 * (0.05 * 0.95 / 20_000) ** 0.5 + 0.001


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """The truth is outside iff its own score is beyond z: 90% two-sided over 20,000 tables of 200."""
    rng = np.random.default_rng(5)
    b, c, _ = rng.multinomial(200, [0.08, 0.05, 0.87], size=20_000).T
    inside = np.abs(paired.score(b, c, 200, 0.03)) < stats.norm.ppf(0.95)
    assert abs(float(inside.mean()) - 0.9) < 0.01


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (5, 0), (1, 1), (14, 4), (40, 20), (300, 280)])
def test_exact_mcnemar_is_the_binomial_test(b: int, c: int) -> None:
    found = paired.mcnemar(b, c, 2000, 0.95)
    if b + c == 0:
        assert (found.p_value, found.difference) == (1.0, 0.0) and found.low < 0 < found.high
        return
    theirs = stats.binomtest(b, b + c, 0.5, alternative="greater")
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    exact = stats.binomtest(b, b + c, 0.5).proportion_ci(0.9, method="exact")
    ends = [(2 * end - 1) * (b + c) / 2000 for end in (exact.low, exact.high)]
    assert [found.low, found.high] == pytest.approx(ends, abs=1e-12)
    assert (found.low > 0) == (found.p_value < 0.05)


def test_passes_is_the_gates_own_test() -> None:
    for margin, (b, c, n) in itertools.product((0.0, 0.01, 0.1), TABLES):
        one = paired.mcnemar(b, c, n, 0.95) if margin == 0 else paired.non_inferiority(b, c, n, margin, 0.95)
        assert bool(paired.passes(b, c, n, margin, 0.95)) == (one.p_value < 0.05)


def differences(rng: np.random.Generator, n: int, mean: float) -> np.ndarray[Any, Any]:
    return np.asarray(rng.exponential(1.0, n) - 1.0 + mean)


def test_the_paired_bootstrap_is_scipys_interval_and_answers_alike() -> None:
    gaps = differences(np.random.default_rng(1), 80, 0.1)
    found = paired.bootstrap_difference(lambda i: float(gaps[i].mean()), 80, 0.2, 0.95, seed=4, resamples=20_000)
    theirs = stats.bootstrap((gaps,), np.mean, confidence_level=0.9, n_resamples=20_000, rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert (found.b, found.c, found.n, found.method) == (None, None, 80, "paired bca bootstrap")
    for margin in np.linspace(0, 0.6, 25):
        tried = paired.bootstrap_difference(lambda i: float(gaps[i].mean()), 80, margin, 0.95, seed=4)
        assert (tried.low > -margin) == (tried.p_value < 0.05)


def test_the_paired_bootstrap_promotes_the_worse_as_rarely_as_said() -> None:
    """On the margin itself, 400 samples of 60: near 5%, never as loose as 9%."""
    rng = np.random.default_rng(23)
    passed = 0
    for number in range(400):
        gaps = differences(rng, 60, -0.2)
        found = paired.bootstrap_difference(
            lambda i, g=gaps: float(g[i].mean()), 60, 0.2, 0.95, seed=number, resamples=400
        )
        passed += found.p_value < 0.05
    assert 0.01 < passed / 400 < 0.09


def test_versions_that_never_differ_pass_a_margin_and_are_not_better() -> None:
    same = {margin: paired.bootstrap_difference(lambda i: 0.0, 50, margin, 0.95, seed=0) for margin in (0.0, 0.01)}
    assert (same[0.01].low, same[0.01].high, same[0.01].p_value < 0.05) == (0.0, 0.0, True)
    assert same[0.0].p_value > 0.95


@pytest.mark.parametrize(
    ("b", "c", "n", "margin", "confidence"),
    [
        (1, 1, 0, 0.1, 0.9), (-1, 1, 5, 0.1, 0.9), (3, 3, 5, 0.1, 0.9), (1, 1, 5, -0.1, 0.9), (1, 1, 5, 1.0, 0.9),
        (1, 1, 5, 0.1, 0.5), (1, 1, 5, 0.1, 1.0), (1, 1, 5, float("nan"), 0.9),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(b: int, c: int, n: int, margin: float, confidence: float) -> None:
    with pytest.raises(LeptonflowError) as refused:
        paired.non_inferiority(b, c, n, margin, confidence)
    assert refused.value.expected and "\n" not in refused.value.line()

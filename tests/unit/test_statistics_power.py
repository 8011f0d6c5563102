"""The chance of a pass is exact: against every table by brute force, against simulation, and the issue's figures."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from leptonflow.statistics import paired, power
from schemas.errors import LeptonflowError


def brute(difference: float, discordance: float, n: int, margin: float, confidence: float) -> float:
    """Every (b, c) of n with its trinomial weight."""
    b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    inside = b + c <= n
    b, c = b[inside], c[inside]
    chances = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    weight = stats.multinomial.pmf(np.stack([b, c, n - b - c], axis=1), n, chances)
    return float(weight[paired.passes(b, c, n, margin, confidence)].sum())


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.1, -0.02])
@pytest.mark.parametrize(("difference", "discordance"), [(0.0, 0.02), (0.05, 0.2), (-0.1, 0.1), (0.3, 0.3), (0.1, 1.0)])
@pytest.mark.parametrize("n", [1, 7, 60])
def test_the_chance_is_that_of_every_table(difference: float, discordance: float, n: int, margin: float) -> None:
    exact = power.pass_rate(difference, discordance, n, margin, 0.95)
    assert exact == pytest.approx(brute(difference, discordance, n, margin, 0.95), abs=1e-9)


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.1, -0.02])
def test_with_the_discordant_pairs_fixed_more_for_the_candidate_never_fails(margin: float) -> None:
    """What `power` relies on to find the least that passes by halving."""
    for n in (5, 44, 360):
        for m in range(n + 1):
            b = np.arange(m + 1)
            passed = paired.passes(b, m - b, n, margin, 0.95).astype(int)
            assert (np.diff(passed) >= 0).all()


def test_the_issues_small_holdout() -> None:
    """360 examples, 2% discordant, margin 0.01: an equally accurate candidate passes in 33%."""
    assert round(power.pass_rate(0.0, 0.02, 360, 0.01, 0.95), 2) == 0.33


@pytest.mark.parametrize("discordance", [0.05, 0.15, 0.25])
def test_the_issues_figures_exactly(discordance: float) -> None:
    worse, edge, better = (power.pass_rate(d, discordance, 2000, 0.01, 0.95) for d in (-0.02, -0.01, 0.02))
    assert worse <= 0.01 and better >= 0.8
    assert edge == pytest.approx(0.05, abs=0.002)
    assert (power.needed(0.02, discordance, 0.01, 0.95, 0.8) or 0) <= 2000


@pytest.mark.parametrize("margin", [0.01, 0.05])
@pytest.mark.parametrize("n", [30, 100, 360, 2000])
def test_the_worst_chance_of_promoting_what_is_worse_by_the_margin(n: int, margin: float) -> None:
    """At discordances up to a half."""
    chances = [power.pass_rate(-margin, d, n, margin, 0.95) for d in np.linspace(margin, 0.5, 60)]
    assert 0.05 * 0.95 <= max(chances) <= 0.056


@pytest.mark.parametrize(("least", "most", "bound"), [(30, 399, 0.071), (400, 999, 0.063), (1000, 1400, 0.059)])
def test_the_worst_is_as_documented(least: int, most: int, bound: float) -> None:
    """What docs/gate.md says: a candidate that gets nothing right that the champion gets wrong comes nearest to it."""
    margins = (0.01, 0.015, 0.02, 0.04, 0.05)
    found = [power.pass_rate(-m, m, n, m, 0.95) for n in range(least, most + 1, 1 + (least > 30) * 4) for m in margins]
    assert 0.055 < max(found) <= bound
    text = (Path(__file__).parent.parent.parent / "docs" / "gate.md").read_text()
    assert f"{bound:.1%}" in text
    if least == 30:
        assert power.pass_rate(-0.04, 0.04, 65, 0.04, 0.95) == pytest.approx(max(found))


def test_the_chance_rises_with_the_truth_and_falls_with_confidence() -> None:
    rates = [power.pass_rate(d, 0.1, 500, 0.02, 0.95) for d in np.linspace(-0.1, 0.1, 21)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(rates))
    assert power.pass_rate(0.0, 0.1, 500, 0.02, 0.99) < power.pass_rate(0.0, 0.1, 500, 0.02, 0.9)


@pytest.mark.parametrize("margin", [0.0, 0.01, -0.01])
@pytest.mark.parametrize(("discordance", "wanted"), [(0.05, 0.8), (0.29, 0.8), (0.2, 0.5), (0.1, 0.95)])
def test_what_is_needed_is_where_the_power_is_reached(discordance: float, wanted: float, margin: float) -> None:
    n = power.needed(0.02, discordance, margin, 0.95, wanted)
    assert n is not None
    assert power.pass_rate(0.02, discordance, n, margin, 0.95) >= wanted
    assert power.pass_rate(0.02, discordance, n - 1, margin, 0.95) < wanted
    if margin:
        reach = (stats.norm.ppf(0.95) + stats.norm.ppf(wanted)) / (0.02 + margin)
        assert n == pytest.approx(reach**2 * (discordance - 0.0004), rel=0.04)


def test_what_no_number_of_examples_can_do() -> None:
    assert power.needed(-0.01, 0.1, 0.01, 0.95, 0.8) is None
    assert power.needed(0.0, 0.1, 0.0, 0.95, 0.8) is None
    assert power.needed(0.0, 0.5, 1e-4, 0.95, 0.8) is None  # above ten million
    assert power.needed(0.5, 0.5, 0.01, 0.95, 0.8) is not None


@pytest.mark.parametrize(
    ("difference", "discordance", "n"), [(0.0, 0.0, 10), (0.0, 1.1, 10), (0.2, 0.1, 10), (0.0, 0.1, 0)]
)
def test_an_impossible_truth_is_refused(difference: float, discordance: float, n: int) -> None:
    with pytest.raises(LeptonflowError) as refused:
        power.pass_rate(difference, discordance, n, 0.01, 0.95)
    assert refused.value.expected
    with pytest.raises(LeptonflowError):
        power.needed(0.0, 0.1, 0.01, 0.95, 1.0)

"""The operating curve: the issue's own figures, by simulation and exactly, and what cannot be simulated."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from leptonflow.gate import simulation
from leptonflow.reports import plot_files, plots
from leptonflow.statistics import power
from schemas.errors import UsageError


def at(curve: simulation.Curve, difference: float) -> simulation.Point:
    (found,) = [point for point in curve.points if point.difference == difference]
    return found


@pytest.mark.parametrize("discordance", [0.05, 0.15, 0.25])
def test_the_issues_figures(discordance: float) -> None:
    """Margin 0.01, confidence 0.95, 2,000 examples, 2,000 simulated retrainings for each difference."""
    curve = simulation.simulate(2000, discordance, 0.01, 0.95)
    assert at(curve, -0.02).promoted <= 0.01
    assert at(curve, 0.02).promoted >= 0.8
    equal = at(curve, 0.0)
    expected = power.pass_rate(0.0, discordance, 2000, 0.01, 0.95)
    assert equal.computed == expected
    assert abs(equal.promoted - expected) < 3 * math.sqrt(expected * (1 - expected) / 2000)
    assert curve.reached and curve.needed is not None and curve.needed <= 2000
    assert "80% is reached with 2,000 examples" in curve.sentence


@pytest.mark.parametrize("discordance", [0.29, 0.3, 0.4, 1.0])
def test_from_029_on_80_percent_cannot_be_had_with_2000(discordance: float) -> None:
    curve = simulation.simulate(2000, discordance, 0.01, 0.95)
    assert not curve.reached and curve.needed is not None and curve.needed > 2000
    assert "80% is not reached with 2,000 examples" in curve.sentence
    assert f"{curve.needed:,} are needed" in curve.sentence
    enough = simulation.simulate(curve.needed, discordance, 0.01, 0.95)
    assert enough.reached and enough.chance >= 0.8 and at(enough, 0.02).promoted >= 0.79


def test_below_029_it_can() -> None:
    assert simulation.simulate(2000, 0.28, 0.01, 0.95).reached


@pytest.mark.parametrize("discordance", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("n", [1, 30, 360, 2000])
@pytest.mark.parametrize("margin", [0.0, 0.01, 0.2])
def test_every_point_is_as_computed_within_monte_carlo_error(n: int, discordance: float, margin: float) -> None:
    curve = simulation.simulate(n, discordance, margin, 0.95, seed=1)
    differences = [point.difference for point in curve.points]
    assert differences == sorted(set(differences)) and 0.0 in differences
    assert max(abs(d) for d in differences) <= discordance
    assert [p for p in differences if p < 0] == [-p for p in reversed(differences) if p > 0]
    for point in curve.points:
        error = math.sqrt(point.computed * (1 - point.computed) / curve.retrainings)
        assert abs(point.promoted - point.computed) <= 4.5 * error + 0.001


def test_it_is_seeded() -> None:
    one, two, other = (simulation.simulate(500, 0.1, 0.01, 0.95, seed=seed) for seed in (0, 0, 1))
    assert one == two != other


def test_who_the_power_is_for() -> None:
    """By default a candidate better by 0.02, or by all that the discordance allows."""
    assert simulation.simulate(500, 0.1, 0.01, 0.95).better == 0.02
    assert simulation.simulate(500, 0.015, 0.01, 0.95).better == 0.015
    equal = simulation.simulate(500, 0.1, 0.01, 0.95, better=0.0)
    assert "an equally accurate candidate is promoted in" in equal.sentence
    assert equal.needed == pytest.approx(power.needed(0.0, 0.1, 0.01, 0.95, 0.8), rel=0.05)
    worse = simulation.simulate(500, 0.1, 0.01, 0.95, better=-0.01)
    assert worse.needed is None and not worse.reached
    assert "cannot be reached with any number of examples" in worse.sentence


def test_what_is_needed_agrees_with_what_n_does() -> None:
    """Beside the steps of an exact test too: reached iff needed <= n."""
    for n in range(1610, 1700, 6):
        curve = simulation.simulate(n, 0.1, 0.0, 0.95, retrainings=2)
        assert curve.needed is not None
        wanted = 0.8 + math.sqrt(0.16 / 2)
        assert (curve.chance >= min(wanted, 0.9)) == curve.reached


@pytest.mark.parametrize(
    ("n", "discordance", "wanted", "better"),
    [
        (0, 0.1, 0.8, None), (-5, 0.1, 0.8, None), (10**9, 0.1, 0.8, None), (100, 0.0, 0.8, None),
        (100, 1.5, 0.8, None), (100, -0.1, 0.8, None), (100, math.nan, 0.8, None), (100, 0.1, 0.0, None),
        (100, 0.1, 1.0, None), (100, 0.1, 0.8, 0.2), (100, 0.1, 0.8, math.nan),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated(n: int, discordance: float, wanted: float, better: float | None) -> None:
    with pytest.raises(UsageError) as refused:
        simulation.simulate(n, discordance, 0.01, 0.95, power=wanted, better=better)
    assert refused.value.expected and refused.value.received


def test_the_picture_shows_the_curve_and_stands_alone() -> None:
    curve = simulation.simulate(2000, 0.15, 0.01, 0.95)
    inside = plots.operating_curve(curve)
    assert inside.startswith("<svg") and "var(--series-3)" in inside and "chance of promotion" in inside
    assert not [colour for colour in plots._PAGE if colour in inside]
    alone = plot_files.standalone(inside)
    root = ElementTree.fromstring(alone)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    style = root.find("{http://www.w3.org/2000/svg}style")
    assert style is not None and "prefers-color-scheme: dark" in (style.text or "")
    shown = "".join(root.itertext())
    for text in ("computed", "simulated", "bound", "candidate − champion"):
        assert text in shown

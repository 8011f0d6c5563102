"""What a gate's paired rule would do with candidates whose true difference is known. Pure and seeded.

Each simulated retraining draws a holdout of n examples: on some the candidate alone is right, on some
the champion alone, and the rule's own test (leptonflow.statistics.paired) decides. Beside each share
stands the exact chance, which needs no drawing. What does not belong here: where a pipeline's n and
discordance come from (leptonflow.operating), and how a curve looks (plots, cli).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import UsageError

RETRAININGS = 2000  # simulated for each difference
BETTER = 0.02  # the candidate for whom a power is wanted, where nobody says another
SPAN, STEPS = 0.04, 8  # the curve reaches at least this far to each side, in so many steps


@dataclass(frozen=True)
class Point:
    """Of the candidates with this true difference, the share promoted: as simulated, and as computed exactly."""

    difference: float
    promoted: float
    computed: float


@dataclass(frozen=True)
class Curve:
    """The operating curve of one rule, differences ascending.

    better   the true difference for whom `power` is wanted; chance: how often it passes with n (exact)
    needed   the examples with which it does; null where no number up to ten million will do
    """

    n: int
    discordance: float
    margin: float
    confidence: float
    power: float
    points: tuple[Point, ...]
    better: float
    chance: float
    needed: int | None
    retrainings: int

    @property
    def reached(self) -> bool:
        """With n examples the wanted power can be had."""
        return self.needed is not None and self.needed <= self.n

    @property
    def sentence(self) -> str:
        """What n can do for the candidate who is better, and the size that would."""
        who = f"a candidate truly better by {self.better:g}" if self.better > 0 else "an equally accurate candidate"
        if self.better < 0:
            who = f"a candidate truly worse by {-self.better:g}"
        passes = f"{who} is promoted in {self.chance:.1%} (computed)"
        if self.reached:
            return f"{self.power:.0%} can be had with {self.n:,} examples: {passes}; {self.needed:,} would do"
        if self.needed is None:
            return f"{self.power:.0%} cannot be had with any number of examples: {passes}"
        near = f", too near it for {self.retrainings:,} retrainings to show" if self.chance >= self.power else ""
        return f"{self.power:.0%} cannot be had with {self.n:,} examples: {passes}{near}; {self.needed:,} are needed"


def simulate(
    n: int,
    discordance: float,
    margin: float,
    confidence: float,
    *,
    power: float = 0.8,
    better: float | None = None,
    retrainings: int = RETRAININGS,
    seed: int = 0,
) -> Curve:
    """The operating curve of `against_champion` on accuracy. The same arguments give the same curve.

    n            holdout examples
    discordance  the share on which exactly one of candidate and champion is right
    margin       how much worse a candidate may be; negative: how much better it has to be (superiority)
    better       the true difference for whom `power` is wanted; default 0.02, or the discordance if smaller

    (b, c, rest) ~ Multinomial(n; (discordance + difference) / 2, (discordance - difference) / 2,
    1 - discordance): McNemar's model of the paired table (1947, Psychometrika 12:153-157).
    `needed` spares one standard error of `retrainings` drawings, sqrt(power (1 - power) / retrainings),
    so that what it promises is also what a simulation of that many shows.
    Raises UsageError on what is out of bounds.
    """
    import numpy as np

    from leptonflow.statistics import paired
    from leptonflow.statistics.power import pass_rate

    better = min(BETTER, discordance) if better is None else better
    check(n, discordance, power, better)
    random = np.random.default_rng(seed)
    points = []
    for difference in differences(discordance, margin, better):
        chances = np.asarray([discordance + difference, discordance - difference]) / 2
        b, c, _ = random.multinomial(n, [*chances, max(0.0, 1 - chances.sum())], size=retrainings).T
        share = float(paired.passes(b, c, n, margin, confidence).mean())
        points.append(Point(difference, share, pass_rate(difference, discordance, n, margin, confidence)))
    wanted = min(power + math.sqrt(power * (1 - power) / retrainings), (1 + power) / 2)
    chance = pass_rate(better, discordance, n, margin, confidence)
    needed = _needed(n, chance >= wanted, better, discordance, margin, confidence, wanted)
    return Curve(
        n=n, discordance=discordance, margin=margin, confidence=confidence, power=power, points=tuple(points),
        better=better, chance=chance, needed=needed, retrainings=retrainings,
    )  # fmt: skip


def differences(discordance: float, margin: float, better: float) -> Sequence[float]:
    """The true differences of a curve, ascending: even steps about 0, and those that a reader asks about.

    A difference is at most the discordance either way: there the curve ends.
    """
    span = min(max(SPAN, 2 * abs(margin), 2 * abs(better)), discordance)
    even = [span * step / STEPS for step in range(-STEPS, STEPS + 1)]
    asked = [sign * d for d in (BETTER, margin, better) for sign in (-1, 1)]
    rounded = {round(d, 10) + 0.0 for d in (*even, *asked)}
    return sorted(d for d in rounded if abs(d) <= discordance)


def check(n: int, discordance: float, power: float, better: float) -> None:
    """Raise UsageError where nothing can be simulated with these."""
    from leptonflow.statistics.power import MOST

    if not 1 <= n <= MOST:
        raise UsageError("this is no size of a holdout", expected=f"from 1 to {MOST:,} examples", received=str(n))
    if not 0 < discordance <= 1:
        raise UsageError(
            "this is no discordance", expected="above 0 and at most 1: the share of examples on which exactly one of "
            "candidate and champion is right", received=f"{discordance:g}",
        )  # fmt: skip
    if not 0 < power < 1:
        raise UsageError("this is no power", expected="above 0 and below 1", received=f"{power:g}")
    if not abs(better) <= discordance:
        raise UsageError(
            "no candidate can differ by more than the discordance",
            expected=f"from {-discordance:g} to {discordance:g}", received=f"{better:g}",
        )  # fmt: skip


def _needed(
    n: int, reached: bool, better: float, discordance: float, margin: float, confidence: float, wanted: float
) -> int | None:
    """As `power.needed`; beside an exact test's steps it never contradicts what n itself does."""
    from leptonflow.statistics.power import needed, pass_rate

    found = needed(better, discordance, margin, confidence, wanted)
    if found is None:
        return n if reached else None
    if reached:
        return min(found, n)
    if found <= n:  # n lies in a dip beyond it
        found = n + 1
        while pass_rate(better, discordance, found, margin, confidence) < wanted:
            found += 1
    return found

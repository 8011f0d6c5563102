"""What a gate would do with candidates whose true difference is known. Pure and seeded.

Each simulated retraining draws a holdout of n examples: on some the candidate alone is right, on some
the champion alone, and the rules' own tests (leptonflow.gate.drawn_rules) decide. Beside each share stands the
exact chance of `against_champion` alone, which needs no drawing. What does not belong here: where a
pipeline's n and discordance come from (leptonflow.runs.operating_curve), and how a curve looks (plots, cli).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.gate.drawn_rules import Drawn, Draws, against
from schemas.config import AgainstChampion, Pipeline
from schemas.errors import ConfigurationError, UsageError
from schemas.text import noun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRIC = "accuracy"  # the share of right predictions: all that is simulated
CONFIDENCE = 0.95  # of an against_champion rule that says none
RETRAININGS = 2000  # simulated for each difference
BETTER = 0.02  # the candidate for whom a power is wanted, where nobody says another
SPAN, STEPS = 0.04, 8  # the curve reaches at least this far to each side, in so many steps


@dataclass(frozen=True)
class Point:
    """Of the candidates with this true difference, the share promoted by every simulated rule.

    computed  the exact chance to pass `against_champion` alone
    by_rule   the simulated share that each rule passes, in the order of `Curve.rules`; null where it is not simulated
    """

    difference: float
    promoted: float
    computed: float
    by_rule: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Simulated:
    """A rule of the gate; why: null where it is simulated."""

    rule: str
    metric: str | None
    simulated: bool
    why: str | None


@dataclass(frozen=True)
class Curve:
    """The operating curve of a gate, differences ascending. All but `points` is of `against_champion` alone.

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
    rules: tuple[Simulated, ...] = ()
    accuracy: float | None = None  # the champion's, where a rule needed it

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
        wanted, together = f"{100 * self.power:.12g}%", sum(rule.simulated for rule in self.rules)
        alone = all(rule.rule.startswith("against_champion") for rule in self.rules) and together < 2
        passes = f"{who} {'is promoted' if alone else 'passes against_champion'} in {self.chance:.1%} (computed)"
        if together > 1:
            nearest = min(self.points, key=lambda point: abs(point.difference - self.better))
            passes += f", and all {together} simulated rules in {nearest.promoted:.1%}"
        examples = f"{self.n:,} {noun(self.n, 'example')}"
        if self.reached:
            return f"{wanted} is reached with {examples}: {passes}; {self.needed:,} would be enough"
        if self.needed is None:
            return f"{wanted} cannot be reached with any number of examples: {passes}"
        near = f", too close for {self.retrainings:,} retrainings to show" if self.chance >= self.power else ""
        return f"{wanted} is not reached with {examples}: {passes}{near}; {self.needed:,} are needed"


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
    accuracy: float | None = None,
    rules: Sequence[Drawn] | None = None,
) -> Curve:
    """The operating curve of `against_champion` on accuracy, or of all `rules`. The same arguments give the same curve.

    n            holdout examples
    discordance  the share on which exactly one of candidate and champion is right
    margin       how much worse a candidate may be; negative: how much better it has to be (superiority)
    better       the true difference for whom `power` is wanted; default 0.02, or the discordance if smaller
    accuracy     the champion's, where a rule needs it: what both get right is then drawn too. Where no two
                 versions have it with this discordance and difference, the nearest that two can have
    rules        all are judged on the same draws; default: `against_champion` alone

    (b, c, rest) ~ Multinomial(n; (discordance + difference) / 2, (discordance - difference) / 2,
    1 - discordance): McNemar's model of the paired table (1947, Psychometrika 12:153-157).
    `needed` spares one standard error of `retrainings` drawings, sqrt(power (1 - power) / retrainings),
    so that what it promises is also what a simulation of that many shows.
    Raises UsageError on what is out of bounds.
    """
    import numpy as np

    from leptonflow.statistics.power import pass_rate

    better = min(BETTER, discordance) if better is None else better
    check(n, discordance, power, better)
    rules = (against(margin, confidence),) if rules is None else rules
    truths = differences(discordance, margin, better)
    draws = _draw(n, discordance, truths, retrainings, seed, accuracy)
    judged = [None if rule.judge is None else rule.judge(draws) for rule in rules]  # each P x R
    together = np.ones_like(draws.b, bool)
    for passed in judged:
        together &= True if passed is None else passed
    points = [
        Point(
            difference,
            float(together[at].mean()),
            pass_rate(difference, discordance, n, margin, confidence),
            tuple(None if passed is None else float(passed[at].mean()) for passed in judged),
        )
        for at, difference in enumerate(truths)
    ]
    wanted = min(power + math.sqrt(power * (1 - power) / retrainings), (1 + power) / 2)
    chance = pass_rate(better, discordance, n, margin, confidence)
    needed = _needed(n, chance >= wanted, better, discordance, margin, confidence, wanted)
    return Curve(
        n=n, discordance=discordance, margin=margin, confidence=confidence, power=power, points=tuple(points),
        better=better, chance=chance, needed=needed, retrainings=retrainings,
        rules=tuple(Simulated(rule.rule, rule.metric, rule.judge is not None, rule.why) for rule in rules),
        accuracy=accuracy,
    )  # fmt: skip


def _draw(
    n: int, discordance: float, truths: Sequence[float], retrainings: int, seed: int, accuracy: float | None
) -> Draws:
    """`retrainings` holdouts for each true difference. b and c are the same whatever else is drawn."""
    import numpy as np

    random, others = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    b, c = np.zeros((2, len(truths), retrainings), np.int64)
    right = None if accuracy is None else np.zeros_like(b)
    for at, difference in enumerate(truths):
        chances = np.asarray([discordance + difference, discordance - difference]) / 2
        rest = max(0.0, 1 - chances.sum())
        b[at], c[at], same = random.multinomial(n, [*chances, rest], size=retrainings).T
        if accuracy is not None and right is not None:
            both = min(max(accuracy - chances[1], 0.0), rest)
            right[at] = b[at] + others.binomial(same, both / rest if rest else 0.0)
    return Draws(n, b, c, right)


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
        raise UsageError("not a valid holdout size", expected=f"from 1 to {MOST:,} examples", received=str(n))
    if not 0 < discordance <= 1:
        raise UsageError(
            "not a valid discordance", expected="above 0 and at most 1: the share of examples on which exactly one of "
            "candidate and champion is right", received=f"{discordance:g}",
        )  # fmt: skip
    if not 0 < power < 1:
        raise UsageError("not a valid power", expected="above 0 and below 1", received=f"{power:g}")
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


def strictest_rule(config: Pipeline) -> tuple[float, float]:
    """(margin, confidence) of the gate's `against_champion` on accuracy; of several, the strictest.

    Negative where the rule asks for superiority by that margin.
    """
    rules = [r for r in config.gate if isinstance(r, AgainstChampion) and r.metric == METRIC]
    if not rules:
        raise ConfigurationError(
            f"the gate of {config.name} compares no candidate's accuracy with the champion's: nothing to simulate",
            expected="a rule against_champion with metric: accuracy",
            received=", ".join(f"{r.rule} ({getattr(r, 'metric', None) or '-'})" for r in config.gate),
            hint="Add {rule: against_champion, metric: accuracy, margin: 0.01} to gate",
        )
    beyond = [r.margin for r in rules if r.margin >= 1]
    if beyond:
        raise ConfigurationError(
            "a margin of 1 or more has no effect: accuracies differ by 1 at most", expected="a margin below 1",
            received=f"{beyond[0]:g}", hint="Fix the margin of against_champion",
        )  # fmt: skip
    superior = [getattr(r, "test", None) == "superiority" for r in rules]
    pairs = [
        (0.0 - r.margin if better else r.margin, float(getattr(r, "confidence", None) or CONFIDENCE))
        for r, better in zip(rules, superior, strict=True)
    ]
    return min(pairs, key=lambda pair: (pair[0], -pair[1]))


def independent_discordance(true: NDArray[np.float64]) -> float:
    """The discordance 2 mean(p (1 - p)) of two independent models, each right with the probability p of the true label.

    true: N out-of-fold probabilities of the true label; 0 of none.
    """
    return float(2 * (true * (1 - true)).mean()) if len(true) else 0.0

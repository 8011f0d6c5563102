"""Shares and differences of examples that come in groups: the cluster bootstrap, whose unit is the group.

Ten examples of one patient tell less than one example each of ten: an interval that takes them for independent is too
narrow. So whole groups are drawn with replacement (Davison and Hinkley 1997, Bootstrap Methods and their Application,
section 3.8; Field and Welsh 2007, Journal of the Royal Statistical Society B 69:369-390), the jackknife of BCa leaves
out a group at a time, and the levels are widened for few groups (`intervals.Drawn`).

What does not belong here: which example is in which group, and a metric that is no mean over examples (intervals.draw
over the groups).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from leptonflow.statistics import checks, intervals
from leptonflow.statistics.intervals import Drawn, Interval
from leptonflow.statistics.paired import Paired

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

METHOD = "cluster bca bootstrap"
RESAMPLES = 2000
BATCH = 1 << 22  # weights held at once


def enough(confidence: float) -> int:
    """The least number of groups with which a test can pass: with fewer no p is below 1 - confidence."""
    many = 2
    while intervals.narrowed(1 / (RESAMPLES + 1), many) >= 1 - confidence:
        many += 1
    return many


def mean(values: NDArray[np.float64], groups: Ints, *, seed: int, resamples: int = RESAMPLES) -> Drawn:
    """The mean of N values, whose groups have N numbers, with its resamples by group.

    Raises LeptonflowError where there are fewer than 2 groups or resamples.
    """
    import numpy as np

    _, place = np.unique(groups, return_inverse=True)
    sizes, sums = np.bincount(place), np.bincount(place, weights=values)
    many = len(sizes)
    if many < 2:
        raise checks.refuse("a number of groups", "2 or more", many)
    random, step = np.random.default_rng(seed), max(1, BATCH // many)
    drawn = []
    for start in range(0, resamples, step):
        counts = random.multinomial(many, np.full(many, 1 / many), size=min(step, resamples - start))
        drawn.append((counts @ sums) / (counts @ sizes))
    left = (sums.sum() - sums) / (sizes.sum() - sizes)
    return intervals.corrected(float(values.mean()), np.concatenate(drawn), left, units=many)


def share(right: Bools, groups: Ints, confidence: float, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """The share of N examples that are right, never told more exactly than of N independent ones (Wilson 1927).

    So it has a width where all are right too. Of a single group nothing follows for others: from 0 to 1.
    """
    import numpy as np

    n = len(right)
    exact = intervals.wilson(int(right.sum()), n, confidence)
    if len(np.unique(groups)) < 2:
        return Interval(0.0, 1.0, confidence, METHOD, n)
    drawn = mean(right.astype(np.float64), groups, seed=seed, resamples=resamples)
    low, high = (drawn.quantile(level) for level in ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(min(low, exact.low), max(high, exact.high), confidence, METHOD, n)


def difference(drawn: Drawn, bound: float, exact: Paired, confidence: float) -> Paired:
    """Candidate against champion; drawn: `mean` of +1 where only the candidate is right, -1 where only the champion.

    The hypothesis: the true difference is at most `bound`. exact: the test that takes the examples for independent.
    Groups can only take certainty away, so that p and the interval are never better than its own; where the two differ
    on few examples, no resample would be far from 0. Of fewer groups than `enough` nothing follows: from -1 to 1.
    """
    shown = drawn.units is None or drawn.units >= enough(confidence)
    return replace(
        exact,
        p_value=max(exact.p_value, drawn.level(bound)),
        low=min(exact.low, drawn.quantile(1 - confidence)) if shown else -1.0,
        high=max(exact.high, drawn.quantile(confidence)) if shown else 1.0,
        b=None,
        c=None,
        method=f"paired {METHOD}",
    )


def inferiority(drawn: Drawn, margin: float, exact: float) -> float:
    """p of the opposite hypothesis, difference >= -margin, as `paired.inferiority` gives it of independent examples."""
    return max(exact, 1 - drawn.level(0.0 - margin))

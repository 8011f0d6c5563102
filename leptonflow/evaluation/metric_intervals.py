"""How much of a metric may be chance: an interval for candidate, champion and their difference, for each metric.

Pure functions of the scores on one holdout; what they cost is bounded, however large it is. The numbers
themselves are those of evaluation, and whether an interval promotes anything is the gate's: it asks about
one end, at its own confidence. What does not belong here: how an interval is shown (html_report).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.workloads.base import Metric, Scores, right

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

RESAMPLES = 2000
FEWEST = 200  # resamples, and groups that the jackknife leaves out, where the next allows no more
MOST_CELLS = 4_000_000  # numbers drawn for all resamples together: half a second
BATCH = 1 << 22  # numbers held at once
SEED = 0  # the same predictions have the same intervals

Ends = tuple[float, float]


@dataclass(frozen=True)
class Between:
    """Two-sided intervals of one metric; difference: candidate minus champion. None where there is none to draw."""

    candidate: Ends | None
    champion: Ends | None = None
    difference: Ends | None = None


def between(
    candidate: Scores, champion: Scores | None, confidence: float, groups: Ints | None = None
) -> dict[str, Between]:
    """Of each metric over all examples that has a value, by its name; {} without an example.

    candidate and champion are of the same N examples. The share of right predictions has Wilson's interval (1927),
    and Tango's (1998) of the difference. The others have the BCa bootstrap over the examples (Efron 1987), paired
    for the difference; None where no resample differs from the next (every prediction right), since such an interval
    says nothing. groups: the number of the group of each example, where they come in groups. All metrics then have the
    bootstrap over the groups, and a share of right predictions never a narrower interval than of independent examples.
    """
    import numpy as np

    if not len(candidate):
        return {}
    pair = [candidate] if champion is None else [candidate, champion]
    once = np.ones((1, len(candidate)), np.int64)
    found = {}
    for metric in candidate.metrics:
        if metric.label is None and all(np.isfinite(scores.value(metric, once)).all() for scores in pair):
            shares = [share for scores in pair if (share := right(scores, metric)) is not None]
            exact = _exact(*shares, confidence=confidence) if len(shares) == len(pair) else None
            if exact is None or groups is not None:
                drawn = _bootstrap(pair, metric, confidence, groups)
                exact = drawn if exact is None else _wider(drawn, exact)
            found[metric.name] = exact
    return found


def _wider(one: Between, other: Between) -> Between:
    """The intervals that hold both."""

    def hull(name: str) -> Ends | None:
        ends = [each for each in (getattr(one, name), getattr(other, name)) if each is not None]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None

    return Between(hull("candidate"), hull("champion"), hull("difference"))


def _exact(mine: Bools, theirs: Bools | None = None, *, confidence: float) -> Between:
    from leptonflow.statistics.intervals import wilson
    from leptonflow.statistics.paired import non_inferiority

    n = len(mine)

    def own(share: Bools) -> Ends:
        interval = wilson(int(share.sum()), n, confidence)
        return interval.low, interval.high

    if theirs is None:
        return Between(own(mine))
    # Its interval is two-sided at 2 * confidence - 1; the margin plays no part in it.
    won, lost = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    test = non_inferiority(won, lost, n, margin=0.0, confidence=(1 + confidence) / 2)
    return Between(own(mine), own(theirs), (test.low, test.high))


def _bootstrap(pair: list[Scores], metric: Metric, confidence: float, groups: Ints | None) -> Between:
    """To resample N examples is to draw anew how many there are of each kind.

    The examples of a kind contribute the same to the metric of both; the C kinds can be far fewer than the examples.
    """
    import numpy as np

    alike = np.stack([scores.alike(metric) for scores in pair], axis=1)
    _, first, kind, counts = np.unique(alike, axis=0, return_index=True, return_inverse=True, return_counts=True)
    few = [scores.of(first) for scores in pair]
    random, n, many = np.random.default_rng(SEED), len(alike), len(counts)

    def measured(weights: Ints) -> Floats:  # (R, C) -> (R, 1 or 2)
        return np.stack([scores.value(metric, weights) for scores in few], axis=1)

    value = measured(counts[None, :])[0]
    if groups is not None:
        drawn, left = _over_groups(groups, kind.reshape(-1), counts, measured, random)
        return _all_ends(value, drawn, left, np.ones(len(left), np.int64), confidence, len(np.unique(groups)))
    rows, step = _most(many), max(1, BATCH // many)
    sizes = (min(step, rows - start) for start in range(0, rows, step))
    drawn = np.concatenate([measured(random.multinomial(n, counts / n, size=size)) for size in sizes])
    left, times = _without(counts, measured, step, random)
    return _all_ends(value, drawn, left, times, confidence)


def _over_groups(
    groups: Ints, kind: Ints, counts: Ints, measured: Callable[[Ints], Floats], random: np.random.Generator
) -> tuple[Floats, Floats]:
    """(drawn, left): resamples of the groups, and the values without each of them. kind: of each example.

    Of very many groups, without some at a time.
    """
    import numpy as np
    from scipy.sparse import csr_array

    names, place = np.unique(groups, return_inverse=True)
    units, many = len(names), len(counts)
    rows, step = _most(max(units, many)), max(1, BATCH // max(units, many))
    some = np.arange(units) if units <= rows else random.permutation(units) % rows  # what is left out together

    def counted(of: Ints) -> csr_array:  # how many examples of each kind there are in each
        return csr_array((np.ones(len(kind), np.int64), (of, kind)), shape=(int(of.max()) + 1, many))

    table, apart = counted(place), counted(some[place])
    equal, drawn, left = np.full(units, 1 / units), [], []
    for start in range(0, rows, step):
        times = random.multinomial(units, equal, size=min(step, rows - start))
        drawn.append(measured(times @ table))
    for start in range(0, apart.shape[0], step):
        left.append(measured(counts - apart[start : start + step].toarray()))
    return np.concatenate(drawn), np.concatenate(left)


def _without(
    counts: Ints, measured: Callable[[Ints], Floats], step: int, random: np.random.Generator
) -> tuple[Floats, Ints]:
    """The jackknife: (G, 1 or 2) values without one example of each kind, and for how many examples each stands.

    Of very many kinds, without all examples of a group of kinds.
    """
    import numpy as np

    many, most = len(counts), _most(len(counts))
    if many <= most:
        kinds, times = [np.array([kind]) for kind in range(many)], counts
    else:
        kinds = np.array_split(random.permutation(many), most)
        times = np.array([counts[group].sum() for group in kinds])
    values = []
    for start in range(0, len(kinds), step):
        some = kinds[start : start + step]
        weights = np.repeat(counts[None, :], len(some), axis=0)
        for row, group in enumerate(some):
            weights[row, group] = weights[row, group] - 1 if many <= most else 0
        values.append(measured(weights))
    return np.concatenate(values), times


def _most(many: int) -> int:
    """How many resamples of so many numbers are made."""
    return max(FEWEST, min(RESAMPLES, MOST_CELLS // many))


def _all_ends(
    value: Floats, drawn: Floats, left: Floats, weights: Ints, confidence: float, units: int | None = None
) -> Between:
    """From one or two columns, candidate and champion: value (2), drawn (R, 2), left (G, 2)."""

    def ends(column: Callable[[Floats], Floats]) -> Ends | None:
        return _ends(float(column(value)), column(drawn), column(left), weights, confidence, units)

    if len(value) == 1:
        return Between(ends(lambda each: each[..., 0]))
    return Between(
        ends(lambda each: each[..., 0]), ends(lambda each: each[..., 1]), ends(lambda each: each[..., 0] - each[..., 1])
    )


def _ends(
    value: float, drawn: Floats, left: Floats, weights: Ints, confidence: float, units: int | None
) -> Ends | None:
    """Efron's BCa interval (1987) of `value`: drawn are R resampled values, left the value without one example.

    weights: for how many examples each of `left` stands. units: see intervals.Drawn.
    """
    import numpy as np

    from leptonflow.statistics.intervals import corrected

    drawn, there = drawn[np.isfinite(drawn)], np.isfinite(left)
    if len(drawn) < FEWEST / 2 or np.ptp(drawn) < 1e-12:
        return None
    bca = corrected(value, drawn, left[there], weights[there], units)
    return bca.quantile((1 - confidence) / 2), bca.quantile((1 + confidence) / 2)

"""Confidence intervals of one number: Wilson's for a proportion, the BCa bootstrap for anything else.

Both are two-sided at the confidence that they are given: at 0.95 each end is missed in 2.5%. What does
not belong here: comparing two versions (paired).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.statistics import checks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUPS = 2000  # the jackknife leaves out groups of examples where there are more than this
BATCH = 1 << 22  # indices drawn at once


@dataclass(frozen=True)
class Interval:
    """From `low` to `high` at `confidence` (two-sided), by `method` over `n` examples."""

    low: float
    high: float
    confidence: float
    method: str
    n: int


def wilson(successes: int, n: int, confidence: float) -> Interval:
    """The score interval of a proportion, without continuity correction.

    Source: Wilson (1927), Journal of the American Statistical Association 22:209-212; as
    recommended by Brown, Cai and DasGupta (2001), Statistical Science 16:101-133.
    Raises LeptonflowError where n < 1, successes are outside 0..n or confidence outside (0, 1).
    """
    from scipy.special import ndtri

    checks.proportion("a confidence", confidence)
    checks.size(n)
    if not 0 <= successes <= n:
        raise checks.refuse("a count of successes", f"from 0 to {n}", successes)
    z = float(ndtri((1 + confidence) / 2))
    share, widened = successes / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / widened
    half = z / widened * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Interval(low=low, high=high, confidence=confidence, method="wilson", n=n)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], n: int, confidence: float, *, seed: int, resamples: int = 2000,
    few: bool = False,
) -> Interval:  # fmt: skip
    """The bias-corrected and accelerated (BCa) bootstrap interval of statistic(indices into 0..n-1).

    Examples are drawn with replacement `resamples` times. A resample whose statistic is not finite
    (a class is missing from it) does not count; LeptonflowError where that is so of half of them or
    of the sample itself. A statistic that never varies has an interval of no width. few: see `draw`.

    Source: Efron (1987), Journal of the American Statistical Association 82:171-185; Efron and
    Tibshirani (1993), An Introduction to the Bootstrap, chapter 14. Where n > 2000 the acceleration
    is from a jackknife over 2000 groups of examples.
    """
    checks.proportion("a confidence", confidence)
    drawn = draw(statistic, n, seed=seed, resamples=resamples, few=few)
    low, high = (drawn.quantile(level) for level in ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(low=low, high=high, confidence=confidence, method="bca bootstrap", n=n)


@dataclass(frozen=True)
class Drawn:
    """A statistic, its value in every resample (R, sorted), and BCa's two corrections.

    units: how many were drawn in each resample, where they may be few, such as groups: levels are `widened` for them.
    """

    value: float
    resampled: NDArray[np.float64]
    bias: float  # z0
    acceleration: float  # a
    units: int | None = None

    def quantile(self, level: float) -> float:
        """BCa's end point at `level` (0.05: the lower end of a two-sided 0.9): Efron 1987, formula 2.3."""
        import numpy as np
        from scipy.special import ndtr, ndtri

        level = widened(level, self.units)
        if not 0 < level < 1:  # beyond what a float can tell: the extreme resample
            return float(self.resampled[0 if level <= 0 else -1])
        shifted = self.bias + float(ndtri(level))
        shrunk = 1 - self.acceleration * shifted
        corrected = float(ndtr(self.bias + shifted / shrunk)) if shrunk > 0 else float(level > 0.5)
        return float(np.quantile(self.resampled, corrected))

    def level(self, value: float) -> float:
        """The level at which BCa's end point is `value`, which inverts `quantile`; never below 1/(R+1)."""
        import numpy as np
        from scipy.special import ndtr, ndtri

        count = len(self.resampled)
        above = int(np.searchsorted(self.resampled, value, side="right"))
        if above == 0 or above == count:
            share = above / count
        else:  # numpy's linear quantile, read backwards
            left, right = self.resampled[above - 1], self.resampled[above]
            share = (above - 1 + (value - left) / (right - left)) / (count - 1)
        least = 1 / (count + 1)
        away = float(ndtri(min(max(share, least), 1 - least))) - self.bias
        grown = 1 + self.acceleration * away
        found = float(away > 0) if grown <= 0 else float(ndtr(away / grown - self.bias))
        return narrowed(min(max(found, least), 1 - least), self.units)


def widened(level: float, units: int | None) -> float:
    """The level at which a bootstrap of few units has the end point that is wanted at `level`: Student's t for normal.

    Source: Hesterberg (2015), The American Statistician 69:371-386. None: the units are many.
    """
    from scipy.special import ndtr, stdtrit

    return level if units is None else float(ndtr(stdtrit(units - 1, level) * (units / (units - 1)) ** 0.5))


def narrowed(level: float, units: int | None) -> float:
    """`widened` read backwards."""
    from scipy.special import ndtri, stdtr

    return level if units is None else float(stdtr(units - 1, ndtri(level) * ((units - 1) / units) ** 0.5))


def draw(
    statistic: Callable[[NDArray[np.int64]], float], n: int, *, seed: int, resamples: int, few: bool = False
) -> Drawn:
    """Resample, and find BCa's corrections. Raises as `bootstrap` does.

    few: the n may be few and no examples, such as groups of them: levels are widened, and n < 2 is refused.
    """
    import numpy as np

    checks.size(n)
    if few and n < 2:
        raise checks.refuse("a number of groups", "2 or more", n)
    if resamples < 2:
        raise checks.refuse("a number of resamples", "2 or more", resamples)
    everything = np.arange(n, dtype=np.int64)
    value = float(statistic(everything))
    checks.finite("a statistic", value)
    random = np.random.default_rng(seed)
    rows = max(1, BATCH // n)
    found = np.concatenate(
        [
            np.asarray([statistic(indices) for indices in random.integers(0, n, (min(rows, resamples - start), n))])
            for start in range(0, resamples, rows)
        ]
    ).astype(np.float64)
    found = found[np.isfinite(found)]
    if len(found) <= resamples / 2:
        raise checks.refuse("a statistic", f"finite in most of {resamples} resamples", f"finite in {len(found)}")
    return corrected(value, found, _jackknife(statistic, n, random), units=n if few else None)


def corrected(
    value: float,
    resampled: NDArray[np.float64],
    left: NDArray[np.float64],
    weights: NDArray[np.int64] | None = None,
    units: int | None = None,
) -> Drawn:
    """BCa's corrections: the bias by the share of resamples below the value (Efron 1987), half of those equal to it;
    the acceleration by the skewness of the jackknife's values over six (Efron and Tibshirani 1993, formula 14.15).

    resampled: R finite values. left: the value without one example (or group of them), weights: for how many each of
    them stands; 0 without any. units: see `Drawn`.
    """
    import numpy as np
    from scipy.special import ndtri

    found = np.sort(resampled)
    below = (np.searchsorted(found, value, "left") + np.searchsorted(found, value, "right")) / (2 * len(found))
    least = 1 / (len(found) + 1)
    bias = float(ndtri(min(max(float(below), least), 1 - least)))
    if not len(left):
        return Drawn(value, found, bias, acceleration=0.0, units=units)
    away = np.average(left, weights=weights) - left
    times = np.ones_like(away) if weights is None else weights
    spread = float((times * away**2).sum()) ** 1.5
    skewed = float((times * away**3).sum()) / (6 * spread) if spread > 1e-300 else 0.0
    return Drawn(value, found, bias, acceleration=skewed, units=units)


def _jackknife(
    statistic: Callable[[NDArray[np.int64]], float], n: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """The finite values without one of GROUPS groups of examples each; none of a single example."""
    import numpy as np

    if n < 2:
        return np.zeros(0)
    groups = np.array_split(random.permutation(n), min(n, GROUPS))
    kept = np.ones(n, dtype=bool)
    values = []
    for group in groups:
        kept[group] = False
        values.append(statistic(np.flatnonzero(kept)))
        kept[group] = True
    left = np.asarray(values, np.float64)
    return left[np.isfinite(left)]

"""Do two samples come from one distribution? Numbers, names, and vectors, each with an effect size.

A p-value alone says "different" of any two samples that are large enough. So each test has an effect size that does not
grow with the sample, by which a difference can be called too small to matter. What does not belong here: which columns
are compared, and what is too small (monitoring).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.statistics import checks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST_EXPECTED = 5.0  # of a name in either sample: Cochran (1954); rarer names are counted together
FEWEST_SUMMED = 10.0  # of a column of probabilities in either sample; below it the normal approximation is too rough
FEATURES = 256  # random frequencies, a cosine and a sine of each
PERMUTATIONS = 200
WIDTH_FROM = 500  # vectors whose distances the kernel's width is taken from


@dataclass(frozen=True)
class TwoSamples:
    """effect: 0 where there is no difference. n: of the first sample, m: of the second.

    of      the name, or the number of the column, that differs most; None where there are none
    values  its share or mean in either sample; None of vectors
    """

    effect: float
    p_value: float
    n: int
    m: int
    method: str
    of: str | int | None = None
    values: tuple[float, float] | None = None


def numbers(first: Floats, second: Floats) -> TwoSamples:
    """N and M finite numbers. effect: the largest distance of the two distribution functions, 0..1; values: the means.

    Source: Smirnov (1948), Annals of Mathematical Statistics 19:279-281, by its asymptotic distribution; with ties the
    p-value is too large, never too small. Raises LeptonflowError where a sample is empty.
    """
    from scipy.stats import ks_2samp

    checks.size(min(len(first), len(second)))
    test = ks_2samp(second, first, method="asymp")
    means = (float(first.mean()), float(second.mean()))
    return TwoSamples(float(test.statistic), float(test.pvalue), len(first), len(second), "ks", values=means)


def names(first: Sequence[str], second: Sequence[str]) -> TwoSamples:
    """N and M names. effect: Cohen's w of their shares, less what chance alone would give; 0 where that is more.

    w^2 is the sum of (p - q)^2 / pooled share over the names; under no difference it is (k - 1)(1/N + 1/M) on average,
    which is taken off (as Bergsma 2013 does for V, Journal of the Korean Statistical Society 42:323-328). Names of
    which fewer than FEWEST_EXPECTED are expected in a sample count as one. Where even these are too few together, they
    are tested exactly, the others by themselves, and the smaller p-value is doubled. Sources of the tests: Pearson
    (1900) on the 2 x k table, Fisher (1934) on the 2 x 2 table of the rare names; of w: Cohen (1988), Statistical Power
    Analysis, chapter 7. Raises LeptonflowError on an empty sample.
    """
    import numpy as np
    from scipy.stats import fisher_exact

    n, m = len(first), len(second)
    checks.size(min(n, m))
    every, place = np.unique(np.asarray([*first, *second], str), return_inverse=True)
    counts = np.stack([np.bincount(part, minlength=place.max() + 1) for part in (place[:n], place[n:])])  # (2, k)
    most = int(np.abs(counts[0] / n - counts[1] / m).argmax())
    of, values = str(every[most]), (float(counts[0, most] / n), float(counts[1, most] / m))
    rare = counts.sum(axis=0) * min(n, m) / (n + m) < FEWEST_EXPECTED
    if rare.any():
        counts = np.concatenate([counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)], axis=1)
    k = counts.shape[1]
    if k < 2:
        return TwoSamples(0.0, 1.0, n, m, "chi-square", of, values)
    w2, p_value = _pearson(counts)
    less = w2 - (k - 1) * (1 / n + 1 / m)
    few, others = counts[:, -1], counts[:, :-1]
    if rare.any() and few.sum() * min(n, m) / (n + m) < FEWEST_EXPECTED:
        tests = [float(fisher_exact([few, others.sum(axis=1)]).pvalue)]
        if k > 2 and others.sum(axis=1).all():
            tests.append(_pearson(others)[1])
        p_value = min(1.0, len(tests) * min(tests))
    return TwoSamples(max(0.0, less) ** 0.5, p_value, n, m, "chi-square", of, values)


def _pearson(counts: NDArray[np.int64]) -> tuple[float, float]:
    """(w^2, p-value) of a 2 x k table."""
    from scipy.stats import chi2

    n, m = counts.sum(axis=1)
    w2 = float(((counts[0] / n - counts[1] / m) ** 2 / (counts.sum(axis=0) / (n + m))).sum())
    return w2, float(chi2.sf(w2 / (1 / n + 1 / m), counts.shape[1] - 1))


def shares(first: Floats, second: Floats) -> TwoSamples:
    """N and M rows of K probabilities. effect: the largest difference of a column's means, in its standard deviations.

    Each column's means are compared by the normal approximation, and the smallest p-value is multiplied by the number
    of columns (Bonferroni). Columns that sum to less than FEWEST_SUMMED in either sample, as if both were of one
    distribution, are left out. A class that comes more often raises its column also where it is rarely the largest.

    Source: black-box shift detection, Lipton et al. (2018), ICML 35; on each output with Bonferroni, Rabanser et al.
    (2019), NeurIPS 32. Of means rather than distribution functions, because new shares of classes mix the same
    distributions anew, which moves a mean most. Raises LeptonflowError on an empty sample.
    """
    import numpy as np
    from scipy.stats import norm

    n, m = len(first), len(second)
    checks.size(min(n, m))
    both = np.concatenate([first, second]).astype(np.float64)  # (N + M, K)
    spread = both.std(axis=0)
    told = (both.mean(axis=0) * min(n, m) >= FEWEST_SUMMED) & (spread > 1e-9)
    if not told.any():
        return TwoSamples(0.0, 1.0, n, m, "shares")
    means = first.mean(axis=0), second.mean(axis=0)
    most = int(np.where(told, np.abs(means[1] - means[0]) / np.where(told, spread, 1), -1).argmax())
    effect = float(abs(means[1][most] - means[0][most]) / spread[most])
    p_value = 2 * float(norm.sf(effect / (1 / n + 1 / m) ** 0.5)) * int(told.sum())
    return TwoSamples(effect, min(1.0, p_value), n, m, "shares", most, (float(means[0][most]), float(means[1][most])))


def vectors(first: Floats, second: Floats, seed: int) -> TwoSamples:
    """N and M vectors of F numbers. effect: the distance of their means in a kernel's space, in units of its spread.

    The kernel is Gaussian over standardised numbers, its variance the median squared distance, in FEATURES random
    features. The squared distance is the maximum mean discrepancy; what PERMUTATIONS random splits have on average is
    taken off, and a gamma distribution of their mean and variance gives the p-value. 1 would be as far apart as two
    draws are.

    Source: Gretton et al. (2012), Journal of Machine Learning Research 13:723-773; the gamma: Gretton et al. (2009),
    NIPS 22:673-681; random features: Rahimi and Recht (2007), NIPS 20:1177-1184. Raises LeptonflowError on a sample
    of fewer than 2 vectors.
    """
    import numpy as np
    from scipy.stats import gamma

    n, m = len(first), len(second)
    if min(n, m) < 2:
        raise checks.refuse("a sample", "at least 2 vectors", min(n, m))
    random = np.random.default_rng(seed)
    rows = np.concatenate([first, second]).astype(np.float64)  # (N + M, F)
    spread = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0))[:, spread > 1e-9] / spread[spread > 1e-9]
    if not rows.shape[1]:  # all vectors are the same
        return TwoSamples(0.0, 1.0, n, m, "mmd")
    mapped = _random_features(rows, random)  # (N + M, 2 FEATURES)
    total = mapped.sum(axis=0)

    def distances(second_ones: Floats) -> Floats:  # (N + M, P) of 0 and 1 -> (P,)
        sums = second_ones.T @ mapped
        found: Floats = ((sums / m - (total - sums) / n) ** 2).sum(axis=1)
        return found

    ours = np.r_[np.zeros(n), np.ones(m)]
    found = float(distances(ours[:, None])[0])
    chance = distances(np.stack([random.permutation(ours) for _ in range(PERMUTATIONS)], axis=1))
    mean, variance = float(chance.mean()), float(chance.var(ddof=1))
    within = 1 - float(((total / (n + m)) ** 2).sum())  # of the mapped vectors, each of length 1
    effect = max(0.0, (found - mean) / within) ** 0.5
    p_value = float(gamma.sf(found, mean * mean / variance, scale=variance / mean))
    return TwoSamples(effect, p_value, n, m, "mmd")


def _random_features(rows: Floats, random: np.random.Generator) -> Floats:
    """Vectors of length 1 whose products are about the Gaussian kernel of the rows."""
    import numpy as np

    few = rows[random.choice(len(rows), min(len(rows), WIDTH_FROM), replace=False)]
    squares = (few**2).sum(axis=1)
    apart = (squares[:, None] + squares - 2 * few @ few.T)[np.triu_indices(len(few), 1)]
    width = max(float(np.median(apart)), 1e-9)
    angles = rows @ (random.normal(size=(rows.shape[1], FEATURES)) * (1 / width) ** 0.5)
    found: Floats = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / FEATURES**0.5
    return found

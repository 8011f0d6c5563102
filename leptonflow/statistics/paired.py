"""Candidate against champion on the same examples: which of the two differences is chance?

Pairs are counted as b (candidate right, champion wrong) and c (champion right, candidate wrong) among
n; difference = (b - c) / n, positive where the candidate is better. What does not belong here: which
rule asks which question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.statistics import checks, intervals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

STEPS = 60  # halvings of (-1, 1): narrower than a float's last digit


@dataclass(frozen=True)
class Paired:
    """One test: p_value of its hypothesis, and the two-sided interval that answers it the same way.

    low > the bound that was tested iff p_value < 1 - confidence. b and c are null where the pairs are
    not right or wrong (a bootstrap).
    """

    difference: float
    p_value: float
    low: float
    high: float
    n: int
    b: int | None
    c: int | None
    method: str


def score(b: ArrayLike, c: ArrayLike, n: int, difference: float) -> NDArray[np.float64]:
    """Tango's score statistic of "the true difference is `difference`", for arrays of b and c; normal under it.

    Z = (b - c - n d) / sqrt(n (2 q + d (1 - d))), where q is the restricted maximum likelihood
    estimate of P(champion right, candidate wrong): the larger root of
    2 n q^2 - (b + c + (b - c) d - 2 n d) q - c d (1 - d) = 0.
    At d = 0 it is McNemar's. Infinite where the table is impossible under `difference`.

    Source: Tango (1998), Statistics in Medicine 17:891-908, formulas 15 to 18.
    """
    import numpy as np

    b, c = np.asarray(b, np.float64), np.asarray(c, np.float64)
    d = difference
    linear = b + c + (b - c) * d - 2 * n * d
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * d * (1 - d), 0.0))
    q = np.maximum((linear + root) / (4 * n), max(0.0, -d))
    away = b - c - n * d
    variance = n * np.maximum(2 * q + d * (1 - d), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = away / np.sqrt(variance)
    return np.where(np.abs(away) <= 1e-12 * n, 0.0, z)


def non_inferiority(b: int, c: int, n: int, margin: float, confidence: float) -> Paired:
    """Is the candidate at most `margin` worse? One-sided; the hypothesis to reject is difference <= -margin.

    The interval is Tango's score interval, two-sided at 2 * confidence - 1.
    Source: Tango (1998), Statistics in Medicine 17:891-908. Raises LeptonflowError on counts that are
    no table, a margin outside [0, 1) and a confidence outside (0.5, 1).
    """
    from scipy.special import ndtr

    checks.pairs(b, c, n)
    checks.margin(margin)
    checks.confidence(confidence)
    low, high = _interval(b, c, n, confidence)
    p_value = float(ndtr(-score(b, c, n, -margin)))
    return Paired((b - c) / n, p_value, low, high, n, b, c, "tango score")


def inferiority(b: int, c: int, n: int, margin: float) -> float:
    """p of the opposite hypothesis, difference >= -margin: small where the loss beyond `margin` is no chance.

    Source and refusals: `non_inferiority`.
    """
    from scipy.special import ndtr

    checks.pairs(b, c, n)
    checks.margin(margin)
    return float(ndtr(score(b, c, n, -margin)))


def mcnemar(b: int, c: int, n: int, confidence: float) -> Paired:
    """Is the candidate better? Exact and one-sided; the hypothesis to reject is difference <= 0.

    p is P(X >= b) of Binomial(b + c, 1/2). The interval, two-sided at 2 * confidence - 1, takes the
    number of discordant pairs as given: (2 s - 1) (b + c) / n, where s runs over Clopper and Pearson's
    interval of b / (b + c); without a discordant pair it is Tango's.

    Source: McNemar (1947), Psychometrika 12:153-157; the exact form as in Fagerland, Lydersen and
    Laake (2013), BMC Medical Research Methodology 13:91; Clopper and Pearson (1934), Biometrika
    26:404-413. Raises LeptonflowError as `non_inferiority` does.
    """
    from scipy.special import betainc, betaincinv

    checks.pairs(b, c, n)
    checks.confidence(confidence)
    discordant, alpha = b + c, 1 - confidence
    if discordant == 0:
        low, high = _interval(b, c, n, confidence)
        return Paired(0.0, 1.0, low, high, n, b, c, "exact mcnemar")
    low = float(betaincinv(b, c + 1, alpha)) if b else 0.0
    high = float(betaincinv(b + 1, c, 1 - alpha)) if c else 1.0
    p_value = float(betainc(b, c + 1, 0.5)) if b else 1.0  # P(X >= b)
    scale = discordant / n
    return Paired(
        (b - c) / n, p_value, (2 * low - 1) * scale, (2 * high - 1) * scale, n, b, c, "exact mcnemar"
    )  # fmt: skip


def bootstrap_difference(
    statistic: Callable[[NDArray[np.int64]], float],
    n: int,
    margin: float,
    confidence: float,
    *,
    seed: int,
    resamples: int = 2000,
    few: bool = False,
) -> Paired:
    """Is the candidate at most `margin` worse by any metric? The hypothesis to reject: difference <= -margin.

    statistic(indices) is candidate - champion over those examples, so that positive is better: the
    same indices for both, which is what makes it paired. The interval is BCa's, two-sided at
    2 * confidence - 1; p is the level at which its lower end is -margin, at least 1 / (resamples + 1). few: see
    `intervals.draw`.

    Source: Efron (1987), Journal of the American Statistical Association 82:171-185; p by inverting
    the interval, Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 15.4 and
    Hall (1992), The Bootstrap and Edgeworth Expansion, section 3.10. Raises as `intervals.bootstrap`.
    """
    checks.margin(margin)
    checks.confidence(confidence)
    drawn = intervals.draw(statistic, n, seed=seed, resamples=resamples, few=few)
    low, high = drawn.quantile(1 - confidence), drawn.quantile(confidence)
    return Paired(drawn.value, drawn.level(0.0 - margin), low, high, n, None, None, "paired bca bootstrap")


def passes(b: ArrayLike, c: ArrayLike, n: int, margin: float, confidence: float) -> NDArray[np.bool_]:
    """For arrays of b and c: does the gate's test pass? Tango's, or exact McNemar where margin is 0.

    A negative margin asks for superiority: the hypothesis to reject is difference <= -margin.
    """
    import numpy as np
    from scipy.special import betainc, ndtr

    if margin == 0:
        b, c = np.asarray(b, np.float64), np.asarray(c, np.float64)
        p_value = np.where(b > 0, betainc(np.maximum(b, 1), c + 1, 0.5), 1.0)  # P(X >= b)
    else:
        p_value = ndtr(-score(b, c, n, -margin))
    return np.asarray(p_value < 1 - confidence)


def _interval(b: int, c: int, n: int, confidence: float) -> tuple[float, float]:
    """The differences that Tango's test at 1 - confidence to each side does not reject; `score` falls in them."""
    from scipy.special import ndtri

    z = float(ndtri(confidence))

    def crossing(level: float) -> float:
        left, right = -1.0, 1.0
        for _ in range(STEPS):
            middle = (left + right) / 2
            if float(score(b, c, n, middle)) > level:
                left = middle
            else:
                right = middle
        return (left + right) / 2

    low = -1.0 if c == n else crossing(z)
    high = 1.0 if b == n else crossing(-z)
    return low, high

"""Two versions cross-validated on the same folds of the same snapshot.

What does not belong here: whether they were (that is read from their manifests).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from leptonflow.statistics import checks
from leptonflow.statistics.intervals import Interval


def corrected_t(differences: Sequence[float], train: int, test: int, margin: float) -> tuple[float, float]:
    """(t, p) of the corrected resampled t-test; the hypothesis to reject is mean difference <= -margin.

    differences  candidate - champion of each fold, positive is better
    train, test  examples that a fold learned from and was scored on

    t = (mean + margin) / sqrt((1 / k + test / train) * s^2), k - 1 degrees of freedom, s^2 the
    sample's variance: folds share their training examples, and the plain 1 / k would promise too much.
    Folds that do not differ at all give t = +-infinity (p 0 or 1), or 0 (p 0.5) on the margin itself.

    Source: Nadeau and Bengio (2003), Machine Learning 52:239-281, section 3.2; for cross-validation
    as by Bouckaert and Frank (2004), PAKDD, LNCS 3056:3-12. Raises LeptonflowError with fewer than 2 folds,
    a value that is not finite, no training or test examples, or a margin outside [0, 1).
    """
    from scipy.special import stdtr

    checks.margin(margin)
    k = len(differences)
    mean, spread = _corrected("a fold's difference", differences, train, test)
    above = mean + margin
    if abs(above) <= 1e-12:
        above = 0.0
    if spread <= 1e-12:
        t = math.copysign(math.inf, above) if above else 0.0
        return t, 0.5 if above == 0 else float(above < 0)
    t = above / spread
    return t, float(stdtr(k - 1, -t))


def interval(values: Sequence[float], train: int, test: int, confidence: float) -> Interval:
    """Of the mean over all folds, by those that are finished: mean +- t * sqrt((1 / k + test / train) * s^2).

    values       a metric of each of k finished folds
    train, test  examples that a fold learned from and was scored on, or their ratio

    The variance and the k - 1 degrees of freedom are those of `corrected_t`, whose hypothesis the ends are the limits
    of. Raises LeptonflowError with fewer than 2 folds, a value that is not finite, or a confidence outside (0, 1).
    """
    from scipy.special import stdtrit

    checks.proportion("a confidence", confidence)
    k = len(values)
    mean, spread = _corrected("a fold's value", values, train, test)
    half = float(stdtrit(k - 1, (1 + confidence) / 2)) * spread
    return Interval(mean - half, mean + half, confidence, "corrected resampled t", k)


def _corrected(what: str, values: Sequence[float], train: int, test: int) -> tuple[float, float]:
    """The mean of the folds' values, and its standard error for folds that share their training examples."""
    checks.size(train)
    checks.size(test)
    k = len(values)
    if k < 2:
        raise checks.refuse("a number of folds", "2 or more", k)
    for value in values:
        checks.finite(what, value)
    mean = math.fsum(values) / k
    variance = math.fsum((value - mean) ** 2 for value in values) / (k - 1)
    return mean, math.sqrt((1 / k + test / train) * variance)

"""How often the gate's paired test passes a candidate whose true difference is known, and the examples needed.

Nothing is simulated here: the chance is summed over every table that can arise. What does not belong
here: where a discordance comes from, and drawing candidates (leptonflow.gate.simulation).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from leptonflow.statistics import checks, paired

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 10_000_000  # examples: who needs more is told that no number will do
TAIL = 8.0  # standard deviations of the number of discordant pairs that are summed over: all but 1e-14


def pass_rate(difference: float, discordance: float, n: int, margin: float, confidence: float) -> float:
    """The chance that the paired test passes (Tango's; exact McNemar where margin is 0).

    difference   the truth: candidate's accuracy - champion's
    discordance  the chance that exactly one of the two is right on an example, at least |difference|
    n            pairs
    margin       -0.01: superiority, the candidate has to be better by more than 0.01

    Exact: the sum over m of P(m discordant of n) * P(b >= the least that passes | m), where
    m ~ Binomial(n, discordance) and b | m ~ Binomial(m, (discordance + difference) / (2 discordance)):
    the trinomial of the paired table, as Lu and Bean (1995, Statistics in Medicine 14:1831-1839) and
    Liu et al. (2002, Statistics in Medicine 21:231-245) enumerate it.
    Raises LeptonflowError on a discordance outside (0, 1] or below |difference|, and as
    `paired.non_inferiority` does.
    """
    import numpy as np
    from scipy.special import betainc, gammaln, xlog1py, xlogy

    truth(difference, discordance)
    checks.size(n)
    checks.bound(margin)
    checks.confidence(confidence)
    middle, spread = n * discordance, (n * discordance * (1 - discordance)) ** 0.5
    first = max(0, math.floor(middle - TAIL * spread - TAIL**2))
    m = np.arange(first, min(n, math.ceil(middle + TAIL * spread + TAIL**2)) + 1)
    weight = np.exp(
        gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1) + xlogy(m, discordance) + xlog1py(n - m, -discordance)
    )
    better = (discordance + difference) / (2 * discordance)
    least = _least(m, n, margin, confidence)
    some = np.clip(least, 1, np.maximum(m, 1))
    chance = np.where(least > 0, betainc(some, np.maximum(m - some, 0) + 1, better), 1.0)  # P(b >= least | m)
    return float(min(1.0, (weight * np.where(least <= m, chance, 0.0)).sum()))


def needed(difference: float, discordance: float, margin: float, confidence: float, power: float) -> int | None:
    """The fewest pairs with which a candidate of this true difference passes in at least `power` of the cases.

    Exact tests step: the chance does not rise with every single pair. The answer is a size that
    reaches `power` where the size before it does not, found between the half and the double of the
    normal approximation's. None where the difference is not above -margin (no number will do), and
    where it would be above ten million. Raises as `pass_rate` does, and on a power outside (0, 1).

    Source of the approximation: Nam (1997), Biometrics 53:1422-1430, for the score test;
    n = ((z_confidence + z_power) / (difference + margin))^2 * (discordance - difference^2).
    """
    from scipy.special import ndtri

    truth(difference, discordance)
    checks.bound(margin)
    checks.confidence(confidence)
    checks.proportion("a power", power)
    if difference + margin <= 0:
        return None

    def reaches(n: int) -> bool:
        return pass_rate(difference, discordance, n, margin, confidence) >= power

    reach = max(float(ndtri(confidence) + ndtri(power)), 0.1) / (difference + margin)
    guess = max(reach * reach * (discordance - difference * difference), 1.0)
    if guess > MOST:
        return None
    high = max(2, math.ceil(guess))
    while not reaches(high):
        high *= 2
        if high > 2 * MOST:
            return None
    low = high // 2
    while low >= 1 and reaches(low):
        high, low = low, low // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def truth(difference: float, discordance: float) -> None:
    """Raise LeptonflowError where no pair of versions can have this difference at this discordance."""
    if not 0 < discordance <= 1:
        raise checks.refuse("a discordance", "above 0 and at most 1", discordance)
    if not abs(difference) <= discordance:
        raise checks.refuse("a difference", f"at most the discordance {discordance} either way", difference)


def _least(m: NDArray[np.int64], n: int, margin: float, confidence: float) -> NDArray[np.int64]:
    """For each number of discordant pairs m, the least b that passes; m + 1 where none does.

    With m fixed, more pairs for the candidate never turn a pass into a failure (a test looks at every
    table), so that halving finds it.
    """
    import numpy as np

    low, high = np.full_like(m, -1), m + 1  # low fails, high passes
    while np.any(high - low > 1):
        middle = (low + high) // 2
        inside = (middle >= 0) & (middle <= m)
        b = np.clip(middle, 0, m)
        good = paired.passes(b, m - b, n, margin, confidence)
        open_ = (high - low > 1) & inside
        high = np.where(open_ & good, middle, high)
        low = np.where(open_ & ~good, middle, low)
    return high

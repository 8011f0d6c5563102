"""A year of weekly retrainings whose candidates are each a little worse: what the gate lets through. Pure and seeded.

Each week brings a holdout of new examples. A version is right on one with a chance that depends on whether it is an
easy or a hard example, so that any two versions differ on about the same share of examples. What does not belong
here: the curve for a single retraining (simulation), and where a pipeline's numbers come from (operating_curve).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEEKS = 52
YEARS = 500  # simulated
STEP = 0.005  # how much worse each candidate is where the gate has no margin
USUAL = 0.9  # the accuracy where the champion's is not known


@dataclass(frozen=True)
class Year:
    """What `weeks` candidates, each truly worse than the last champion by `step`, make of the champion.

    accuracy   of the first champion
    promoted   promotions in a year, on average; lost: how much worse the champion is than the first, on average
    promoted_last, lost_last  the same if candidates were compared with the last champion alone
    """

    weeks: int
    step: float
    years: int
    accuracy: float
    promoted: float
    lost: float
    promoted_last: float
    lost_last: float

    @property
    def sentence(self) -> str:
        """The outcome in one line."""
        return (
            f"{self.weeks} weekly candidates, each truly worse than the champion by {self.step:g}: after a year the "
            f"champion is worse than the first by {self.lost:.4f} on average, in {self.promoted:.1f} promotions; "
            f"without the best proven champion it would be {self.lost_last:.4f}, in {self.promoted_last:.1f}"
        )


def simulate(
    n: int, discordance: float, margin: float, confidence: float, *, accuracy: float | None = None, seed: int = 0
) -> Year:
    """`against_champion` on accuracy over a year, with the best proven champion and without.

    n            holdout examples each week
    discordance  the share on which exactly one of two versions is right; margin, confidence: as the rule has them
    accuracy     of the first champion; default 0.9

    A step is half the margin. Two versions of accuracy p differ on at most 2 p (1 - p) of the examples: where more
    were seen, this is taken.
    """
    accuracy = min(max(USUAL if accuracy is None else accuracy, 1e-6), 1 - 1e-6)
    step = margin / 2 if margin > 0 else STEP
    chances = _chances(accuracy, discordance)
    both, last_alone = (_year(n, margin, confidence, accuracy, step, chances, seed, best) for best in (True, False))
    return Year(WEEKS, step, YEARS, accuracy, *both, *last_alone)


def _chances(accuracy: float, discordance: float) -> tuple[float, float]:
    """(chance to be wrong on an easy example, to be right on a hard one), a share `accuracy` being easy.

    So that a version's accuracy is that share, and two versions differ on `discordance` of the examples.
    """
    from scipy.optimize import brentq

    odds = accuracy / (1 - accuracy)

    def excess(wrong: float) -> float:
        return 2 * accuracy * wrong * (1 - wrong + 1 - wrong * odds) - discordance

    most = 1 - accuracy  # here easy and hard are the same
    wrong = most if excess(most) <= 0 else float(brentq(excess, 0.0, most))
    return wrong, wrong * odds


def _year(
    n: int, margin: float, confidence: float, accuracy: float, step: float, chances: tuple[float, float], seed: int,
    with_best: bool,
) -> tuple[float, float]:  # fmt: skip
    """(promotions, true loss) in a year, on average."""
    import numpy as np

    from leptonflow.statistics import paired

    random = np.random.default_rng(seed)
    last, best = np.full((2, YEARS), accuracy)  # the true accuracies
    promotions = 0
    for _ in range(WEEKS):
        candidate = np.maximum(last - step, 0.0)
        counts = _answers(random, n, accuracy, chances, np.stack([candidate, last, best], axis=1))
        beside_last, beside_best = counts.sum(axis=3), counts.sum(axis=2)  # each years x 2 x 2
        passed = paired.passes(beside_last[:, 1, 0], beside_last[:, 0, 1], n, margin, confidence)
        if with_best:
            b, c = beside_best[:, 1, 0], beside_best[:, 0, 1]
            passed &= paired.passes(b, c, n, margin, confidence)
            best = np.where(passed & paired.passes(b, c, n, 0.0, confidence), candidate, best)
        last = np.where(passed, candidate, last)
        promotions += int(passed.sum())
    return promotions / YEARS, float((accuracy - last).mean())


def _answers(
    random: np.random.Generator,
    n: int,
    easy: float,
    chances: tuple[float, float],
    true: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Years x 2 x 2 x 2: of n examples, how many candidate, last and best champion each get wrong (0) or right (1).

    true: years x 3, their accuracies. A version that is worse than `easy` is so on the easy examples.
    """
    import numpy as np

    wrong, right = chances
    on_easy = np.clip(1 - wrong - (easy - true) / easy, 0.0, 1.0)
    kinds = (on_easy, np.full_like(true, right))
    sizes = random.binomial(n, easy, len(true))
    total = np.zeros((len(true), 8), np.int64)
    for size, chance in zip((sizes, n - sizes), kinds, strict=True):
        cells = np.stack(
            [np.where(np.asarray(cell, bool), chance, 1 - chance).prod(axis=1) for cell in product((0, 1), repeat=3)], 1
        )
        total += random.multinomial(size, cells / cells.sum(axis=1, keepdims=True))
    return total.reshape(-1, 2, 2, 2)

"""Calibration: of the predictions with a probability of 0.8, are 80% right?

What does not belong here: its interval (intervals.bootstrap over `expected_error`), and the diagram.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.statistics import checks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Bin:
    """The n predictions whose confidence lies in (low, high]; their mean confidence and accuracy, null where n is 0."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def bins(confidences: ArrayLike, correct: ArrayLike, count: int = 10) -> list[Bin]:
    """`count` bins of equal width over 0..1, all of them, also those without a prediction.

    confidences  N probabilities of the predicted class (the greatest of each row); 0 lies in the first bin
    correct      N, true where the prediction was right

    Source: Guo et al. (2017), ICML, PMLR 70:1321-1330, section 2. Raises LeptonflowError where the two
    differ in length, a confidence is not in 0..1, or count < 1.
    """
    sizes, sums, rights = _sums(confidences, correct, count)
    return [
        Bin(
            low=number / count,
            high=(number + 1) / count,
            n=int(size),
            confidence=float(total / size) if size else None,
            accuracy=float(right / size) if size else None,
        )
        for number, (size, total, right) in enumerate(zip(sizes, sums, rights, strict=True))
    ]


def expected_error(confidences: ArrayLike, correct: ArrayLike, count: int = 10) -> float:
    """The expected calibration error: sum over bins of n / N * |accuracy - confidence|, from 0 to 1.

    Source: Naeini, Cooper and Hauskrecht (2015), AAAI, 2901-2907. Raises as `bins` does, and without
    any answer.
    """
    import numpy as np

    sizes, sums, rights = _sums(confidences, correct, count)
    checks.size(int(sizes.sum()))
    return float(np.abs(sums - rights).sum() / sizes.sum())


def places(confidences: ArrayLike, count: int = 10) -> NDArray[np.int64]:
    """The number of the bin that each of N confidences lies in."""
    import numpy as np

    given = np.asarray(confidences, np.float64)
    return np.clip(np.ceil(given * count).astype(np.int64) - 1, 0, count - 1)


def _sums(
    confidences: ArrayLike, correct: ArrayLike, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Per bin: predictions, the sum of their confidences, and how many were right."""
    import numpy as np

    given, right = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    if count < 1:
        raise checks.refuse("a number of bins", "1 or more", count)
    if given.shape != right.shape or given.ndim != 1:
        raise checks.refuse("a list of predictions", f"as many as confidences, {given.shape}", right.shape)
    if not bool(np.all((given >= 0) & (given <= 1))):
        raise checks.refuse("a confidence of a prediction", "from 0 to 1", "others among them")
    place = places(given, count)

    def tally(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(place, weights=weights, minlength=count).astype(np.float64)

    return tally(np.ones_like(given)), tally(given), tally(right)

"""A metric over any choice of the holdout's examples, fast enough for thousands of resamples.

The numbers are those of the workload's scores. What does not belong here: what is resampled, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from leptonflow.workloads.base import Metric, Scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Statistic = Callable[[NDArray[np.int64]], float]


def statistic(metric: Metric, scores: Scores) -> Statistic:
    """A function of example numbers -> the metric over them; NaN where none counts towards it."""
    import numpy as np

    _, first, places = np.unique(scores.alike(metric), return_index=True, return_inverse=True)
    few = scores.of(first)  # one for all that contribute the same: far fewer than the examples

    def of(indices: NDArray[np.int64]) -> float:
        counts = np.bincount(places[indices], minlength=len(first))
        return float(few.value(metric, counts[None, :])[0])

    return of


def proportion(metric: Metric, scores: Scores) -> tuple[int, int] | None:
    """(successes, n) of a metric that is a plain proportion of independent examples, else None."""
    found = scores.proportion(metric)
    return None if found is None else (int(found[1].sum()), int(found[0].sum()))


def discordant(metric: Metric, candidate: Scores, champion: Scores) -> tuple[int, int] | None:
    """(b, c): examples that only the candidate, and that only the champion gets right.

    None where the metric is not the share of right predictions among all examples.
    """
    pair = candidate.proportion(metric), champion.proportion(metric)
    if pair[0] is None or pair[1] is None or not (pair[0][0].all() and pair[1][0].all()):
        return None
    return pairs(pair[0][1], pair[1][1])


def pairs(mine: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[int, int]:
    """(b, c) of two arrays that say which examples each gets right."""
    return int((mine & ~theirs).sum()), int((theirs & ~mine).sum())

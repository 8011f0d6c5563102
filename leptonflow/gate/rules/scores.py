"""A metric over any choice of the holdout's examples, fast enough for thousands of resamples.

The numbers are those of the workload's scores. What does not belong here: what is resampled, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from leptonflow.workloads.base import Metric, Scores, right

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


def both(metric: Metric, candidate: Scores, champion: Scores) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Which examples the candidate, and which the champion gets right.

    None where the metric is not the share of right predictions among all examples.
    """
    mine, theirs = right(candidate, metric), right(champion, metric)
    return None if mine is None or theirs is None else (mine, theirs)


def members(groups: NDArray[np.int64] | None) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    """A function of the numbers that a bootstrap drew -> example numbers: the same, or all examples of those groups."""
    import numpy as np

    if groups is None:
        return lambda drawn: drawn
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)

    def examples(drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        many = sizes[drawn]
        ends = np.cumsum(many)
        found: NDArray[np.int64] = order[np.repeat(starts[drawn] - ends + many, many) + np.arange(ends[-1])]
        return found

    return examples


def units(groups: NDArray[np.int64] | None, n: int) -> int:
    """How many a bootstrap draws: n examples, or their groups."""
    import numpy as np

    return n if groups is None else len(np.unique(groups))


def gains(mine: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 where only the candidate is right, -1 where only the champion, else 0."""
    import numpy as np

    return mine.astype(np.float64) - theirs


def pairs(mine: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[int, int]:
    """(b, c) of two arrays that say which examples each gets right."""
    return int((mine & ~theirs).sum()), int((theirs & ~mine).sum())

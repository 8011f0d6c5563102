"""How much of a metric may be chance: an interval for candidate, champion and their difference, for each metric.

Pure functions of predictions on one holdout; what they cost is bounded, however large it is. The numbers
themselves are those of evaluation, and whether an interval promotes anything is the gate's: it asks about
one end, at its own confidence. What does not belong here: how an interval is shown (html_report).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

RESAMPLES = 2000
FEWEST = 200  # resamples, where the next two allow no more
MOST_CELLS, MOST_LOSSES = 4_000_000, 40_000_000  # numbers drawn for all resamples together: half a second for each
BATCH = 1 << 22  # numbers held at once
SEED = 0  # the same predictions have the same intervals
MACRO = ("precision", "recall", "f1")

Ends = tuple[float, float]


@dataclass(frozen=True)
class Between:
    """Two-sided intervals of one metric; difference: candidate minus champion. None where there is none to draw."""

    candidate: Ends | None
    champion: Ends | None = None
    difference: Ends | None = None


def between(labels: Ints, candidate: Floats, champion: Floats | None, confidence: float) -> dict[str, Between]:
    """Of accuracy, precision, recall, f1 (macro) and log_loss, each by its name; {} without an example.

    labels: N class numbers; candidate and champion: N x K probabilities of the same examples.

    accuracy   Wilson's interval (1927); of the difference Tango's (1998)
    others     BCa bootstrap over the examples (Efron 1987), paired for the difference; None where no
               resample differs from the next (every prediction right), since such an interval says nothing
    """
    import numpy as np

    if not len(labels):
        return {}
    mine = candidate.argmax(axis=1)
    theirs = None if champion is None else champion.argmax(axis=1)
    found = {"accuracy": _accuracy(mine == labels, None if theirs is None else theirs == labels, confidence)}
    found.update(_macro(labels, mine, theirs, candidate.shape[1], confidence))
    pair = [candidate] if champion is None else [candidate, champion]
    if all(np.isfinite(rows).all() and (rows.sum(axis=1) > 0).all() for rows in pair):
        found["log_loss"] = _mean([_losses(labels, rows) for rows in pair], confidence)
    return found


def _accuracy(mine: NDArray[np.bool_], theirs: NDArray[np.bool_] | None, confidence: float) -> Between:
    from leptonflow.statistics.intervals import wilson
    from leptonflow.statistics.paired import non_inferiority

    n = len(mine)

    def own(right: NDArray[np.bool_]) -> Ends:
        interval = wilson(int(right.sum()), n, confidence)
        return interval.low, interval.high

    if theirs is None:
        return Between(own(mine))
    # Its interval is two-sided at 2 * confidence - 1; the margin plays no part in it.
    won, lost = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    test = non_inferiority(won, lost, n, margin=0.0, confidence=(1 + confidence) / 2)
    return Between(own(mine), own(theirs), (test.low, test.high))


# --- from a table of counts ----------------------------------------------------------------------


def _macro(labels: Ints, mine: Ints, theirs: Ints | None, classes: int, confidence: float) -> dict[str, Between]:
    """precision, recall and f1. To resample N examples is to draw anew how many of them fall into each cell.

    A cell is a label with both predictions; the C of them that occur are far fewer than the examples.
    """
    import numpy as np

    columns = [labels, mine] if theirs is None else [labels, mine, theirs]
    cells, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    label, answers = cells[:, 0], [cells[:, column] for column in range(1, cells.shape[1])]
    random, n, many = np.random.default_rng(SEED), len(labels), len(counts)

    def measured(weights: Ints) -> Floats:  # (R, C) -> (R, 3, 1 or 2)
        return np.stack([_scores(*_totals(weights, label, said, classes)) for said in answers], axis=2)

    rows, step = _resamples(MOST_CELLS // many), max(1, BATCH // many)
    sizes = (min(step, rows - start) for start in range(0, rows, step))
    drawn = np.concatenate([measured(random.multinomial(n, counts / n, size=size)) for size in sizes])
    value = measured(counts[None, :])[0]
    left = np.stack([_without_one(counts, label, said, classes) for said in answers], axis=2)
    return {
        name: _all_ends(value[each], drawn[:, each], left[:, each], counts, confidence)
        for each, name in enumerate(MACRO)
    }


def _totals(weights: Ints, label: Ints, said: Ints, classes: int) -> tuple[Ints, Ints, Ints]:
    """(right, true, called), each (R, K): of each class, the weights (R, C) that its cells have together."""
    return (
        _sums(weights * (label == said), label, classes), _sums(weights, label, classes), _sums(weights, said, classes)
    )  # fmt: skip


def _sums(weights: Ints, group: Ints, groups: int) -> Ints:
    import numpy as np

    order = np.argsort(group, kind="stable")
    names, starts = np.unique(group[order], return_index=True)
    found = np.zeros((len(weights), groups), np.int64)
    found[:, names] = np.add.reduceat(weights[:, order], starts, axis=1)
    return found


def _by_class(right: Ints, true: Ints, called: Ints) -> Floats:
    """precision, recall and f1 of each class: (..., K) -> (..., 3, K); 0 for a class without examples."""
    import numpy as np

    over = np.maximum(np.stack([called, true, true + called], axis=-2), 1)
    times = np.array([1, 1, 2])[:, None]
    found: Floats = np.where(true[..., None, :] > 0, times * right[..., None, :] / over, 0.0)
    return found


def _scores(right: Ints, true: Ints, called: Ints) -> Floats:
    """(R, 3): the means over the classes that have examples."""
    import numpy as np

    there = np.maximum((true > 0).sum(axis=1), 1)
    means: Floats = _by_class(right, true, called).sum(axis=2) / there[:, None]
    return means


def _without_one(counts: Ints, label: Ints, said: Ints, classes: int) -> Floats:
    """(C, 3): the metrics without one example of each cell. It changes the class it has and the one it was called."""
    import numpy as np

    right, true, called = (total[0] for total in _totals(counts[None, :], label, said, classes))
    before = _by_class(right, true, called)  # (3, K)
    hit = (label == said).astype(np.int64)

    def after(of: Ints, less_right: Ints, less_true: Ints, less_called: Ints) -> Floats:  # (C, 3)
        changed = _by_class(
            (right[of] - less_right)[:, None], (true[of] - less_true)[:, None], (called[of] - less_called)[:, None]
        )
        return changed[..., 0] - before[:, of].T

    one = np.ones_like(hit)
    total = before.sum(axis=1) + after(label, hit, one, hit)
    total += np.where(hit[:, None] > 0, 0.0, after(said, 0 * one, 0 * one, one))
    there = (true > 0).sum() - (true[label] == 1)
    means: Floats = total / np.maximum(there, 1)[:, None]
    return means


def _resamples(most: int) -> int:
    return max(FEWEST, min(RESAMPLES, most))


# --- from each example's loss --------------------------------------------------------------------


def _losses(labels: Ints, rows: Floats) -> Floats:
    """-ln of the probability of the true label, clipped as evaluation's log_loss is (nats)."""
    import numpy as np

    least = np.finfo(np.float64).eps
    given = rows[np.arange(len(labels)), labels] / rows.sum(axis=1)
    found: Floats = -np.log(np.clip(given, least, 1 - least))
    return found


def _mean(losses: list[Floats], confidence: float) -> Between:
    import numpy as np

    columns, n = np.stack(losses, axis=1), len(losses[0])  # (N, 1 or 2)
    random = np.random.default_rng(SEED)
    drawn = np.stack(
        [columns[random.integers(0, n, n, np.int32)].mean(axis=0) for _ in range(_resamples(MOST_LOSSES // n))]
    )
    left = (columns.sum(axis=0) - columns) / max(1, n - 1)
    return _all_ends(columns.mean(axis=0), drawn, left, np.ones(n, np.int64), confidence)


# --- BCa -----------------------------------------------------------------------------------------


def _all_ends(value: Floats, drawn: Floats, left: Floats, weights: Ints, confidence: float) -> Between:
    """From one or two columns, candidate and champion: value (2), drawn (R, 2), left (C, 2)."""

    def ends(column: Callable[[Floats], Floats]) -> Ends | None:
        return _ends(float(column(value)), column(drawn), column(left), weights, confidence)

    if len(value) == 1:
        return Between(ends(lambda each: each[..., 0]))
    return Between(
        ends(lambda each: each[..., 0]), ends(lambda each: each[..., 1]), ends(lambda each: each[..., 0] - each[..., 1])
    )


def _ends(value: float, drawn: Floats, left: Floats, weights: Ints, confidence: float) -> Ends | None:
    """Efron's BCa interval (1987) of `value`: drawn are R resampled values, left the value without one example.

    weights: for how many examples each of `left` stands.
    """
    import numpy as np

    from leptonflow.statistics.intervals import corrected

    if np.ptp(drawn) < 1e-12:
        return None
    bca = corrected(value, drawn, left, weights)
    return bca.quantile((1 - confidence) / 2), bca.quantile((1 + confidence) / 2)

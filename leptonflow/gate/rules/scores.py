"""A metric over any choice of the holdout's examples, fast enough for thousands of resamples.

The numbers are those of the workload's `score`, which a test holds against these. What does not belong
here: what is resampled, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from schemas.rules import class_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Statistic = Callable[[NDArray[np.int64]], float]


def statistic(
    metric: str, labels: NDArray[np.int64], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> Statistic:
    """A function of example numbers -> the metric over them; NaN where none counts towards it.

    labels: N class numbers; probabilities: N x K. precision, recall and f1 come from the confusion
    matrix: a class without examples counts in no mean, one that is never predicted has precision 0.
    """
    import numpy as np

    predicted, count = probabilities.argmax(axis=1), len(classes)
    if metric == "accuracy":
        return _mean((predicted == labels).astype(np.float64))
    if metric == "log_loss":
        rows = probabilities / probabilities.sum(axis=1, keepdims=True)
        least = np.finfo(np.float64).eps
        return _mean(-np.log(np.clip(rows[np.arange(len(labels)), labels], least, 1 - least)))
    name, cells = metric.split("[")[0], labels * count + predicted
    one = class_of(metric)
    number = None if one is None else list(classes).index(one)

    def of(indices: NDArray[np.int64]) -> float:
        matrix = np.bincount(cells[indices], minlength=count * count).reshape(count, count)
        right, true, said = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        over = {"recall": true, "precision": said, "f1": true + said}[name]
        values = (2 if name == "f1" else 1) * right / np.maximum(over, 1)
        if number is not None:
            return float(values[number]) if true[number] else float("nan")
        present = true > 0
        return float(values[present].mean()) if present.any() else float("nan")

    return of


def _mean(values: NDArray[np.float64]) -> Statistic:
    return lambda indices: float(values[indices].mean()) if len(indices) else float("nan")


def proportion(
    metric: str, labels: NDArray[np.int64], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> tuple[int, int] | None:
    """(successes, n) of a metric that is a plain proportion of independent examples, else None.

    accuracy; recall[cat] among the cats; precision[cat] among those called cat.
    """
    import numpy as np

    predicted = probabilities.argmax(axis=1)
    if metric == "accuracy":
        return int((predicted == labels).sum()), len(labels)
    one = class_of(metric)
    if one is None or not metric.startswith(("recall", "precision")):
        return None
    number = list(classes).index(one)
    among = (labels if metric.startswith("recall") else predicted) == number
    return int(np.sum(among & (labels == predicted))), int(among.sum())

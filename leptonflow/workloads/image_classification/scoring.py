"""scikit-learn's metrics of class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def score(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> dict[str, float | None]:
    """scikit-learn's metrics of N true class numbers against N x K probabilities.

    accuracy and log_loss; precision, recall and f1 of each class (`recall[cat]`) and their unweighted
    mean. A class without examples has null, and the means cover the others; a class that is never
    predicted has precision 0. Where a probability is not a finite number, every metric is null.
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

    names = ("precision", "recall", "f1")
    if len(labels) == 0 or not np.isfinite(probabilities).all():
        nothing: dict[str, float | None] = dict.fromkeys(("accuracy", *names, "log_loss"))
        return nothing | {f"{name}[{label}]": None for name in names for label in classes}
    numbers = np.arange(len(classes))
    rows = probabilities / probabilities.sum(axis=1, keepdims=True)  # float32's rounding would raise a warning
    predicted = rows.argmax(axis=1)
    *per_class, support = precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=0)
    present = support > 0
    found: dict[str, float | None] = {"accuracy": float(accuracy_score(labels, predicted))}
    found |= {name: float(values[present].mean()) for name, values in zip(names, per_class, strict=True)}
    found["log_loss"] = float(log_loss(labels, rows, labels=numbers))
    for name, values in zip(names, per_class, strict=True):
        for number, label in enumerate(classes):
            found[f"{name}[{label}]"] = float(values[number]) if present[number] else None
    return found

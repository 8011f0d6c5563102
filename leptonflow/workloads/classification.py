"""What every classification of one class per example shares: targets, compilation and the metrics.

Shapes: N examples, K classes, R resamples. All metrics are computed here, from counts per example, so that a
bootstrap has the very numbers that a report has. What does not belong here: what an example is (the workloads),
and whether a number is good enough (gate).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.keras_runtime.keras_models import jit, keras
from leptonflow.workloads.base import Metric, Metrics, Target
from leptonflow.workloads.base import score as every
from leptonflow.workloads.predictions import matrix
from schemas.config import Pipeline
from schemas.metrics import CLASSIFICATION

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]


def metrics(classes: Sequence[str]) -> tuple[Metric, ...]:
    """Every metric that `ClassScores` knows: of all classes, then of each."""
    return (
        *(Metric(name, name not in CLASSIFICATION.lower) for name in CLASSIFICATION.names),
        *(Metric(name, True, label) for name in CLASSIFICATION.of_class for label in classes),
    )


def compile(model: Any, config: Pipeline, optimizer: Any) -> None:
    """Categorical cross-entropy over one-hot targets, smoothed as the YAML says."""
    smoothing, loss = config.training.label_smoothing, keras().losses.CategoricalCrossentropy
    model.compile(
        optimizer=optimizer,
        loss="categorical_crossentropy" if not smoothing else loss(label_smoothing=smoothing),
        metrics=["accuracy"],
        jit_compile=jit(),
    )


def targets(labels: Ints, classes: int) -> NDArray[np.float32]:
    """N class numbers -> N x K one-hot rows."""
    import numpy as np

    rows = np.zeros((len(labels), classes), np.float32)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def curve(labels: Ints, probabilities: Floats) -> dict[str, float]:
    """loss (nats) and accuracy of N true class numbers against N x K probabilities, for a learning curve."""
    import numpy as np

    of_true = probabilities[np.arange(len(labels)), labels]
    return {
        "loss": float(-np.log(np.clip(of_true, 1e-7, 1)).mean()),
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
    }


class ClassScores:
    """The metrics of N predictions, from what each example contributes to them.

    labels         N true class numbers
    probabilities  N x K, not necessarily of sum 1
    correct        (N,) whether the most probable class is the true one; False where a probability is not finite

    precision, recall and f1 are of each class, and their unweighted mean over the classes that have examples;
    a class that is never predicted has precision 0. log_loss is in nats, its probabilities clipped to
    2^-52 .. 1 - 2^-52 as scikit-learn does.
    """

    def __init__(self, labels: Ints, probabilities: Floats, classes: Sequence[str]) -> None:
        import numpy as np

        if probabilities.shape != (len(labels), len(classes)):
            raise ValueError(
                f"probabilities are {probabilities.shape}: expected ({len(labels)}, {len(classes)}), examples x classes"
            )
        self.labels = labels
        self.probabilities = probabilities
        self.classes = tuple(classes)
        self.metrics = metrics(classes)
        self._known = frozenset(self.metrics)
        totals = probabilities.sum(axis=1, keepdims=True)
        usable = np.isfinite(probabilities).all(axis=1) & (totals[:, 0] > 0)
        self._usable = bool(usable.all())
        rows = np.where(usable[:, None], probabilities, 1.0) / np.where(usable[:, None], totals, 1.0)
        self.predicted: Ints = rows.argmax(axis=1)
        self.correct: Bools = (self.predicted == labels) & usable
        least = np.finfo(np.float64).eps
        self.losses: Floats = -np.log(np.clip(rows[np.arange(len(labels)), labels], least, 1 - least))
        # float32's rounding reaches beyond 1
        self.confidence: Floats = np.clip(probabilities[np.arange(len(labels)), self.predicted], 0.0, 1.0)

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, chosen: Ints) -> ClassScores:
        """Of the examples with these numbers alone."""
        return ClassScores(self.labels[chosen], self.probabilities[chosen], self.classes)

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """[true][predicted], rows and columns in class order."""
        import numpy as np
        from sklearn.metrics import confusion_matrix

        found = confusion_matrix(self.labels, self.probabilities.argmax(axis=1), labels=np.arange(len(self.classes)))
        return tuple(tuple(int(n) for n in row) for row in found)

    def alike(self, metric: Metric) -> Ints:
        """(N,) numbers: a loss is each example's own, everything else is told by the true and the predicted class."""
        import numpy as np

        if metric.name == "log_loss":
            return np.arange(len(self), dtype=np.int64)
        return self.labels * len(self.classes) + self.predicted

    def proportion(self, metric: Metric) -> tuple[Bools, Bools] | None:
        """accuracy; recall of a class among its examples; precision among those predicted as it."""
        import numpy as np

        if metric.name == "accuracy":
            return np.ones(len(self), np.bool_), self.correct
        if metric.label is None or metric.name not in ("recall", "precision"):
            return None
        of = self.labels if metric.name == "recall" else self.predicted
        among: Bools = of == self.classes.index(metric.label)
        return among, among & self.correct

    def value(self, metric: Metric, weights: Ints) -> Floats:
        """weights (R, N): how often each example counts in each of R resamples -> (R,).

        NaN where a metric has no value: without examples, for a class without any, and everywhere where a
        probability is not a finite number. Raises ValueError for an unknown metric or class.
        """
        import numpy as np

        if metric not in self._known:
            raise ValueError(f"no metric is named {metric.key!r}; choose from {', '.join(m.key for m in self.metrics)}")
        if not self._usable:
            return np.full(len(weights), np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            if metric.name in CLASSIFICATION.of_class:
                return self._of_classes(metric, weights)
            totals = weights.sum(axis=1)
            found: Floats
            if metric.name == "accuracy":
                found = weights[:, self.correct].sum(axis=1) / totals
            else:
                found = weights @ self.losses / totals
        return found

    def _of_classes(self, metric: Metric, weights: Ints) -> Floats:
        """precision, recall or f1 of one class, or the mean over the classes that have examples."""
        import numpy as np

        if metric.label is not None:
            number = self.classes.index(metric.label)
            true, called = self.labels == number, self.predicted == number
            counts = [weights[:, chosen].sum(axis=1)[:, None] for chosen in (true & called, true, called)]
        else:
            size = len(self.classes)
            hits = _sums(weights[:, self.correct], self.labels[self.correct], size)
            counts = [hits, _sums(weights, self.labels, size), _sums(weights, self.predicted, size)]
        right, of_class, predicted = counts  # each (R, K), or (R, 1)
        if metric.name == "precision":
            each = right / np.maximum(predicted, 1)
        elif metric.name == "recall":
            each = right / np.maximum(of_class, 1)
        else:
            each = 2 * right / np.maximum(of_class + predicted, 1)
        present = of_class > 0
        means: Floats = np.where(present, each, 0.0).sum(axis=1) / present.sum(axis=1)
        return means


def score(labels: Ints, probabilities: Floats, classes: Sequence[str]) -> Metrics:
    """Every metric of N true class numbers against N x K probabilities; null where it has no value."""
    return every(ClassScores(labels, probabilities, classes))


def columns(labels: Ints, probabilities: Floats, classes: Sequence[str]) -> dict[str, pa.Array]:
    """label, predicted (names), probability (of predicted), probability_true, probabilities (K in class order)."""
    import numpy as np
    import pyarrow as pa

    names = np.asarray(classes, object)
    predicted = probabilities.argmax(axis=1)
    rows = np.arange(len(labels))
    count = probabilities.shape[1]
    offsets = pa.array(np.arange(0, (len(labels) + 1) * count, count, dtype=np.int32))
    return {
        "label": pa.array(names[labels], pa.string()),
        "predicted": pa.array(names[predicted], pa.string()),
        "probability": pa.array(probabilities[rows, predicted], pa.float64()),
        "probability_true": pa.array(probabilities[rows, labels], pa.float64()),
        "probabilities": pa.ListArray.from_arrays(offsets, pa.array(probabilities.ravel(), pa.float64())),
    }


def numbers(labels: Sequence[str], classes: Sequence[str]) -> Ints:
    """N names -> their N class numbers."""
    import numpy as np

    places = {name: number for number, name in enumerate(classes)}
    return np.asarray([places[name] for name in labels], np.int64)


def restore(table: pa.Table, classes: Sequence[str]) -> tuple[Ints, Floats]:
    """(N true class numbers, N x K probabilities) of `columns`."""
    return numbers(table["label"].to_pylist(), classes), matrix(table["probabilities"], len(classes))


def answer(probabilities: Floats, classes: Sequence[str]) -> tuple[str, float | None]:
    """The most probable class and its probability."""
    best = int(probabilities.argmax())
    return classes[best], float(probabilities[best])


ONE_CLASS = Target(
    classes=True,
    fault=lambda label: None,
    read=numbers,
    fit=targets,
    curve=curve,
    scores=ClassScores,
    columns=columns,
    stored=("label", "probabilities"),
    restore=restore,
    answer=answer,
)


def _sums(weights: Ints, group: Ints, groups: int) -> Ints:
    """(R, N) weights, N group numbers -> (R, groups): the weights of each group together."""
    import numpy as np

    found = np.zeros((len(weights), groups), np.int64)
    if len(group):
        order = np.argsort(group, kind="stable")
        names, starts = np.unique(group[order], return_index=True)
        found[:, names] = np.add.reduceat(weights[:, order], starts, axis=1)
    return found

"""What very simple models reach on the same holdout: a network that does not beat them has learned nothing.

Fitting and scoring them belongs here; the rule that a candidate must beat them is the gate's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leptonflow.core import spools
from leptonflow.workloads.image_classification.scoring import score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


SIDE = 8
MOST = 10_000  # training examples of the regression: the first by id, which is a digest, hence a fair sample
ROUNDS = 200
WORDS = {"majority": "always the largest class", "logistic": "a logistic regression on 8 x 8 grey pixels"}


def scores(
    train: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
    holdout: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    seed: int,
) -> dict[str, dict[str, float | None]]:
    """The metrics on the holdout of `majority` and `logistic`, both fitted on the training set.

    train, holdout: N x H x W x C pixels; train_labels, labels: their N class numbers.

    majority  always the training set's largest class, with its classes' shares as probabilities
    logistic  scikit-learn's LogisticRegression on `thumbnails` scaled to 0..1, at most 200 rounds of lbfgs
    """
    import warnings

    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    counts = np.bincount(train_labels, minlength=len(classes)).astype(np.float64)
    shares = np.tile(counts / counts.sum(), (len(labels), 1))
    model = LogisticRegression(max_iter=ROUNDS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline that stops early is still one
        model.fit(thumbnails(train[:MOST]), train_labels[:MOST])
    rows = np.zeros((len(labels), len(classes)))
    rows[:, model.classes_] = model.predict_proba(thumbnails(holdout))
    return {
        "majority": score(labels, shares, classes),
        "logistic": score(labels, rows, classes),
    }


def thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """N x H x W x C pixels as N x (at most 8 x 8) grey means, 0..1, each over its share of the image."""
    import numpy as np

    _, height, width, _ = pixels.shape
    rows = np.arange(min(SIDE, height)) * height // min(SIDE, height)
    columns = np.arange(min(SIDE, width)) * width // min(SIDE, width)
    found = []
    for start in range(0, len(pixels), 1000):  # floats take eight times the bytes
        grey = pixels[start : start + 1000].mean(axis=3)
        spools.release(pixels)
        sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=1), columns, axis=2)
        heights, widths = np.diff([*rows, height]), np.diff([*columns, width])
        found.append((sums / (heights[:, None] * widths[None, :]) / 255).reshape(len(grey), -1))
    return np.concatenate(found) if found else np.zeros((0, len(rows) * len(columns)))

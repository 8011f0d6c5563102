"""What a linear model of word counts reaches: a network that does not beat it has learned little of order.

What does not belong here: the metrics (classification) and the rule that compares (gate).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Metrics
from leptonflow.workloads.classification import score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUNDS = 200
FEWEST = 2  # texts that a word or pair is in: most are in one alone, and say nothing of the next
WORDS = {
    "majority": "always the largest class",
    "tfidf": "a logistic regression on TF-IDF of words and word pairs",
}
STRENGTH = 10.0  # C of scikit-learn, the inverse of the penalty


def probabilities(
    train: Sequence[str], labels: NDArray[np.int64], holdout: Sequence[str], classes: int, seed: int = 0
) -> NDArray[np.float64]:
    """TF-IDF of words and word pairs with logistic regression, fitted on `train`: (len(holdout), classes).

    labels: the class number of each training text; a class that none has gets 0. Where the training texts have
    one class alone, or no word in two of them, every row holds the shares of the classes among them.
    """
    import warnings

    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    shares = np.tile(counts / max(1.0, counts.sum()), (len(holdout), 1))
    if not len(holdout) or (counts > 0).sum() < 2:
        return shares
    # Single characters count as words: in some languages they are.
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=FEWEST, sublinear_tf=True, token_pattern=r"(?u)\w+")
    try:
        given = words.fit_transform(train)
    except ValueError:  # no word is in so many texts
        return shares
    model = LogisticRegression(C=STRENGTH, max_iter=ROUNDS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline that stops early is still one
        model.fit(given, labels)
    rows = np.zeros((len(holdout), classes))
    rows[:, model.classes_] = model.predict_proba(words.transform(holdout))
    return rows


def scores(
    train: NDArray[Any],
    train_labels: NDArray[np.int64],
    holdout: NDArray[Any],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    seed: int,
) -> dict[str, Metrics]:
    """The metrics of `majority`, the classes' shares, and of `tfidf`, a linear model of words and word pairs."""
    import numpy as np

    counts = np.bincount(train_labels, minlength=len(classes)).astype(np.float64)
    rows = {
        "majority": np.tile(counts / counts.sum(), (len(labels), 1)),
        "tfidf": probabilities(list(train), train_labels, list(holdout), len(classes), seed),
    }
    return {name: score(labels, found, classes) for name, found in rows.items()}

"""What an example of each class counts in the loss of one fit, by the key `training.class_weights`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from schemas.training import Training

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def weights(training: Training, labels: NDArray[Any], classes: Sequence[str]) -> NDArray[np.float32] | None:
    """(K,) the weight of each of K classes; None where the YAML has none.

    labels: the class numbers of the n examples that the fit learns from. balanced is n / (K n_k), as scikit-learn
    has it: every class has the same weight in all (King and Zeng 2001).
    """
    import numpy as np

    given = training.class_weights
    if given == "none":
        return None
    if given == "balanced":
        counts = np.bincount(labels, minlength=len(classes))
        return (len(labels) / (len(classes) * np.maximum(counts, 1))).astype(np.float32)
    return np.asarray([given.get(name, 1.0) for name in classes], np.float32)

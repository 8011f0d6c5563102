"""What the compiled loop over training steps takes and gives, whatever the backend."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Values = dict[str, "NDArray[np.float32]"]  # the loss and each metric, of S steps: (S,)


class Batches(NamedTuple):
    """S batches of B examples each, in the order in which they are trained on.

    examples  (M, ...) as the model takes them
    indices   (S, B) their numbers among these
    targets   (S, B, ...) what the loss takes
    weights   (S, B) what each counts in the loss; None: 1
    shares    (S, B) of mixup, by which each is mixed with the one before it; None without
    """

    examples: Any
    indices: Any
    targets: Any
    weights: Any = None
    shares: Any = None

    def batch(self, number: Any) -> tuple[Any, Any, Any]:
        """The examples, targets and weights of one of them, as Keras takes them."""
        examples = self.examples[self.indices[number]]
        given = examples if self.shares is None else [examples, self.shares[number]]
        return given, self.targets[number], None if self.weights is None else self.weights[number]


def values(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a step. Raises ConfigurationError where a metric has several, as one for each class."""
    for name, value in logs.items():
        if prod(getattr(value, "shape", ())) != 1:
            raise ConfigurationError(
                f"the metric {name} of the compiled model has several values",
                expected="one number for all classes, such as F1Score(average='macro') gives",
                received=f"{prod(value.shape)} numbers",
                hint="Leave it out of model.compile, or average it",
            )
    return dict(logs)

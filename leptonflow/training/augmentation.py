"""The network as it is trained with `training.augment`: random changes to the examples come before it, in one step.

They are on the device and by the fit's seed, and only there: the network itself, which is evaluated and saved, has
none of them. What each operation does belongs to the workloads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leptonflow.keras_runtime.keras_models import keras
from leptonflow.workloads.base import Workload
from schemas.training import Training

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def mixup(training: Training) -> float | None:
    """The a of Beta(a, a) from which the shares of two mixed examples are drawn; None without mixup."""
    return next((each.range for each in training.augment if each.name == "mixup"), None)


def mixed(shares: NDArray[np.float32], rows: NDArray[Any]) -> NDArray[Any]:
    """(N,), (N, ...): each row with the one before it, by its share (Zhang et al. 2018). `_mixed` of targets."""
    import numpy as np

    own = shares.reshape(-1, *[1] * (rows.ndim - 1))
    found: NDArray[Any] = (own * rows + (1 - own) * np.roll(rows, 1, axis=0)).astype(rows.dtype)
    return found


def augmented(network: Any, workload: Workload, training: Training, seed: int) -> Any:
    """A model that is trained as the network with changed examples; not compiled.

    With mixup its input is [examples, shares (N,)]. `layers` and `get_layer` are the network's, for callbacks and
    functions of the user's own.
    """
    import numpy as np

    operations = [each for each in training.augment if each.name != "mixup"]
    seeds = [int(number) >> 1 for number in np.random.SeedSequence(seed).generate_state(len(operations))]
    made = workload.augment(operations, seeds) if workload.augment is not None else []
    mixes = mixup(training) is not None

    class Augmented(keras().Model):  # type: ignore[misc]
        """Changes, then the network: the changes in training alone."""

        def __init__(self) -> None:
            super().__init__(name="augmented")
            self.changes = made
            self.network = network

        def build(self, input_shape: Any = None) -> None:
            for change in self.changes:
                change.built = True  # none has weights
            self.built = True

        @property
        def layers(self) -> Any:
            return self.network.layers

        def call(self, inputs: Any, training: bool = False) -> Any:
            examples, shares = inputs if mixes else (inputs, None)
            if training:
                for change in self.changes:
                    examples = change(examples)  # Keras tells it that this is training
                examples = examples if shares is None else _mixed(examples, shares)
            return self.network(examples, training=training)

    return Augmented()


def _mixed(examples: Any, shares: Any) -> Any:
    """Each example with the one before it in the batch, which is in random order; whole numbers stay whole."""
    ops, kind = keras().ops, keras().backend.standardize_dtype(examples.dtype)
    own = ops.reshape(ops.cast(shares, "float32"), (-1, *[1] * (len(examples.shape) - 1)))
    values = ops.cast(examples, "float32")
    found = own * values + (1 - own) * ops.roll(values, 1, axis=0)
    return ops.cast(ops.round(found) if "int" in kind else found, kind)

"""The steps of a fit, as many in one call as the backend can: `tensorflow_steps`, `jax_steps`, or one by one.

Which examples make a batch does not belong here (training).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from leptonflow.core import progress
from leptonflow.core.code_digests import backend
from leptonflow.keras_runtime import jax_steps, keras_models, tensorflow_steps
from leptonflow.keras_runtime.step_batches import Batches, Values, values

BACKENDS: dict[str, ModuleType] = {"tensorflow": tensorflow_steps, "jax": jax_steps}


class TrainSteps:
    """Of one plan in this process: what was compiled for a trainer is kept for its next fit."""

    def __init__(self) -> None:
        self._function: Any = None  # Keras's own, which it makes anew when the model is compiled again
        self._compiled: Any = None
        self._said: set[str] = set()
        self._examples: tuple[Any, Any] = (None, None)

    def one_by_one(self, trainer: Any, hooks: bool) -> bool:
        """Whether each step is a call of its own. Says why, once, where somebody chose what makes it so.

        hooks: whether a callback is called at each step.
        """
        spread = keras_models.keras().distribution.distribution() is not None
        why = "a callback of model.callbacks has a hook for each batch" if hooks else None
        if why is None and spread:
            why = "each batch is shared by several devices"
        if why is not None and why not in self._said:
            self._said.add(why)
            progress.note(f"training makes one call per step, which is slower: {why}")
        unable = trainer.run_eagerly or not hasattr(trainer, "_symbolic_build")
        return (
            why is not None or unable or backend() not in BACKENDS or (backend() == "jax" and not trainer.jit_compile)
        )

    def resident(self, encoded: Any) -> Any:
        """(M, ...): the examples where the steps read them themselves; None where each call is handed its own."""
        if self._examples[0] is not encoded:
            self._examples = (None, None)  # the memory of the ones before
            found = BACKENDS[backend()].resident(encoded)
            self._examples = (None if found is None else encoded, found)
        return self._examples[1]

    def run(self, trainer: Any, of: Batches, room: int) -> Values:
        """Train on these batches; a call has `room` of them at most.

        Raises ConfigurationError for a metric of several values.
        """
        trainer.make_train_function()
        if self._function is not trainer.train_function:
            self._function = trainer.train_function
            trainer._symbolic_build(data_batch=of.batch(0))  # as `train_on_batch` does: metrics get their variables
            self._compiled = BACKENDS[backend()].compiled(trainer)
        found: Values = self._compiled(of, room)
        return found

    def run_one(self, trainer: Any, of: Batches) -> Values:
        """Train on the first of these batches alone, through Keras's `train_on_batch`."""
        import numpy as np

        logs = values(trainer.train_on_batch(*of.batch(0), return_dict=True))
        return {name: np.reshape(value, 1) for name, value in logs.items()}

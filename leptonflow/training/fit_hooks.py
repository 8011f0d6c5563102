"""The user's Keras callbacks through one fit, called as Keras's own `fit` calls them, in the thread of the fit.

Keras's CallbackList is not used: on some backends it calls hooks in a thread of its own. What does not belong here:
which callbacks there are (user_model), and what is trained (model_fits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.keras_runtime.keras_models import keras

EACH_STEP = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


class FitHooks:
    """epochs of the fit, and steps of all of them."""

    def __init__(self, callbacks: Sequence[Any], model: Any, epochs: int, steps: int) -> None:
        self._callbacks = callbacks
        self._model = model
        model.stop_training = False
        for each in callbacks:
            each.set_params({"verbose": 0, "epochs": epochs, "steps": steps // epochs})
            each.set_model(model)

    def call(self, hook: str, *at: int, logs: Mapping[str, float] | None = None) -> None:
        """One of Keras's hooks of all callbacks, in their order. at: the epoch or the step, from 0."""
        if not self._callbacks:
            return
        told = dict(logs or {})  # one for all: some of Keras's own add to it
        for each in self._callbacks:
            getattr(each, hook)(*at, told)

    @property
    def each_step(self) -> bool:
        """Whether a callback has a hook of its own before or after a step."""
        base = keras().callbacks.Callback
        return any(
            getattr(getattr(each, hook), "__func__", None) is not getattr(base, hook)
            for each in self._callbacks
            for hook in EACH_STEP
        )

    @property
    def stopped(self) -> bool:
        """Whether a callback has set `model.stop_training`, which ends the fit after this epoch."""
        return bool(self._callbacks) and bool(self._model.stop_training)

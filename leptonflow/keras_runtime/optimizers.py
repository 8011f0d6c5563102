"""Keras's optimizer for the section `training:` of the YAML, with its schedule of learning rates.

What does not belong here: the loss and the metrics, which a workload compiles (workloads), and the callback that a
plateau needs (training).
"""

from __future__ import annotations

from typing import Any

from leptonflow.keras_runtime.keras_models import keras
from schemas.training import Optimizer

CLASSES = {
    "adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop", "nadam": "Nadam", "adagrad": "Adagrad",
    "adamax": "Adamax",
}  # fmt: skip


def optimizer(given: Optimizer, steps: int) -> Any:
    """A new keras.optimizers.Optimizer for a fit of that many steps, each of one batch."""
    options: dict[str, Any] = {
        "weight_decay": given.weight_decay,
        "global_clipnorm": given.clip_norm,
        "use_ema": None if given.ema is None else True,
        "ema_momentum": given.ema,
        "gradient_accumulation_steps": given.gradient_accumulation,
    }
    kind = getattr(keras().optimizers, CLASSES[given.name])
    set_ones = {name: value for name, value in options.items() if value is not None}
    changes = max(1, steps // (given.gradient_accumulation or 1))  # of the weights: what a schedule counts
    return kind(learning_rate=_rate(given, changes), **set_ones)


def _rate(given: Optimizer, steps: int) -> Any:
    """The learning rate, or its schedule over the steps of the fit."""
    highest = given.learning_rate
    if not given.scheduled:
        return highest
    schedules = keras().optimizers.schedules
    rising = round(given.warmup * steps)
    falling = max(1, steps - rising)
    after: Any = None
    if given.schedule == "cosine":
        after = schedules.CosineDecay(highest, falling)
    elif given.schedule == "steps":
        marks = [max(0, falling // 2 - 1), max(0, falling * 3 // 4 - 1)]  # the last steps, from 0, before each fall
        after = schedules.PiecewiseConstantDecay(marks, [highest, highest / 10, highest / 100])
    return _warmed(highest, rising, after) if rising else after or highest


def _warmed(highest: float, rising: int, after: Any) -> Any:
    """Linear from near 0 to `highest` in `rising` steps (Goyal et al. 2017), then `after`, or `highest` for ever."""
    ops = keras().ops

    class Warmup(keras().optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        """Keras has a warmup for the cosine alone."""

        def __call__(self, step: Any) -> Any:
            done = ops.cast(step, "float32")
            later = highest if after is None else after(ops.maximum(step - rising, 0))
            return ops.where(done < rising, highest * (done + 1) / rising, later)

    return Warmup()

"""The epochs of one fit: the order of its batches, what each epoch brought, and when it ends.

Which examples a fit learns from, and what becomes of its model, belongs to model_fits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leptonflow.core import progress
from leptonflow.keras_runtime import keras_models
from leptonflow.training.fit_hooks import FitHooks
from leptonflow.training.workspace import Models
from leptonflow.workloads import user_model
from leptonflow.workloads.base import Workload
from schemas.config import Pipeline
from schemas.errors import TrainingError
from schemas.records import EpochValue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A learning curve needs no more of the fold than this; all of it after each epoch would cost 15% of the fit.
CURVE_EXAMPLES = 256


@dataclass(frozen=True)
class Material:
    """The examples of one fit: numbers of the N training examples of the plan.

    encoded  (N, ...) what the model takes of each; labels: N true values; classes: K names
    kept     those that are learned from
    held     those of the fold, which are not
    weights  (K,) what an example of each class counts in the loss; None: 1
    """

    encoded: NDArray[Any]
    labels: NDArray[Any]
    classes: Sequence[str]
    kept: NDArray[np.int64]
    held: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None


def steps(config: Pipeline, count: int) -> int:
    """The steps of a fit that learns from `count` examples."""
    return config.training.epochs * -(-count // config.training.batch_size)


def run(
    models: Models, of: Material, workload: Workload, config: Pipeline, start: int, stage: str
) -> tuple[EpochValue, ...]:
    """Train on `of.kept` and follow the curve on a sample of `of.held`; the values of each epoch.

    start: the fit's seed. Raises TrainingError where a loss or a weight is not finite.
    """
    curve = of.held[:CURVE_EXAMPLES]  # by id, which is a digest: a fair sample
    plateau = _plateau(models, config)
    hooks = FitHooks(user_model.callbacks(config), models.trainer, config.training.epochs, steps(config, len(of.kept)))
    hooks.call("on_train_begin")
    values: list[EpochValue] = []
    for epoch in range(1, config.training.epochs + 1):
        began = time.perf_counter()
        hooks.call("on_epoch_begin", epoch - 1)
        found = _epoch(models.trainer, of, workload, config, start, stage, epoch, hooks)
        hooks.call("on_epoch_end", epoch - 1, logs=found)  # without the fold's, which may decide nothing of its fit
        model = models.settled()
        _check_finite(model, found)
        if len(curve):
            rows = finite(keras_models.predict(model, of.encoded[curve]))
            found |= {f"val_{name}": value for name, value in workload.target.curve(of.labels[curve], rows).items()}
        seconds = time.perf_counter() - began
        values += [
            EpochValue(epoch=epoch, metric=name, value=float(value), seconds=seconds) for name, value in found.items()
        ]
        if plateau is not None:
            plateau.on_epoch_end(epoch - 1, dict(found))
        if hooks.stopped:
            break
    hooks.call("on_train_end")
    return tuple(values)


def _epoch(
    trainer: Any,
    of: Material,
    workload: Workload,
    config: Pipeline,
    start: int,
    stage: str,
    epoch: int,
    hooks: FitHooks,
) -> dict[str, float]:
    """The mean loss and metrics of one pass over the examples, the loss first.

    The order of the examples depends on the seed and the epoch alone, and never on what the process
    did before. Batches are gathered from the one array, so a fold costs no copy of its examples.
    """
    import numpy as np

    size, count = config.training.batch_size, len(of.kept)
    order = of.kept[np.random.default_rng([start, epoch]).permutation(count)]
    sums: dict[str, float] = {}
    for first in range(0, count, size):
        batch = order[first : first + size]
        target = workload.target.fit(of.labels[batch], len(of.classes))
        weights = None if of.weights is None else of.weights[of.labels[batch]]
        hooks.call("on_train_batch_begin", first // size)
        logs = trainer.train_on_batch(of.encoded[batch], target, weights, return_dict=True)
        hooks.call("on_train_batch_end", first // size, logs=logs)
        for name, value in logs.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
        progress.report(stage, (epoch - 1) * count + first + len(batch), config.training.epochs * count)
    return {name: sums[name] / count for name in sorted(sums, key=lambda name: name != "loss")}


def _plateau(models: Models, config: Pipeline) -> Any:
    """Keras's callback that halves the learning rate when the loss of the training no longer falls; None without."""
    if config.training.steering.schedule != "plateau":
        return None
    callback = keras_models.keras().callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=3)
    callback.set_model(models.trainer)
    callback.on_train_begin()
    return callback


def _check_finite(model: Any, found: dict[str, float]) -> None:
    import numpy as np

    finite(np.asarray([*found.values()]))
    for variable in model.trainable_variables:  # relu hides a NaN from the loss, depending on the backend
        finite(np.asarray(keras_models.keras().ops.convert_to_numpy(variable)))


def finite(numbers: NDArray[Any]) -> NDArray[Any]:
    """The numbers. Raises TrainingError where one is not finite."""
    import numpy as np

    if not np.isfinite(numbers).all():
        raise TrainingError(
            "the training diverged: a loss or a weight is not a finite number",
            expected="a loss that falls",
            received="NaN or infinity",
            hint="Lower training.learning_rate, for example to a tenth, or choose the optimizer adam",
        )
    return numbers

"""The epochs of one fit: the order of its batches, what each epoch brought, and when it ends.

Which examples a fit learns from, and what becomes of its model, belongs to model_fits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import progress
from leptonflow.keras_runtime import keras_models
from leptonflow.training import augmentation
from leptonflow.training.early_stopping import Watch
from leptonflow.training.event_files import Tell
from leptonflow.training.fit_cost import Meter
from leptonflow.training.fit_hooks import FitHooks
from leptonflow.training.workspace import Models
from leptonflow.workloads import user_model
from leptonflow.workloads.base import Workload
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, TrainingError
from schemas.records import EpochValue, FitCost

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A learning curve needs no more of the fold than this; all of it after each epoch would cost 15% of the fit.
CURVE_EXAMPLES = 256
SHOWN = 3  # examples that an error names


@dataclass(frozen=True)
class Material:
    """The examples of one fit: numbers of the N training examples of the plan.

    encoded  (N, ...) what the model takes of each; labels: N true values; classes: K names
    kept     those that are learned from
    held     those of the fold, which are not
    watched  those of the fit's own that are held back for early stopping; none without
    sources  N names, for messages
    weights  (K,) what an example of each class counts in the loss; None: 1
    """

    encoded: NDArray[Any]
    labels: NDArray[Any]
    classes: Sequence[str]
    kept: NDArray[np.int64]
    held: NDArray[np.int64]
    watched: NDArray[np.int64]
    sources: Sequence[str]
    weights: NDArray[np.float32] | None = None


def steps(config: Pipeline, count: int, most: int | None = None) -> int:
    """The steps of a fit that learns from `count` examples. most: its epochs, if they are not those of the YAML."""
    return (most or config.training.epochs) * -(-count // config.training.batch_size)


class Course(NamedTuple):
    """The values of each epoch, the epoch whose weights were kept (None: the last one, without a choice), the cost."""

    values: tuple[EpochValue, ...]
    best: int | None
    cost: FitCost


def run(
    models: Models, of: Material, workload: Workload, config: Pipeline, start: int, stage: str, most: int, tell: Tell
) -> Course:
    """Train on `of.kept` for `most` epochs, or until early stopping ends it, and follow the curve on some of `of.held`.

    start: the fit's seed; tell: is told the values of each epoch. Raises TrainingError where a loss or a weight is not
    finite.
    """
    curve = of.held[:CURVE_EXAMPLES]  # by id, which is a digest: a fair sample
    given = config.training.early_stopping
    watch = Watch(given, config, models.model) if given is not None and len(of.watched) else None
    plateau = _plateau(models, config, watch)
    hooks = FitHooks(user_model.callbacks(config), models.trainer, most, steps(config, len(of.kept), most))
    hooks.call("on_train_begin")
    values: list[EpochValue] = []
    total, meter, began_fit = most * len(of.kept), Meter(), time.perf_counter()
    for epoch in range(1, most + 1):
        began = time.perf_counter()
        hooks.call("on_epoch_begin", epoch - 1)
        found = _epoch(models.trainer, of, workload, config, start, epoch, (stage, total), hooks, meter)
        hooks.call("on_epoch_end", epoch - 1, logs=found)  # without the fold's, which may decide nothing of its fit
        model = models.settled()
        _check_finite(model, found)
        if len(curve):
            rows = finite(keras_models.predict(model, of.encoded[curve]))
            found |= {f"val_{name}": value for name, value in workload.target.curve(of.labels[curve], rows).items()}
        if watch is not None:
            rows = finite(keras_models.predict(model, of.encoded[of.watched]))
            found[f"stop_{watch.metric}"] = watch.value(workload, of.labels[of.watched], rows, of.classes)
        seconds = time.perf_counter() - began
        values += [
            EpochValue(epoch=epoch, metric=name, value=float(value), seconds=seconds) for name, value in found.items()
        ]
        tell(epoch, found)
        if plateau is not None:
            plateau.on_epoch_end(epoch - 1, dict(found))
        ended = watch is not None and watch.ends(epoch, found[f"stop_{watch.metric}"])
        if ended or hooks.stopped:
            progress.report(stage, total, total)
            break
    hooks.call("on_train_end")
    models.settled()  # a callback may have put other weights back
    cost = meter.cost(models.trainer, time.perf_counter() - began_fit)
    return Course(tuple(values), None if watch is None else watch.end(), cost)


def _epoch(
    trainer: Any,
    of: Material,
    workload: Workload,
    config: Pipeline,
    start: int,
    epoch: int,
    told: tuple[str, int],
    hooks: FitHooks,
    meter: Meter,
) -> dict[str, float]:
    """The mean loss and metrics of one pass over the examples, the loss first.

    The order of the examples depends on the seed and the epoch alone, and never on what the process
    did before. Batches are gathered from the one array, so a fold costs no copy of its examples.
    told: the fit's name and the examples of all its epochs, for progress.
    """
    import numpy as np

    stage, total = told
    size, count = config.training.batch_size, len(of.kept)
    chance, mixup = np.random.default_rng([start, epoch]), augmentation.mixup(config.training)
    order = of.kept[chance.permutation(count)]
    sums: dict[str, float] = {}
    for first in range(0, count, size):
        batch = order[first : first + size]
        with meter.gathering():
            given: Any = of.encoded[batch]
            target = workload.target.fit(of.labels[batch], len(of.classes))
            weights = None if of.weights is None else of.weights[of.labels[batch]]
            if mixup is not None:
                shares = chance.beta(mixup, mixup, len(batch)).astype(np.float32)
                given, target = [given, shares], augmentation.mixed(shares, target)
                weights = None if weights is None else augmentation.mixed(shares, weights)
        hooks.call("on_train_batch_begin", first // size)
        with meter.step(len(batch)):
            logs = {
                name: _number(name, value)
                for name, value in trainer.train_on_batch(given, target, weights, return_dict=True).items()
            }
        _check_loss(logs, f"step {first // size + 1} of epoch {epoch}, {stage}", [of.sources[i] for i in batch])
        hooks.call("on_train_batch_end", first // size, logs=logs)
        for name, value in logs.items():
            sums[name] = sums.get(name, 0.0) + value * len(batch)
        progress.report(stage, (epoch - 1) * count + first + len(batch), total)
    return {name: sums[name] / count for name in sorted(sums, key=lambda name: name != "loss")}


def _number(name: str, value: Any) -> float:
    """The value of a loss or metric after a step. Raises ConfigurationError where it has several, as one per class."""
    import numpy as np

    if np.size(value) != 1:
        raise ConfigurationError(
            f"the metric {name} of the compiled model has several values",
            expected="one number for all classes, such as F1Score(average='macro') gives",
            received=f"{np.size(value)} numbers",
            hint="Leave it out of model.compile, or average it",
        )
    return float(np.reshape(value, ()))


def _plateau(models: Models, config: Pipeline, watch: Watch | None) -> Any:
    """Keras's callback that halves the learning rate when a fit no longer gets better; None without.

    It looks at the metric of early stopping, or else at the loss of the training.
    """
    if config.training.steering.schedule != "plateau":
        return None
    value, mode = ("loss", "min") if watch is None else (f"stop_{watch.metric}", watch.mode)
    callback = keras_models.keras().callbacks.ReduceLROnPlateau(value, factor=0.5, patience=3, mode=mode)
    callback.set_model(models.trainer)
    callback.on_train_begin()
    return callback


def _check_loss(logs: dict[str, float], where: str, examples: Sequence[str]) -> None:
    """Raises TrainingError where a value of the step is not finite: the steps after it would change nothing more."""
    wrong = {name: value for name, value in logs.items() if not math.isfinite(value)}
    if wrong:
        named = ", ".join(examples[:SHOWN]) + (f" and {len(examples) - SHOWN} more" if len(examples) > SHOWN else "")
        name, value = next(iter(wrong.items()))
        raise diverged(f"{name} {value} at {where}, on the examples {named}")


def _check_finite(model: Any, found: dict[str, float]) -> None:
    import numpy as np

    finite(np.asarray([*found.values()]))
    for variable in model.trainable_variables:  # relu hides a NaN from the loss, depending on the backend
        finite(np.asarray(keras_models.keras().ops.convert_to_numpy(variable)))


def finite(numbers: NDArray[Any]) -> NDArray[Any]:
    """The numbers. Raises TrainingError where one is not finite."""
    import numpy as np

    if not np.isfinite(numbers).all():
        raise diverged("NaN or infinity")
    return numbers


def diverged(received: str) -> TrainingError:
    """The error of a fit whose numbers are none any more."""
    return TrainingError(
        "the training diverged: a loss or a weight is not a finite number",
        expected="a loss that falls",
        received=received,
        hint="Lower learning_rate in training, for example to a tenth, or choose the optimizer adam",
    )

"""The epochs of one fit: the order of its batches, what each epoch brought, and when it ends.

Which examples a fit learns from, and what becomes of its model, belongs to model_fits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import progress
from leptonflow.keras_runtime import keras_models
from leptonflow.training import augmentation, batches
from leptonflow.training.batches import Call, Material, Order, Pace, calls
from leptonflow.training.checkpoints import Keeper
from leptonflow.training.early_stopping import Watch
from leptonflow.training.event_files import Tell
from leptonflow.training.fit_cost import Meter
from leptonflow.training.fit_hooks import FitHooks
from leptonflow.training.fit_state import FitState
from leptonflow.training.workspace import Models
from leptonflow.workloads import user_model
from leptonflow.workloads.base import Workload
from schemas.config import Pipeline
from schemas.errors import TrainingError
from schemas.records import EpochValue, FitCost

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A learning curve needs no more of the fold than this; all of it after each epoch would cost 15% of the fit.
CURVE_EXAMPLES = 256
SHOWN = 3  # examples that an error names


def steps(config: Pipeline, count: int, most: int | None = None) -> int:
    """The steps of a fit that learns from `count` examples. most: its epochs, if they are not those of the YAML."""
    return (most or config.training.epochs) * -(-count // config.training.batch_size)


class Course(NamedTuple):
    """The values of each epoch, the epoch whose weights were kept (None: the last one, without a choice), the cost.

    before: seconds of the fit in the processes that it went on from
    """

    values: tuple[EpochValue, ...]
    best: int | None
    cost: FitCost
    before: float


def run(
    models: Models,
    of: Material,
    workload: Workload,
    config: Pipeline,
    start: int,
    stage: str,
    most: int,
    tell: Tell,
    keeper: Keeper | None = None,
) -> Course:
    """Train on `of.kept` for `most` epochs, or until early stopping ends it, and follow the curve on some of `of.held`.

    start: the fit's seed; tell: is told the values of each epoch; keeper: knows where the fit goes on, and is called
    after every call of the backend, which is of one step or several, when the values of all variables are those of the
    last one. Raises TrainingError where a loss or a weight is not finite.
    """
    curve = of.held[:CURVE_EXAMPLES]  # by id, which is a digest: a fair sample
    given = config.training.early_stopping
    watch = Watch(given, config, models.model) if given is not None and len(of.watched) else None
    plateau = _plateau(models, config, watch)
    total, every = most * len(of.kept), steps(config, len(of.kept), most)
    hooks = FitHooks(user_model.callbacks(config), models.trainer, most, every)
    hooks.call("on_train_begin")
    followers = [each for each in (watch and watch.callback, plateau) if each is not None]
    state = FitState(models, followers, (most, every // most))
    if keeper is not None:
        keeper.resume(state)
    fit = _fit(state, of, workload, config, start, (stage, total), hooks, keeper)
    last = state.epoch - 1 if watch is not None and watch.ended else most  # it goes on from the end of its last epoch
    for epoch in range(state.epoch, last + 1):
        hooks.call("on_epoch_begin", epoch - 1)
        found = _epoch(fit)
        hooks.call("on_epoch_end", epoch - 1, logs=found)  # without the fold's, which may decide nothing of its fit
        model = models.settled()
        _check_finite(model, found)
        if len(curve):
            rows = finite(keras_models.predict(model, of.encoded, curve))
            found |= {f"val_{name}": value for name, value in workload.target.curve(of.labels[curve], rows).items()}
        if watch is not None:
            rows = finite(keras_models.predict(model, of.encoded, of.watched))
            found[f"stop_{watch.metric}"] = watch.value(workload, of.labels[of.watched], rows, of.classes)
        seconds = time.perf_counter() - state.epoch_began
        state.values += [
            EpochValue(epoch=epoch, metric=name, value=float(value), seconds=seconds) for name, value in found.items()
        ]
        tell(epoch, found)
        if plateau is not None:
            plateau.on_epoch_end(epoch - 1, dict(found))
        ended = watch is not None and watch.ends(epoch, found[f"stop_{watch.metric}"])
        state.next_epoch()
        if ended or hooks.stopped:
            progress.report(stage, total, total)
            break
        if keeper is not None:
            keeper.between(state)
    hooks.call("on_train_end")
    models.settled()  # a callback may have put other weights back
    cost = state.meter.cost(models.trainer, time.perf_counter() - state.began)
    return Course(tuple(state.values), None if watch is None else watch.end(), cost, state.before)


class _Fit(NamedTuple):
    """What all epochs of a fit share. most: steps of one call; single: each step is one; resident: as in `calls`."""

    state: FitState
    of: Material
    workload: Workload
    config: Pipeline
    start: int
    told: tuple[str, int]  # the fit's name and the examples of all its epochs, for progress
    hooks: FitHooks
    pace: Pace
    most: int
    single: bool
    resident: Any
    keeper: Keeper | None


def _fit(
    state: FitState,
    of: Material,
    workload: Workload,
    config: Pipeline,
    start: int,
    told: tuple[str, int],
    hooks: FitHooks,
    keeper: Keeper | None,
) -> _Fit:
    single = state.models.steps.one_by_one(state.models.trainer, hooks.each_step)
    resident = None if single else state.models.steps.resident(of.encoded)
    most = 1 if single else batches.most(of, workload, config.training.batch_size, resident)
    return _Fit(state, of, workload, config, start, told, hooks, Pace(most), most, single, resident, keeper)


def _epoch(fit: _Fit) -> dict[str, float]:
    """The mean loss and metrics of one pass over the examples, or of what is left of it; the loss first."""
    state, of, (stage, total) = fit.state, fit.of, fit.told
    epoch, sums, trainer, steps = state.epoch, state.sums, state.models.trainer, state.models.steps
    size, count = fit.config.training.batch_size, len(of.kept)
    order = Order.of(of.kept, fit.start, epoch, augmentation.mixup(fit.config.training))
    waiting = calls(of, fit.workload, order, size, state.step, fit.resident, lambda: fit.pace.steps, fit.most)
    while (call := _next(state.meter, waiting)) is not None:
        began = time.perf_counter()
        fit.hooks.call("on_train_batch_begin", call.first)
        with state.meter.step(call.steps, call.numbers.size):
            if fit.single:
                found = steps.run_one(trainer, call.batches)
            else:
                found = steps.run(trainer, call.batches, fit.most)
        for step in range(call.steps):
            logs = {name: float(value[step]) for name, value in found.items()}
            _check_loss(logs, f"step {call.first + step + 1} of epoch {epoch}, {stage}", of.sources, call.numbers[step])
            for name, value in logs.items():
                sums[name] = sums.get(name, 0.0) + value * call.numbers.shape[1]
        fit.hooks.call("on_train_batch_end", call.first, logs=logs)
        fit.pace.took(call.steps, time.perf_counter() - began)
        state.step = call.first + call.steps
        state.seen = min(state.step * size, count)
        if fit.keeper is not None:
            fit.keeper.between(state)
        progress.report(stage, (epoch - 1) * count + state.seen, total)
    return {name: sums[name] / count for name in sorted(sums, key=lambda name: name != "loss")}


def _next(meter: Meter, waiting: Iterator[Call]) -> Call | None:
    with meter.gathering():
        return next(waiting, None)


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


def _check_loss(logs: dict[str, float], where: str, sources: Sequence[str], batch: NDArray[np.int64]) -> None:
    """Raises TrainingError where a value of the step is not finite: the steps after it would change nothing more.

    sources: the names of all examples; batch: the numbers of those of the step.
    """
    wrong = {name: value for name, value in logs.items() if not math.isfinite(value)}
    if wrong:
        examples = [sources[number] for number in batch]
        named = ", ".join(examples[:SHOWN]) + (f" and {len(examples) - SHOWN} more" if len(examples) > SHOWN else "")
        name, value = next(iter(wrong.items()))
        received = f"{name} {value} at {where}, on the examples {named}"
        raise diverged(received) if "loss" in wrong else _no_number(name, received)


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


def _no_number(metric: str, received: str) -> TrainingError:
    return TrainingError(
        f"the metric {metric} of the compiled model is not a finite number",
        expected="a number for every batch, also for one without an example of some class",
        received=received,
        hint="Leave it out of model.compile, or make it 0 where it is not defined",
    )


def diverged(received: str) -> TrainingError:
    """The error of a fit whose numbers are none any more."""
    return TrainingError(
        "the training diverged: a loss or a weight is not a finite number",
        expected="a loss that falls",
        received=received,
        hint="Lower learning_rate in training, for example to a tenth, or choose the optimizer adam",
    )

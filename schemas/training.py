"""The section `training:` of a pipeline's YAML: how a fit is computed.

Keys, bounds and defaults belong here. A key that came later is left out of a document while it is at its default, so
that digests are those of before there was such a key. What a key does: `keras_runtime.optimizers`, `training`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidatorFunctionWrapHandler, field_validator, model_validator

from schemas.augmentation import Operation
from schemas.errors import ConfigurationError
from schemas.metrics import class_of
from schemas.own_model import below
from schemas.rules import AS_TUPLE, MOST, Count, Frozen, Metric, left_out, wrong
from schemas.runner import Runner, RunnerName
from schemas.text import nfc
from schemas.workloads import Sections
from schemas.yaml_text import Yaml

VERSION = re.compile("[0-9a-f]{12}")
MODEL_FILE = ".keras"
OptimizerName = Literal["adam", "adamw", "sgd", "rmsprop", "nadam", "adagrad", "adamax"]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Frozen):
    """How the weights follow the gradients.

    learning_rate  the highest one
    schedule       constant; cosine: falls to 0 over all steps; steps: a tenth of it after half of all steps, a
                   hundredth after three quarters; plateau: halved whenever three epochs brought nothing better
    warmup         the share of all steps in which the learning rate rises from 0
    weight_decay   None: Keras's own for that optimizer, which is 0.004 for adamw and none for the others
    clip_norm      the largest norm of all gradients of a step together
    ema            the momentum of a moving average of the weights: the average is evaluated and saved
    gradient_accumulation  the batches whose gradients are averaged for one change of the weights
    """

    name: OptimizerName = "adam"
    learning_rate: Rate = 0.001
    schedule: Literal["constant", "cosine", "plateau", "steps"] = "constant"
    warmup: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    gradient_accumulation: Annotated[int, Field(ge=2, le=MOST)] | None = left_out(None)

    @model_validator(mode="after")
    def _no_warmup_before_a_plateau(self) -> Optimizer:
        if self.schedule == "plateau" and self.warmup:
            expected = "warmup with the schedule constant, cosine or steps: plateau sets the learning rate by the epoch"
            raise wrong("training.optimizer.warmup", expected, self.warmup)
        return self

    @model_validator(mode="after")
    def _no_average_of_weights_that_stand_still(self) -> Optimizer:
        if self.ema is not None and self.gradient_accumulation is not None:  # Keras averages after every batch
            expected = "no ema with training.optimizer.gradient_accumulation"
            raise wrong("training.optimizer.ema", expected, self.ema)
        return self

    @property
    def scheduled(self) -> bool:
        """Whether the learning rate depends on how many steps the whole fit has."""
        return self.schedule in ("cosine", "steps") or self.warmup > 0


class EarlyStopping(Frozen):
    """A fit ends when a metric of some of its own training examples, held back for it, no longer gets better.

    metric    as a rule names it; None: the first one of the workload, such as accuracy
    patience  epochs without a better value before it ends; the weights of the best epoch are kept
    fraction  of the fit's training examples, of its groups where there are some
    """

    metric: Metric | None = None
    patience: Count = 5
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1


class Checkpoint(Frozen):
    """How often a fit under way is saved, to go on from there in another process. minutes: at least, between two."""

    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0


class Training(Frozen):
    """How each fold and the final fit are computed.

    optimizer        a name, with `learning_rate` beside it, or a mapping that has its own (which is then None here)
    label_smoothing  the share of a label's probability that is spread over all classes
    class_weights    what an example of each class counts in the loss; a class that is not named counts 1
    precision        what the network computes in while it is trained; auto: bfloat16 on a GPU that is fast in it. The
                     weights, and the model that is evaluated and saved, are float32
    deterministic    whether the backend may only use operations that give the same bits each time
    final_epochs     own: the final fit ends as a fold does; folds_median: after the median of the folds' best epochs
    devices          auto: the first accelerator that the backend sees, or the CPU; a number: so many accelerators
    tensorboard      whether each fit writes its learning curve for TensorBoard
    runner           where the fits are computed: a name, or a mapping with what each asks for
    start_from       whose weights the final fit starts with: scratch (none), champion, a version, or a .keras file
    checkpoint       how often a fit under way is saved
    """

    epochs: Count = 10
    batch_size: Count = 32
    folds: Annotated[int, Field(ge=2, le=MOST)] = 5
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0  # NumPy takes no greater one
    optimizer: OptimizerName | Optimizer = "adam"
    learning_rate: Rate | None = Field(default=0.001, exclude_if=lambda value: value is None)
    label_smoothing: Share = left_out(0.0)
    class_weights: Literal["none", "balanced"] | dict[str, float] = left_out("none")

    early_stopping: EarlyStopping | None = left_out(None)
    final_epochs: Literal["own", "folds_median"] = left_out("own")

    precision: Literal["auto", "float32", "bfloat16"] = left_out("float32")
    deterministic: bool = left_out(False)
    augment: Annotated[tuple[Operation, ...], AS_TUPLE] = left_out(())
    start_from: str = left_out("scratch")
    # Where a fit is computed, and who watches it: no matter of what is made, hence in no document, id or digest.
    devices: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST)] = Field(default="auto", exclude=True)
    tensorboard: bool = Field(default=False, exclude=True)
    runner: Runner = Field(default=Runner(), exclude=True)
    checkpoint: Checkpoint = Field(default=Checkpoint(), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _one_learning_rate(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        mapping, rate = isinstance(values.get("optimizer"), Mapping | Optimizer), values.get("learning_rate", 0.001)
        if mapping and values.get("learning_rate") is not None:
            expected = "the learning rate within training.optimizer, where that is a mapping"
            raise wrong("training.learning_rate", expected, rate)
        if not mapping and rate is None:
            raise wrong("training.learning_rate", "a number greater than 0", None)
        return {**values, "learning_rate": None} if mapping else values

    # Not plain validators: pydantic serializes what these give twice, and warns of it.
    @field_validator("optimizer", mode="wrap")
    @classmethod
    def _name_or_mapping(cls, value: Any, _: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, Mapping):
            return Optimizer.model_validate(value)
        names = get_args(OptimizerName)
        if not isinstance(value, Optimizer) and value not in names:
            raise ValueError(f"one of {', '.join(names)}, or a mapping of {', '.join(Optimizer.model_fields)}")
        return value

    @field_validator("runner", mode="before")
    @classmethod
    def _runner_of_a_name(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in get_args(RunnerName):
            names, keys = ", ".join(get_args(RunnerName)), ", ".join(Runner.model_fields)
            raise ValueError(f"one of {names}, or a mapping of {keys}")
        return {"name": value} if isinstance(value, str) else value

    @field_validator("devices", mode="wrap")
    @classmethod
    def _number_of_devices(cls, value: Any, _: ValidatorFunctionWrapHandler) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool)
        if value != "auto" and (not number or not 1 <= value <= MOST):
            raise ValueError("auto, or a number of devices from 1")
        return value

    @field_validator("class_weights", mode="wrap")
    @classmethod
    def _weights(cls, value: Any, _: ValidatorFunctionWrapHandler) -> Any:
        if not isinstance(value, Mapping):
            if value not in ("none", "balanced"):
                raise ValueError("none, balanced, or a mapping of classes to weights")
            return value
        if not value:
            raise ValueError("none, balanced, or a mapping of one or more classes to weights")
        for name, weight in value.items():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not 0 < weight < math.inf:
                raise wrong(f"training.class_weights.{name}", "a number greater than 0", weight)
        return {nfc(str(name)): float(weight) for name, weight in value.items()}  # a class may be called 3

    @field_validator("start_from", mode="plain")
    @classmethod
    def _start(cls, value: Any) -> str:
        if isinstance(value, int | float):
            raise ValueError('a version in quotes, such as "120000000000": YAML reads it as a number')
        if isinstance(value, str) and value.endswith(MODEL_FILE):
            return below(value)
        if not isinstance(value, str) or (value not in ("scratch", "champion") and not VERSION.fullmatch(value)):
            raise ValueError(f"scratch, champion, a version (12 hex digits), or a file *{MODEL_FILE} beside the YAML")
        return value

    @model_validator(mode="after")
    def _best_epochs(self) -> Training:
        if self.final_epochs == "folds_median" and self.early_stopping is None:
            expected = "training.early_stopping beside folds_median: it finds each fold's best epoch"
            raise wrong("training.final_epochs", expected, self.final_epochs)
        if self.final_epochs == "folds_median" and self.start_from != "scratch":
            expected = "own beside training.start_from: the folds start from scratch, their best epochs are not its own"
            raise wrong("training.final_epochs", expected, self.final_epochs)
        return self

    @model_validator(mode="after")
    def _equal_shares(self) -> Training:
        if self.devices != "auto" and self.batch_size % self.devices:
            expected = f"a number that divides training.batch_size, {self.batch_size}: each takes an equal share"
            raise wrong("training.devices", expected, self.devices)
        return self

    @model_validator(mode="after")
    def _no_idle_gpu(self) -> Training:
        used = 1 if self.devices == "auto" else self.devices
        if self.runner.gpus is not None and self.runner.gpus > used:
            expected = f"at most {used}: a fit computes on so many (training.devices is {self.devices})"
            raise wrong("training.runner.gpus", expected, self.runner.gpus)
        return self

    @property
    def start_file(self) -> str | None:
        """The file of `start_from`, a path from the YAML's folder; None where it is no file."""
        return self.start_from if self.start_from.endswith(MODEL_FILE) else None

    @property
    def steering(self) -> Optimizer:
        """The optimizer, in whichever form it was written."""
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer
        return Optimizer(name=self.optimizer, learning_rate=self.learning_rate or 0.001)


COMPILED = ("optimizer", "learning_rate", "label_smoothing")
OF_CLASSES = ("label_smoothing", "class_weights")


def compiled_keys(training: Training) -> tuple[str, ...]:
    """The keys that only matter where leptonflow compiles the model and that were set, be it to their defaults."""
    return tuple(name for name in COMPILED if name in training.model_fields_set and getattr(training, name) is not None)


def check_compilation(training: Training, what: str, where: str = "", lines: Yaml | None = None) -> None:
    """Raises ConfigurationError where the YAML sets a key that has no effect, because `what` compiles the model.

    where: the file, if it is just read; lines: where its keys stand.
    """
    for name in compiled_keys(training):
        key, value = f"training.{name}", getattr(training, name)
        raise ConfigurationError(
            f"{f'{where}: ' if where else ''}{key} has no effect{lines.line(key) if lines else ''}",
            expected=f"no such key, because {what} compiles the model",
            received=str(value) if isinstance(value, str | float) else "a mapping",
            hint=f"Remove {key}, or do not compile the model",
        )


def _set(training: Training, names: Sequence[str]) -> tuple[str, ...]:
    plain = Training()
    return tuple(name for name in names if getattr(training, name) not in (None, getattr(plain, name)))


def check(training: Training, workload: str, given: Any, sections: Sections, classes: Sequence[str] | None) -> None:
    """Raise a `wrong` error for a key that this workload does not have for its section `input`, which is `given`.

    classes: of the YAML; None: not named there.
    """
    _check_augment(training, workload, sections.augment(given))
    for name in () if sections.classes else _set(training, OF_CLASSES):
        raise wrong(f"training.{name}", f"no such key: {workload} has no classes", getattr(training, name))
    if sections.vocabulary and training.start_from != "scratch":
        expected = f"scratch: each fit of {workload} has a vocabulary of its own, whose numbers mean other tokens"
        raise wrong("training.start_from", expected, training.start_from)
    metric = training.early_stopping.metric if training.early_stopping else None
    if metric is not None and (fault := sections.metrics.fault(metric)):
        raise wrong("training.early_stopping.metric", fault, metric)
    for key, name in unknown_classes(training, classes):
        raise wrong(key, f"one of the classes {', '.join(classes or ())}", name)


def _check_augment(training: Training, workload: str, valid: Sequence[str]) -> None:
    """valid: the operations that this workload has for its input."""
    names = [operation.name for operation in training.augment]
    for number, name in enumerate(names):
        if name not in valid:
            ours = f"one of {', '.join(valid)}, those for this input"
            expected = ours if valid else f"no such key: {workload} has no augmentation"
            raise wrong(f"training.augment.{number}.{name}", expected, name)
        if name == "mixup" and "mixup" in names[:number]:
            raise wrong(f"training.augment.{number}.mixup", "mixup once", name)


def unknown_classes(training: Training, classes: Sequence[str] | None) -> list[tuple[str, str]]:
    """(key, class) of each class that a key names and that is none of these; none where they are not known yet."""
    if classes is None:
        return []
    weights = {} if isinstance(training.class_weights, str) else training.class_weights
    named = [(f"training.class_weights.{name}", name) for name in weights]
    metric = class_of(training.early_stopping.metric) if training.early_stopping else None
    named += [] if metric is None else [("training.early_stopping.metric", metric)]
    return [(key, name) for key, name in named if name not in classes]

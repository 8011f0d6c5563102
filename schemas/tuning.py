"""The section `tune:` of a pipeline's YAML: which keys a study may change, and within what.

Each end of a range and each choice must be a value that the key itself takes. How a study goes on belongs to
`leptonflow.tuning`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from schemas.metrics import class_of
from schemas.own_model import OwnModel
from schemas.rules import Frozen, left_out, wrong
from schemas.text import nfc
from schemas.training import EarlyStopping, Optimizer, Training
from schemas.workloads import Sections

# Keys of `training:` that change what is learned. The others say how that is measured, or where it is computed.
TRAINING = (
    "epochs", "batch_size", "optimizer", "learning_rate", "label_smoothing", "class_weights", "early_stopping",
    "precision", "augment",
)  # fmt: skip
WITHIN: dict[str, type[Frozen]] = {"optimizer": Optimizer, "early_stopping": EarlyStopping}
Path = tuple[str, ...]


class Range(Frozen):
    """From `low` to `high`; log: every factor is as likely as another."""

    low: float | int
    high: float | int
    log: bool = False


class Choices(Frozen):
    """One of these values."""

    choices: tuple[Any, ...]


class Tune(Frozen):
    """What `leptonflow tune` tries. metric: what is best; None: the workload's first, such as accuracy."""

    ranges: dict[str, Range | Choices]
    metric: str | None = left_out(None)


class Changed(NamedTuple):
    """The sections `training` and `model` with other values."""

    training: Training
    model: Any


def of_yaml(value: Any) -> Any:
    """A section as the YAML writes it: `{learning_rate: [1e-4, 1e-2, log], filters: {choices: [[16], [32]]}}`."""
    if value is None or isinstance(value, Tune):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("a mapping of keys of training and model to their ranges")
    given = {str(key): each for key, each in value.items()}
    metric = given.pop("metric", None)
    if metric is not None and not isinstance(metric, str):
        raise wrong("tune.metric", "the name of a metric", metric)
    if not given:
        raise ValueError("one or more keys of training or model, such as learning_rate: [1e-4, 1e-2, log]")
    return Tune(ranges={key: _range(key, each) for key, each in given.items()}, metric=metric and nfc(metric))


def _range(key: str, value: Any) -> Range | Choices:
    expected = "[low, high], [low, high, log], or {choices: [...]} of two or more values"
    if isinstance(value, Mapping):
        choices = value.get("choices")
        if {*value} != {"choices"} or not isinstance(choices, list) or len(choices) < 2:
            raise wrong(f"tune.{key}", expected, value)
        if any(each in choices[:number] for number, each in enumerate(choices)):
            raise wrong(f"tune.{key}", "each choice once", choices)
        return Choices(choices=tuple(choices))
    if not isinstance(value, list) or len(value) not in (2, 3) or value[2:] not in ([], ["log"]):
        raise wrong(f"tune.{key}", expected, value)
    low, high = value[:2]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)) or not low < high:
        raise wrong(f"tune.{key}", "two numbers, the lower one first", value)
    if value[2:] and low <= 0:
        raise wrong(f"tune.{key}", "numbers above 0 for a range that is log", value)
    return Range(low=low, high=high, log=bool(value[2:]))


def check(tune: Tune, given: Training, model: Any, sections: Sections, of_workload: Callable[[Training], None]) -> None:
    """Raise a `wrong` error for a key that cannot be tuned, a value that it does not take, an unknown metric.

    of_workload: raises one for a section `training` that the workload does not take.
    """
    if tune.metric is not None and (fault := sections.metrics.fault(tune.metric)):
        raise wrong("tune.metric", fault, tune.metric)
    for key, each in tune.ranges.items():
        _place(key, given, model)
        for value in each.choices if isinstance(each, Choices) else (each.low, each.high):
            try:
                of_workload(changed({key: value}, given, model).training)
            except ValidationError as error:
                fault = str(error.errors(include_url=False)[0]["msg"])
                fault = fault.removeprefix("Value error, ").removeprefix("Input should be ")
                raise wrong(f"tune.{key}", fault, value) from None
            except PydanticCustomError as error:
                raise wrong(f"tune.{key}", str(error), value) from None


def check_class(tune: Tune, classes: tuple[str, ...] | None) -> None:
    """Raise a `wrong` error where the metric is of a class that is none."""
    name = class_of(tune.metric)
    if name is not None and classes is not None and name not in classes:
        raise wrong("tune.metric", f"a metric of one of the classes {', '.join(classes)}", tune.metric)


def whole(key: str, of: Range, given: Training, model: Any) -> bool:
    """Whether the key takes whole numbers alone."""
    try:
        changed({key: (of.low + of.high) / 2}, given, model)
    except ValidationError:
        return True
    return False


def changed(values: Mapping[str, Any], given: Training, model: Any) -> Changed:
    """Both sections with these values by their keys. Raises pydantic's ValidationError."""
    new = _set_values(given)
    inner = _set_values(model)
    for key, value in in_order(values):
        section, *path = _place(key, given, model)
        target = new if section == "training" else inner
        if len(path) == 2:
            target[path[0]] = _mapping(path[0], target)
        (target[path[0]] if len(path) == 2 else target)[path[-1]] = value
    return Changed(Training.model_validate(new), type(model).model_validate(inner))


def in_order(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The values in the order in which they are set: `optimizer` and `learning_rate` before `optimizer.KEY`."""
    return sorted(values.items())


def current(key: str, given: Training, model: Any) -> Any:
    """The value of a key as the YAML has it, as JSON; None where a section above it is not there."""
    section, *path = _place(key, given, model)
    value: Any = given if section == "training" else model
    if path == ["optimizer", path[-1]]:
        value, path = given.steering, path[1:]
    for name in path:
        value = None if value is None else getattr(value, name)
    return _plain(value)


def _plain(value: Any) -> Any:
    """As the YAML has it: without what is at its default."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value


def places(tune: Tune, given: Training, model: Any) -> Iterator[tuple[str, Path]]:
    """Each key and its path in the YAML, such as (training, optimizer, learning_rate)."""
    for key in tune.ranges:
        yield key, _place(key, given, model)


def _place(key: str, given: Training, model: Any) -> Path:
    first, _, second = key.partition(".")
    mapping = isinstance(given.optimizer, Optimizer)
    if key in ("learning_rate", "optimizer") and mapping:
        return ("training", "optimizer", "name" if key == "optimizer" else key)
    if key in TRAINING:
        return ("training", key)
    if second and first in WITHIN and second in WITHIN[first].model_fields:
        return ("training", first, second)
    models = [name for name in type(model).model_fields if name not in OwnModel.model_fields]
    if key in models:
        if getattr(model, "function", None) is not None:
            raise wrong(f"tune.{key}", "no such key: model.function builds the model", key)
        return ("model", key)
    inner = [f"{name}.KEY" for name in WITHIN]
    raise wrong(f"tune.{key}", f"one of {', '.join((*TRAINING, *inner, *models))}", key)


def _set_values(section: Any) -> dict[str, Any]:
    return {name: getattr(section, name) for name in section.model_fields_set}


def _mapping(name: str, target: dict[str, Any]) -> dict[str, Any]:
    """The section of that name as a mapping. An optimizer's name takes the learning rate beside it along."""
    value = target.get(name)
    if name == "optimizer" and not isinstance(value, Optimizer | Mapping):
        rate = target.pop("learning_rate", None)
        return {"name": value or "adam", **({} if rate is None else {"learning_rate": rate})}
    return dict(value) if isinstance(value, Mapping) else {} if value is None else _set_values(value)

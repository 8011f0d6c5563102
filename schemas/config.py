"""A pipeline's YAML as a frozen record.

Parsing belongs here, with errors that name the key's path and the valid choices. What a value
means belongs to the engine.
"""

from __future__ import annotations

import difflib
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from schemas import stopping, training, tuning
from schemas.augmentation import Operation
from schemas.errors import ConfigurationError
from schemas.groups import Group, of_text
from schemas.metrics import class_of
from schemas.own_model import Weights
from schemas.promotion import Approval
from schemas.rules import KINDS as RULES
from schemas.rules import MOST, Calibration, Frozen, Looks, Rule, Slices, wrong
from schemas.rules import AgainstChampion as AgainstChampion
from schemas.runner import Runner
from schemas.schedule import Schedule
from schemas.scoring import Score
from schemas.serving import Serving
from schemas.stopping import StopEarly
from schemas.text import nfc
from schemas.training import Checkpoint, EarlyStopping, Optimizer, Training
from schemas.workloads import SECTIONS
from schemas.yaml_text import Yaml

NO_LINES = Yaml(None, {})
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
WORKLOADS = tuple(SECTIONS)


class Holdout(Frozen):
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Quarantine(Frozen):
    limit: Annotated[float, Field(ge=0, le=1)] = 0.2


Seconds = Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)]


class Limits(Frozen):
    """How long each stage may take in one run: all of its batches, all of its folds with the final fit."""

    validation: Seconds = Field(default=3600, alias="validate")  # pydantic's models have a method of that name
    preprocess: Seconds = 3600
    train: Seconds = 86400
    evaluate: Seconds = 3600
    infra_validate: Seconds = 600

    def of(self, stage: str) -> float:
        """The seconds of a stage, by its name in the YAML."""
        return float(getattr(self, "validation" if stage == "validate" else stage))


class Notify(Frozen):
    """Which Prefect notification block is notified of which outcomes of a run."""

    block: str
    on: tuple[Literal["failure", "refused", "promoted", "waiting", "rejected-data"], ...] = (
        "failure", "refused", "promoted", "waiting",
    )  # fmt: skip

    @field_validator("on", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("on")
    @classmethod
    def _some_end(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one of failure, refused, promoted, waiting, rejected-data")
        return value

    @field_validator("block")
    @classmethod
    def _type_and_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", value):
            raise ValueError("a block is written type/name, such as custom-webhook/ops or slack-webhook/team")
        return value


class Pipeline(Frozen):
    """One pipeline's configuration. `folder` is where its YAML lies, and is in no digest."""

    name: str
    workload: str
    input: Any  # a record of the workload's own section: schemas.workloads
    gate: tuple[Rule, ...]
    classes: tuple[str, ...] | None = None
    contract: str | None = None
    holdout: Holdout = Holdout()
    quarantine: Quarantine = Quarantine()
    # Left out where there is none: documents and digests are those of before there were groups.
    group: Group | None = Field(default=None, exclude_if=lambda value: value is None)
    model: Any = Field(default=None, validate_default=True)  # likewise
    training: Training = Training()
    stop_early_if: StopEarly | None = Field(default=None, exclude_if=lambda value: value is None)
    schedule: Schedule | None = None
    debounce: Annotated[float, Field(ge=0, le=MOST)] = 30
    # How long, and who is told: no matter of what is made, hence in no document, id or digest.
    limits: Limits = Field(default=Limits(), exclude=True)
    notify: Notify | None = Field(default=None, exclude=True)
    score: Score | None = Field(default=None, exclude=True)
    promotion: Approval | None = Field(default=None, exclude=True)  # what becomes of a verdict, not the verdict
    looks: Looks = Field(default=Looks(), exclude=True)
    serving: Serving = Field(default=Serving(), exclude=True)
    tune: Any = Field(default=None, exclude=True)  # a schemas.tuning.Tune
    folder: Path = Field(default=Path("."), exclude=True)

    @field_validator("workload")
    @classmethod
    def _known_workload(cls, value: str) -> str:
        if value not in WORKLOADS:
            raise ValueError(f"one of {', '.join(WORKLOADS)}")
        return value

    @field_validator("input", "model", mode="plain")
    @classmethod
    def _own_section(cls, value: Any, info: ValidationInfo) -> Any:
        sections = SECTIONS.get(info.data.get("workload", ""))
        if sections is None:  # told of as `workload`
            return value
        if info.field_name == "model":
            return sections.model.model_validate({} if value is None else value)
        return sections.input.validate_python(value)

    @field_validator("gate", "classes", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("tune", mode="plain")
    @classmethod
    def _ranges(cls, value: Any) -> Any:
        return tuning.of_yaml(value)

    @field_validator("group", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return of_text(value)

    @field_validator("name")
    @classmethod
    def _pipeline_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"a name matches {NAME.pattern}")
        return value

    @field_validator("gate")
    @classmethod
    def _some_rule(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError(f"a gate has at least one rule: {', '.join(RULES)}")
        return value

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        value = value and tuple(nfc(name) for name in value)
        if value is not None and (len(value) < 2 or len(set(value)) != len(value)):
            raise ValueError("classes are at least two different names")
        return value

    @model_validator(mode="after")
    def _one_decides(self) -> Pipeline:
        if self.promotion is not None and self.serving.canary is not None:
            raise wrong("serving.canary", "it decides about a candidate in a person's place: `promotion` or this", None)
        return self

    @property
    def waits(self) -> float | None:
        """Seconds that a candidate which its gate passed waits for people or labels; None: it does not."""
        asked = self.promotion or self.serving.canary
        return asked.timeout if asked is not None else None

    @model_validator(mode="after")
    def _metrics_exist(self) -> Pipeline:
        sections = SECTIONS[self.workload]
        if self.classes is not None and not sections.classes:
            raise wrong("classes", f"no such key: {self.workload} has no classes", list(self.classes))
        of_workload = partial(
            training.check, workload=self.workload, given=self.input, sections=sections, classes=self.classes
        )
        of_workload(self.training)
        if self.tune is not None:
            tuning.check(self.tune, self.training, self.model, sections, of_workload)
            tuning.check_class(self.tune, self.classes)
        if self.stop_early_if is not None:
            stopping.check(self.stop_early_if, self.training, sections, self.classes)
        for number, rule in enumerate(self.gate):
            metric = getattr(rule, "metric", None)
            if isinstance(rule, Slices | Calibration):
                if not sections.metrics.right:
                    expected = f"a rule for predictions that are not right or wrong, as those of {self.workload}"
                    raise wrong(f"gate.{number}.rule", expected, rule.rule)
            elif metric is not None and (fault := sections.metrics.fault(metric)):
                raise wrong(f"gate.{number}.metric", fault, metric)
            name = class_of(metric)
            if name is not None and self.classes is not None and name not in self.classes:
                expected = f"a metric of one of the classes {', '.join(self.classes)}"
                raise wrong(f"gate.{number}.metric", expected, metric)
        return self


def parse(document: object, *, where: str, folder: Path, lines: Yaml = NO_LINES) -> Pipeline:
    """A pipeline from a parsed YAML document; `lines` says where its keys stand.

    Raises ConfigurationError with the key's path and line, what was received and the valid choices.
    """
    if not isinstance(document, dict):
        raise ConfigurationError(
            f"{where} is not a pipeline",
            expected="a mapping with name, workload, input and gate",
            received="nothing" if document is None else type(document).__name__,
            hint="`leptonflow init NAME` writes one to start from",
        )
    try:
        return Pipeline.model_validate({**document, "folder": folder} if "folder" not in document else document)
    except ValidationError as error:
        raise _explain(error, document, where, lines) from None


def _explain(error: ValidationError, document: dict[Any, Any], where: str, lines: Yaml) -> ConfigurationError:
    first = error.errors(include_url=False)[0]
    path = [p for p in first["loc"] if p not in RULES]  # pydantic names the rule beside its number
    key = ".".join(str(p) for p in path) or "(the whole file)"
    choices: str | None = None
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(path[:-1], document)
        near = difflib.get_close_matches(str(path[-1]), valid, n=1)
        expected = f"one of {', '.join(valid)}" if valid else "no such key"
        choices = f"Did you mean {near[0]}?" if near else "Remove the key or fix its name"
        return ConfigurationError(
            f"{where}: unknown key {key}{lines.line(key)}", expected=expected, received=str(path[-1]), hint=choices
        )
    if first["type"] == "missing":
        return ConfigurationError(
            f"{where}: {key} is missing{lines.line(key)}", expected=f"a value for {key}", received="nothing",
            hint=f"Add {key}",
        )  # fmt: skip
    mapping = first["type"] in ("model_type", "model_attributes_type")
    if first["type"].startswith("union_tag") or (mapping and path[0] == "gate"):
        expected = f"a rule of {', '.join(RULES)}"
    elif first["type"] in ("tuple_type", "list_type"):
        expected = "a list"
    elif mapping:
        keys = _valid_keys(path, document)
        expected = f"a mapping of {', '.join(keys)}" if keys else "a mapping"
    received = repr(first.get("input"))
    if first["type"] == "whole_file":
        key, received = first["ctx"]["key"], repr(first["ctx"]["received"])
    return ConfigurationError(
        f"{where}: {key} is not valid{lines.line(key)}",
        expected=expected,
        received=received if len(received) < 120 else received[:117] + "...",
        hint=f"Fix {key}",
    )


def _valid_keys(path: list[Any], document: dict[Any, Any]) -> list[str]:
    """The keys that may stand at this path of the YAML."""
    if not path:
        return [k for k in Pipeline.model_fields if k != "folder"]
    own = SECTIONS.get(str(document.get("workload")))
    if path == ["model", "weights"]:
        return list(Weights.model_fields)
    if path[0] == "model" and own is not None:
        return list(own.model.model_fields)
    if path[0] == "input" and own is not None:
        return list(own.input_keys)
    sections: dict[str, type[BaseModel]] = {
        "holdout": Holdout,
        "quarantine": Quarantine,
        "group": Group,
        "training": Training,
        "schedule": Schedule,
        "limits": Limits,
        "notify": Notify,
        "promotion": Approval,
        "score": Score,
        "looks": Looks,
        "serving": Serving,
        "stop_early_if": StopEarly,
    }
    if path[-1:] == ["schedule"]:
        return list(Schedule.model_fields)
    if path[:2] == ["training", "augment"]:
        return list(Operation.model_fields)
    if path[:2] == ["training", "optimizer"]:
        return list(Optimizer.model_fields)
    if path[:2] == ["training", "runner"]:
        return list(Runner.model_fields)
    if path[:2] == ["training", "early_stopping"]:
        return list(EarlyStopping.model_fields)
    if path[:2] == ["training", "checkpoint"]:
        return list(Checkpoint.model_fields)
    if path[0] in sections:
        return [field.alias or name for name, field in sections[path[0]].model_fields.items()]
    if path[0] == "gate" and len(path) > 1:
        rule = document["gate"][path[1]].get("rule")
        return list(RULES[rule].model_fields) if rule in RULES else []
    return []

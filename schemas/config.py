"""A pipeline's YAML as a frozen record.

Parsing belongs here, with errors that name the key's path and the valid choices. What a value
means belongs to the engine.
"""

from __future__ import annotations

import difflib
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from schemas import stopping, training, tuning
from schemas.errors import ConfigurationError
from schemas.groups import Group, of_text
from schemas.metrics import class_of
from schemas.promotion import Approval
from schemas.rules import AS_TUPLE, MOST, Calibration, Frozen, Looks, Rule, Slices, left_out, wrong
from schemas.rules import KINDS as RULES
from schemas.rules import AgainstChampion as AgainstChampion
from schemas.schedule import Schedule
from schemas.scoring import Score
from schemas.serving import Serving
from schemas.stopping import StopEarly
from schemas.text import nfc
from schemas.training import Training
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


End = Literal["failure", "refused", "promoted", "waiting", "rejected-data"]


class Notify(Frozen):
    """Which Prefect notification block is notified of which outcomes of a run."""

    block: str
    on: Annotated[tuple[End, ...], AS_TUPLE] = ("failure", "refused", "promoted", "waiting")

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
    gate: Annotated[tuple[Rule, ...], AS_TUPLE]
    classes: Annotated[tuple[str, ...], AS_TUPLE] | None = None
    contract: str | None = None
    holdout: Holdout = Holdout()
    quarantine: Quarantine = Quarantine()
    # Left out where there is none: documents and digests are those of before there were groups.
    group: Group | None = left_out(None)
    model: Any = Field(default=None, validate_default=True)  # likewise
    training: Training = Training()
    stop_early_if: StopEarly | None = left_out(None)
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
            expected = "either `promotion`, by which a person decides, or serving.canary, by which labels do"
            raise wrong("serving.canary", expected, ["promotion", "serving.canary"])
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
    faults = error.errors(include_url=False)
    first = faults[0]
    if first["type"] == "missing":  # a required key that is misspelt is an unknown key
        unknown = [each for each in faults if each["type"] == "extra_forbidden"]
        first = next((each for each in unknown if each["loc"][:-1] == first["loc"][:-1]), first)
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
    own = SECTIONS.get(str(document.get("workload")))
    records: list[type[BaseModel]] = [Pipeline]
    if path == ["input"] and own is not None:
        return list(own.input_keys)
    if path[:1] == ["model"] and own is not None:
        records, path = [own.model], path[1:]
    if path[:1] == ["gate"] and len(path) > 1:
        rule = document["gate"][path[1]].get("rule")
        records, path = [RULES[rule]] if rule in RULES else [], []
    for part in path:
        fields = [field for record in records for name, field in record.model_fields.items() if name == part]
        if fields:  # else a number in a list
            records = [record for field in fields for record in _records(field.annotation)]
    found = (field.alias or name for record in records for name, field in record.model_fields.items())
    return [name for name in found if name != "folder"]


def _records(kind: Any) -> list[type[BaseModel]]:
    """The records that a value of this type may be."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [record for each in get_args(kind) for record in _records(each)]

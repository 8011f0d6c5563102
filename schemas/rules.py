"""A gate's rules as the YAML writes them, and the kinds of values that several sections have.

Their keys, bounds and defaults belong here. Whether a workload has a metric is decided in `schemas.config`, what a rule
means in `leptonflow.gate.rules`.
"""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from schemas.text import nfc

MOST = 2**31 - 1  # what TensorFlow counts, and seconds that a thread can wait
Count = Annotated[int, Field(ge=1, le=MOST)]


def left_out(default: Any) -> Any:
    """A field that is left out of a document at its default: digests are those of before there was such a key."""
    return Field(default=default, exclude_if=lambda value: value == default)


class Frozen(BaseModel):
    """Immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def wrong(key: str, expected: str, received: object) -> PydanticCustomError:
    """An error that only the key's neighbours, or the whole file, tell: the key's path is in the error itself."""
    told = {"key": key, "expected": expected, "received": received}
    return PydanticCustomError("whole_file", "{expected}", told)


def _module_and_function(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError("a function is written module:function, such as my_package.my_model:build")
    top = value.split(":")[0].split(".")[0]
    if top in sys.stdlib_module_names or top in ("test", "__main__"):
        raise ValueError(f"a module beside the YAML or of a package that is installed, not Python's own {top}")
    return value


ModelFunction = Annotated[str, AfterValidator(_module_and_function)]  # of the user's own: `module:function`
AS_TUPLE = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)  # a YAML has lists
COMPOSED = AfterValidator(nfc)
Metric = Annotated[str, Field(min_length=1), COMPOSED]
Number = Annotated[float, Field(allow_inf_nan=False)]
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]


class _Rule(Frozen):
    metric: Metric


class AtLeast(_Rule):
    """The metric, or with `confidence` the lower end of its interval, is at least `value`."""

    rule: Literal["at_least"]
    on: Literal["cv", "holdout"] = "cv"
    value: Number
    confidence: Confidence | None = None


class AtMost(_Rule):
    """The metric, or with `confidence` the upper end of its interval, is at most `value`."""

    rule: Literal["at_most"]
    on: Literal["cv", "holdout"] = "cv"
    value: Number
    confidence: Confidence | None = None


class FoldSpread(_Rule):
    """The sample standard deviation of the metric over the folds is at most `value`."""

    rule: Literal["fold_spread"]
    value: Margin


class AgainstChampion(_Rule):
    """On the current holdout the candidate is no worse than the champion by more than `margin`, or better by it."""

    rule: Literal["against_champion"]
    margin: Margin = 0.0
    confidence: Confidence = 0.95
    test: Literal["non_inferiority", "superiority"] = "non_inferiority"


class Slices(Frozen):
    """In no slice of the holdout is the candidate significantly worse than the champion by more than `margin`."""

    rule: Literal["slices"]
    metric: Literal["accuracy"] = "accuracy"
    by: Annotated[tuple[str, ...], AS_TUPLE] = ("class",)
    margin: Margin = 0.05
    confidence: Confidence = 0.95
    minimum: Annotated[int, Field(ge=1)] = 30
    buckets: Annotated[int, Field(ge=2, le=100)] = 4

    @field_validator("by")
    @classmethod
    def _some_slice(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value) or not all(value):
            raise ValueError("at least one of class, batch, newest, or metadata such as brightness, each once")
        return value


class Calibration(Frozen):
    """The expected calibration error on the holdout, or with `confidence` its upper end, is at most `value`."""

    rule: Literal["calibration"]
    value: Annotated[float, Field(ge=0, le=1)]
    confidence: Confidence | None = None


class Baseline(_Rule):
    """On the holdout the metric is better by more than `margin` than what a very simple model has."""

    rule: Literal["baseline"]
    margin: Margin = 0.0


class Overfit(_Rule):
    """The metric on training examples is better than on the holdout by at most `value`."""

    rule: Literal["overfit"]
    value: Margin


class Latency(Frozen):
    """95 of 100 predictions of the packaged version take at most `value` milliseconds, one example at a time."""

    rule: Literal["latency"]
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Size(Frozen):
    """The package has at most `value` megabytes (10^6 bytes)."""

    rule: Literal["size"]
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]


KINDS: dict[str, type[Frozen]] = {
    "at_least": AtLeast,
    "at_most": AtMost,
    "fold_spread": FoldSpread,
    "against_champion": AgainstChampion,
    "slices": Slices,
    "calibration": Calibration,
    "baseline": Baseline,
    "overfit": Overfit,
    "latency": Latency,
    "size": Size,
}

Rule = Annotated[
    AtLeast | AtMost | FoldSpread | AgainstChampion | Slices | Calibration | Baseline | Overfit | Latency | Size,
    Field(discriminator="rule"),
]


class Looks(Frozen):
    """After how many finished verdicts on one holdout a warning says that it may be overfitted."""

    warn: Annotated[int, Field(ge=1)] = 50

"""The key `training.augment` of a pipeline's YAML: a list of operations, each with its range.

Names, bounds and the two ways to write a range belong here. Which of them a workload has: `schemas.workloads`; what
they do to an example: the workload's `augmentation`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.rules import Frozen, left_out

Range = tuple[float, float]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _between(low: float, high: float, *, around: bool = False) -> BeforeValidator:
    """A range within these bounds. A number x is short for [x, x], or with `around` for [-x, x]."""

    def read(value: Any) -> Any:
        pair = (-value if around else value, value) if _number(value) else value
        two = isinstance(pair, list | tuple) and len(pair) == 2 and all(_number(each) for each in pair)
        if not two or not low <= pair[0] <= pair[1] <= high:
            raise ValueError(f"a number, or two in rising order, from {low:g} to {high:g}")
        return float(pair[0]), float(pair[1])

    return BeforeValidator(read)


class Operation(Frozen):
    """One operation: exactly one of the keys.

    flip           mirrored, in half of all cases; both: each axis by itself
    shift          shares of height and of width
    rotate         degrees
    zoom           shares of the sides; below 0 enlarges
    crop           the share of each side that is kept, from a random place, and scaled back to the full size
    brightness     shares of the full scale that are added
    contrast       c: the distance from the image's mean is multiplied by 1 - c to 1 + c
    colour         c: hue is turned by up to half of c of the circle, saturation multiplied by (1 - c) / (1 + c) to its
                   inverse
    cutout         shares of the sides of a box that is made grey
    mixup          a: each example and its target are mixed with another, by shares drawn from Beta(a, a)
    token_dropout  the share of a text's tokens that are made unknown
    """

    flip: Literal["horizontal", "vertical", "both"] | None = left_out(None)
    shift: Annotated[Range, _between(-1, 1, around=True)] | None = left_out(None)
    rotate: Annotated[Range, _between(-180, 180, around=True)] | None = left_out(None)
    zoom: Annotated[Range, _between(-0.9, 1, around=True)] | None = left_out(None)
    crop: Annotated[Range, _between(0.05, 1)] | None = left_out(None)
    brightness: Annotated[Range, _between(-1, 1, around=True)] | None = left_out(None)
    contrast: Annotated[float, Field(gt=0, lt=1)] | None = left_out(None)
    colour: Annotated[float, Field(gt=0, lt=1)] | None = left_out(None)
    cutout: Annotated[Range, _between(0, 1)] | None = left_out(None)
    mixup: Annotated[float, Field(gt=0, le=10)] | None = left_out(None)
    token_dropout: Annotated[float, Field(gt=0, lt=1)] | None = left_out(None)

    @model_validator(mode="after")
    def _one(self) -> Operation:
        if len(self.model_fields_set) != 1 or getattr(self, self.name) is None:
            raise PydanticCustomError("one_operation", "one operation with its range, such as rotate: 10")
        return self

    @property
    def name(self) -> str:
        """Which operation it is."""
        return next(iter(self.model_fields_set), "flip")

    @property
    def range(self) -> Any:
        """Its value: a number, two of them, or the axis of a flip."""
        return getattr(self, self.name)

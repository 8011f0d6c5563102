"""The sections of a pipeline that predicts a number of three numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from schemas.metrics import Metrics
from schemas.rules import Frozen
from schemas.workloads import Sections

NAMES = ("mean_absolute_error", "root_mean_squared_error")


class Input(Frozen):
    """How many numbers an example has."""

    size: Annotated[int, Field(ge=1)] = 3


class Model(Frozen):
    """A hidden layer of so many units; 0: none."""

    units: Annotated[int, Field(ge=0)] = 0


SECTIONS = Sections(
    TypeAdapter(Input), Model, tuple(Input.model_fields),
    metrics=Metrics(NAMES, lower=frozenset(NAMES), right=False),
    classes=False,
)  # fmt: skip

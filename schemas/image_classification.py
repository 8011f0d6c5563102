"""The sections `input:` and `model:` of a pipeline that classifies images.

Their keys, bounds and defaults belong here. What is built of them: `leptonflow.workloads.image_classification`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from schemas.own_model import OwnModel
from schemas.rules import Count, ModelFunction

Side = Annotated[int, Field(ge=1, le=4096)]
# height, width, channels
ImageInput = Annotated[
    tuple[Side, Side, Literal[1, 3]], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
]


class ImageModel(OwnModel):
    """The classic small CNN, or a function of the user's own: `module:function`."""

    filters: tuple[Count, ...] = (32, 64, 64)
    dense: Count = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    function: ModelFunction | None = None

    @field_validator("filters", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


def operations(given: tuple[int, int, int]) -> tuple[str, ...]:
    """The operations of `training.augment` for images of that height, width and channels: grey ones have no colour."""
    colour = ("colour",) if given[2] == 3 else ()
    return ("flip", "shift", "rotate", "zoom", "crop", "brightness", "contrast", *colour, "cutout", "mixup")

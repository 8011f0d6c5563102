"""The sections `input:` and `model:` of a pipeline that classifies images.

Their keys, bounds and defaults belong here. What is built of them: `leptonflow.workloads.image_classification`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from schemas.own_model import OwnModel
from schemas.rules import AS_TUPLE, Count, ModelFunction, left_out

Side = Annotated[int, Field(ge=1, le=4096)]
# height, width, channels
ImageInput = Annotated[tuple[Side, Side, Literal[1, 3]], AS_TUPLE]


class ImageModel(OwnModel):
    """A small CNN, a residual network, or a function of the user's own. A key that a model does not read is ignored.

    cnn     a 3x3 convolution for each of `filters`, and a hidden layer of `dense` units
    resnet  a stage for each of `filters`, each of `blocks` residual blocks
    """

    kind: Literal["cnn", "resnet"] = left_out("cnn")
    filters: Annotated[tuple[Count, ...], AS_TUPLE] = (32, 64, 64)
    blocks: Annotated[int, Field(ge=1, le=64)] = left_out(2)
    dense: Count = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    function: ModelFunction | None = None

    @field_validator("filters")
    @classmethod
    def _some_filters(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if not value and info.data.get("kind") == "resnet":
            raise ValueError("the filters of one stage or more")
        return value


def operations(given: tuple[int, int, int]) -> tuple[str, ...]:
    """The operations of `training.augment` for images of that height, width and channels: grey ones have no colour."""
    colour = ("colour",) if given[2] == 3 else ()
    return ("flip", "shift", "rotate", "zoom", "crop", "brightness", "contrast", *colour, "cutout", "mixup")

"""The workloads by name, each with the sections `input:` and `model:` of its pipelines' YAML."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import TypeAdapter

from schemas.image_classification import ImageInput, ImageModel
from schemas.rules import Frozen
from schemas.text_classification import TextInput, TextModel


class Sections(NamedTuple):
    """input: what validates that section; input_keys: its keys, where it is a mapping; model: the other section."""

    input: TypeAdapter[Any]
    model: type[Frozen]
    input_keys: tuple[str, ...] = ()


SECTIONS = {
    "image_classification": Sections(TypeAdapter(ImageInput), ImageModel),
    "text_classification": Sections(TypeAdapter(TextInput), TextModel, tuple(TextInput.model_fields)),
}

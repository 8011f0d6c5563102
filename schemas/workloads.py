"""The workloads by name, each with the sections `input:` and `model:` of its pipelines' YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from schemas.image_classification import ImageInput, ImageModel, operations
from schemas.metrics import CLASSIFICATION, Metrics, class_of
from schemas.rules import Frozen
from schemas.text_classification import TextInput, TextModel


class Sections(NamedTuple):
    """input: what validates that section; input_keys: its keys, where it is a mapping; model: the other section.

    metrics  what a rule can name
    classes  whether a label is one of a closed set of names
    augment  the section `input` -> the operations of `training.augment` that its examples have
    vocabulary  whether each fit learns a vocabulary from its own examples before the model
    """

    input: TypeAdapter[Any]
    model: type[Frozen]
    input_keys: tuple[str, ...] = ()
    metrics: Metrics = CLASSIFICATION
    classes: bool = True
    augment: Callable[[Any], tuple[str, ...]] = lambda given: ()
    vocabulary: bool = False


SECTIONS = {
    "image_classification": Sections(TypeAdapter(ImageInput), ImageModel, augment=operations),
    "text_classification": Sections(
        TypeAdapter(TextInput),
        TextModel,
        tuple(TextInput.model_fields),
        augment=lambda given: ("token_dropout",),
        vocabulary=True,
    ),
}


def lower_is_better(metric: str | None) -> bool:
    """Whether less of a metric is better."""
    return any(metric in sections.metrics.lower for sections in SECTIONS.values())


def overall(metrics: Iterable[str]) -> list[str]:
    """Those of all examples, in their workload's order: the one that it is known by comes first."""
    order = {name: at for sections in SECTIONS.values() for at, name in enumerate(sections.metrics.names)}
    return sorted((name for name in metrics if class_of(name) is None), key=lambda name: order.get(name, len(order)))

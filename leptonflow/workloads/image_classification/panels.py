"""What a person is told of the examples before they are trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def remarks(facts: Sequence[Mapping[str, Any]], shape: tuple[int, int, int]) -> list[str]:
    """Whether most images are smaller than the input, which shows no more of them and takes longer."""
    height, width, _ = shape
    sizes = [(fact["width"], fact["height"]) for fact in facts if {"width", "height"} <= fact.keys()]
    small = [size for size in sizes if size[0] < width and size[1] < height]
    if not small or 2 * len(small) <= len(sizes):
        return []
    (wide, high), _ = Counter(small).most_common(1)[0]
    return [
        f"{len(small)} of {len(sizes)} images are smaller than the input of {height} x {width} and are enlarged to it, "
        f"most often from {high} x {wide}: a smaller `input` in the YAML has the same information and trains faster"
    ]

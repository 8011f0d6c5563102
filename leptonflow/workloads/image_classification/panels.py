"""What a person is shown and told of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.workloads.base import Evaluated, Panels, Shown, Told
from leptonflow.workloads.media.image import thumbnail
from schemas.text import counted, noun


def remarks(facts: Sequence[Mapping[str, Any]], shape: tuple[int, int, int]) -> list[str]:
    """Whether most images are smaller than the input, which shows no more of them and takes longer."""
    height, width, _ = shape
    sizes = [(fact["width"], fact["height"]) for fact in facts if {"width", "height"} <= fact.keys()]
    small = [size for size in sizes if size[0] < width and size[1] < height]
    if not small or 2 * len(small) <= len(sizes):
        return []
    (wide, high), _ = Counter(small).most_common(1)[0]
    are = noun(len(small), "is", "are")
    return [
        f"{len(small)} of {counted(len(sizes), 'image')} {are} smaller than the input of {height} x {width} and "
        f"{are} enlarged to it, "
        f"most often from {high} x {wide}: a smaller `input` in the YAML has the same information and trains faster"
    ]


CODE = """import json, keras
model = keras.saving.load_model("model.keras", compile=False, safe_mode=True)
classes = json.load(open("labels.json", encoding="utf-8"))
# pixels: uint8, N x {sides}
predictions = [classes[row.argmax()] for row in model.predict(pixels)]"""


def told(shape: tuple[int, int, int]) -> Told:
    """What a model card says of images."""
    sides = " x ".join(map(str, shape))
    return Told("an image", sides, CODE.format(sides=sides))


def panels(evaluated: Evaluated) -> Panels:
    """Images, H x W x C, as they are trained on."""
    return Panels(lambda numbers: {n: Shown(thumbnail.data_uri(evaluated.examples[n])) for n in numbers})

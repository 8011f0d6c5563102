"""What a person is shown and told of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.workloads.base import Evaluated, Panels, Shown, Told
from leptonflow.workloads.image_classification import occlusion
from leptonflow.workloads.media.image import thumbnail
from schemas.errors import Damaged, NotFound, TrainingError
from schemas.text import counted, noun

MOST_EXPLAINED = 12  # images of a report
MOST_PIXELS = 2**23  # of all their predictions together
NOTE = (
    "Under the first images: each part was hidden by itself (occlusion, Zeiler and Fergus 2014). A blue part speaks "
    "for the candidate's prediction, a red one against it."
)


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
    """Images, H x W x C, as they are trained on, and of the first ones the parts that mattered."""

    def shown(numbers: Sequence[int]) -> dict[int, Shown]:
        explained = _explained(evaluated, numbers[: _affordable(evaluated.input)])
        return {n: explained.get(n) or Shown(thumbnail.data_uri(evaluated.examples[n])) for n in numbers}

    return Panels(shown, note=NOTE)


def _affordable(shape: tuple[int, int, int]) -> int:
    """How many images are explained: a prediction of a large one takes as long as those of many small ones."""
    height, width, _ = shape
    return max(1, min(MOST_EXPLAINED, MOST_PIXELS // (height * width * len(occlusion.grid(height, width)))))


def _explained(evaluated: Evaluated, numbers: Sequence[int]) -> dict[int, Shown]:
    if not numbers:
        return {}
    try:
        candidate = evaluated.candidate()
    except (Damaged, NotFound, TrainingError):  # a report on a model that is gone shows its images all the same
        return {}
    images = evaluated.examples[list(numbers)]
    return dict(zip(numbers, occlusion.explain(images, evaluated.input, candidate), strict=True))

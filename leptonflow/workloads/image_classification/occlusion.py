"""Which parts of an image speak for its prediction: each is hidden once, and the model asked again.

Occlusion, after Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks".
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Candidate, Patch, Shown
from leptonflow.workloads.media.image import thumbnail

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 8  # patches in a row and in a column
LEAST = 4  # pixels of a patch's side
FOR, AGAINST = (37, 99, 235), (220, 38, 38)  # the report's blue and red
STRONGEST = 0.7  # share of the colour where the effect is largest
FAINT = 0.05  # an effect as small as this is never drawn as a large one


def explain(images: NDArray[np.uint8], shape: tuple[int, int, int], candidate: Candidate) -> list[Shown]:
    """N x H x W x C images with the effect of each patch: at most 1 + MOST x MOST predictions for each, in one batch.

    A patch is hidden by the mean of its image's pixels, so that the brightness stays.
    """
    import numpy as np

    found = []
    for image in images:
        cells = grid(*image.shape[:2])
        variants = np.repeat(image[None], 1 + len(cells), axis=0)
        for variant, (top, left, height, width) in zip(variants[1:], cells, strict=True):
            variant[top : top + height, left : left + width] = image.mean(axis=(0, 1)).round()
        rows = candidate.predict(variants)
        of_class = rows[:, rows[0].argmax()]
        patches = tuple(
            Patch(*cell, float(of_class[0] - after)) for cell, after in zip(cells, of_class[1:], strict=True)
        )
        found.append(Shown(thumbnail.data_uri(image), patches=patches, overlay=overlay(image, patches)))
    return found


def grid(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of the patches of an image, row by row."""
    rows, columns = (_parts(side) for side in (height, width))
    return [(top, left, tall, wide) for top, tall in rows for left, wide in columns]


def _parts(side: int) -> list[tuple[int, int]]:
    count = min(MOST, max(1, side // LEAST))
    ends = [side * number // count for number in range(count + 1)]
    return [(start, end - start) for start, end in pairwise(ends)]


def overlay(image: NDArray[np.uint8], patches: tuple[Patch, ...]) -> str:
    """The image in grey as a PNG data URI, blue where a patch speaks for the prediction, red where against it."""
    import numpy as np

    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)  # (H, W, 3)
    strongest = max(FAINT, *(abs(each.effect) for each in patches))
    for top, left, height, width, effect in patches:
        share = STRONGEST * abs(effect) / strongest
        part: Any = grey[top : top + height, left : left + width]
        part += share * (np.array(FOR if effect > 0 else AGAINST, np.float64) - part)
    return thumbnail.data_uri(grey.round().astype(np.uint8))

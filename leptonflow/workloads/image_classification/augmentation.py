"""Random changes to images while a model is trained: Keras's own layers, and a crop that Keras lacks.

They run on the device, within the step of the training. uint8 (N, H, W, C) in and out, so the network sees what it is
given at prediction. What does not belong here: which operations there are and their bounds (schemas.augmentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonflow.core.code_digests import backend
from leptonflow.keras_runtime.keras_models import keras
from schemas.augmentation import Operation

GREY = 128


def layers(operations: Sequence[Operation], seeds: Sequence[int]) -> list[Any]:
    """The layers of these operations in their order, each with its seed, between two that change the type."""
    ops, of = keras().ops, keras().layers
    made = [each for operation, seed in zip(operations, seeds, strict=True) for each in _layers(operation, seed)]
    if not made:
        return []
    if backend() != "tensorflow":
        for layer in made:  # Keras says of some that XLA cannot compile them, which is true of TensorFlow alone
            layer.supports_jit = True
    to_float = of.Lambda(lambda images: ops.cast(images, "float32"))
    to_pixels = of.Lambda(lambda images: ops.cast(ops.clip(ops.round(images), 0, 255), "uint8"))
    return [to_float, *made, to_pixels]


def _layers(operation: Operation, seed: int) -> list[Any]:
    """Of float32 images with values 0..255."""
    of, value = keras().layers, operation.range
    match operation.name:
        case "flip":  # Keras's own for both axes mirrors both or none
            axes = ("horizontal", "vertical") if value == "both" else (value,)
            return [of.RandomFlip(axis, seed=seed + number) for number, axis in enumerate(axes)]
        case "shift":
            return [of.RandomTranslation(value, value, seed=seed)]
        case "rotate":
            return [of.RandomRotation((value[0] / 360, value[1] / 360), seed=seed)]  # of the whole circle
        case "zoom":
            return [of.RandomZoom(value, seed=seed)]
        case "crop":
            return [_crop(value, seed)]
        case "brightness":
            return [of.RandomBrightness(value, seed=seed)]
        case "contrast":
            return [of.RandomContrast((value, value), seed=seed)]  # Keras reads a single number as 0 to it
        case "colour":
            saturation = (0.5 - value / 2, 0.5 + value / 2)  # 0.5 leaves it as it is
            return [
                of.Rescaling(1 / 255),  # the saturation of Keras's layer is of 0..1, whatever range it is told
                of.RandomSaturation(saturation, value_range=(0, 1), seed=seed),
                of.RandomHue((0.0, value), value_range=(0, 1), seed=seed + 1),
                of.Rescaling(255),
            ]
        case "cutout":
            areas = (value[0] ** 2, value[1] ** 2)
            return [of.RandomErasing(factor=(1.0, 1.0), scale=areas, fill_value=GREY, seed=seed)]
    raise ValueError(f"images have no operation {operation.name}")


def _crop(share: tuple[float, float], seed: int) -> Any:
    """A layer that cuts a part with that share of each side from a random place, and scales it to the full size."""
    ops, uniform = keras().ops, keras().random.uniform

    class Crop(keras().layers.Layer):  # type: ignore[misc]
        """Keras's RandomCrop cuts the same place from every image of a batch, and does not scale."""

        def __init__(self) -> None:
            super().__init__()
            self._chance = keras().random.SeedGenerator(seed)

        def call(self, images: Any, training: bool = False) -> Any:
            if not training:
                return images
            count, height, width = ops.shape(images)[:3]
            side = uniform((count, 1), *share, seed=self._chance)  # (N, 1)
            left = uniform((count, 1), seed=self._chance) * (1 - side) * (width - 1)
            top = uniform((count, 1), seed=self._chance) * (1 - side) * (height - 1)
            zero = ops.zeros_like(side)
            rows = ops.concatenate([side, zero, left, zero, side, top, zero, zero], axis=1)  # (N, 8)
            return ops.image.affine_transform(images, rows, fill_mode="nearest")

    return Crop()

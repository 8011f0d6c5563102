"""The Keras model: the classic small CNN, or the user's own, and what it is trained with.

The default model at 32 x 32 x 3 trains on about 5,000 images/s on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonflow.workloads.classification import compile
from leptonflow.workloads.image_classification.augmentation import layers as augment
from schemas.config import Pipeline
from schemas.errors import ConfigurationError

__all__ = ["augment", "build", "compile", "smallest_side"]


def smallest_side(depth: int) -> int:
    """The smallest height or width for `depth` 3x3 convolutions with a 2x2 maxpool after each but the last."""
    side = 1
    for convolution in range(depth):
        side = (side if convolution == 0 else 2 * side) + 2
    return side


def build(config: Pipeline, classes: Sequence[str]) -> Any:
    """An uncompiled keras.Model: uint8 (N, H, W, C) with values 0..255 -> (N, K) probabilities.

    Normalisation is its first layer, so training and serving cannot differ.
    Raises ConfigurationError where the input is too small for the depth, or the user's function is wrong.
    """
    if config.model.function is not None:
        import numpy as np

        from leptonflow.workloads import user_model

        images = np.random.default_rng(0).integers(0, 256, (2, *config.input), np.uint8)
        return user_model.build(config, classes, images)
    from leptonflow.keras_runtime.keras_models import keras

    height, width, _ = config.input
    depth, least = len(config.model.filters), smallest_side(len(config.model.filters))
    if min(height, width) < least:
        fits = max(d for d in range(depth) if smallest_side(d) <= min(height, width))
        raise ConfigurationError(
            f"the input is too small for {depth} convolutions",
            expected=f"an input of at least {least} x {least}, or at most {fits} widths in model.filters",
            received=f"input {height} x {width} with model.filters {list(config.model.filters)}",
            hint="Enlarge input, or shorten model.filters",
        )
    layers = keras().layers
    model = keras().Sequential(name="small_cnn")
    model.add(layers.Input(config.input, dtype="uint8", name="image"))
    model.add(layers.Rescaling(1 / 255, name="rescale"))  # (N, H, W, C) float32 in 0..1
    for number, filters in enumerate(config.model.filters, start=1):
        model.add(layers.Conv2D(filters, 3, activation="relu", name=f"conv_{number}"))  # (N, h - 2, w - 2, filters)
        if number < depth:
            model.add(layers.MaxPooling2D(2, name=f"pool_{number}"))  # (N, h // 2, w // 2, filters)
    model.add(layers.Flatten(name="flatten"))
    model.add(layers.Dense(config.model.dense, activation="relu", name="dense"))
    if config.model.dropout > 0:
        model.add(layers.Dropout(config.model.dropout, name="dropout"))
    model.add(layers.Dense(len(classes), activation="softmax", name="probabilities"))  # (N, K)
    return model

"""The Keras model of a pipeline: one of ours, or the user's own, and what it is trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonflow.workloads.classification import compile
from leptonflow.workloads.image_classification import cnn, resnet
from leptonflow.workloads.image_classification.augmentation import layers as augment
from schemas.config import Pipeline

__all__ = ["augment", "build", "compile", "step_bytes"]
KINDS = {"cnn": cnn.build, "resnet": resnet.build}
STEPS = {"cnn": cnn.step_bytes, "resnet": resnet.step_bytes}


def step_bytes(config: Pipeline) -> int:
    """The memory of one step of training at least, in bytes; 0: not known, as of the user's own model."""
    if config.model.function is not None:
        return 0
    low = 1 if config.training.precision == "float32" else 2
    return STEPS[config.model.kind](config.model, config.input, config.training.batch_size) // low


def build(config: Pipeline, classes: Sequence[str]) -> Any:
    """An uncompiled keras.Model: uint8 (N, H, W, C) with values 0..255 -> (N, K) probabilities.

    Normalisation is its first layer, so training and serving cannot differ.
    Raises ConfigurationError where the input is too small for the model, or the user's function is wrong.
    """
    if config.model.function is None:
        return KINDS[config.model.kind](config.model, config.input, len(classes))
    import numpy as np

    from leptonflow.workloads import user_model

    images = np.random.default_rng(0).integers(0, 256, (2, *config.input), np.uint8)
    return user_model.build(config, classes, images)

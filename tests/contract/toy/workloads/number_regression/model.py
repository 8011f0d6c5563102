"""A linear model, or one with a hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonflow.keras_runtime.keras_models import jit, keras
from schemas.config import Pipeline


def build(config: Pipeline, classes: Sequence[str]) -> Any:
    """(N, size) -> (N, 1)."""
    layers = keras().layers
    hidden = [layers.Dense(config.model.units, activation="tanh")] if config.model.units else []
    return keras().Sequential([layers.Input((config.input.size,), name="numbers"), *hidden, layers.Dense(1)])


def compile(model: Any, config: Pipeline, optimizer: Any) -> None:
    """Mean squared error."""
    model.compile(optimizer=optimizer, loss="mean_squared_error", jit_compile=jit())

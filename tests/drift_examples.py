"""Real examples that drift, for the simulations of drift: what a trained model predicts of them, and resamples."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from leptonflow.monitoring.drift_tests import Observed, compare
from leptonflow.workloads.image_classification import input_statistics

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Model = Callable[[Pixels], tuple[Any, Any]]  # images -> outputs (N, K), features (N, F)
HELD_OUT, ALL = 2_000, 8_000  # examples of the holdout, and of the whole dataset, that a reference is drawn from


def digits() -> tuple[Pixels, Any]:
    """scikit-learn's handwritten digits, enlarged to 16 x 16."""
    from sklearn.datasets import load_digits

    found = load_digits()
    small = (found.images * 255 / 16).astype(np.uint8)
    large = [np.asarray(Image.fromarray(each).resize((16, 16), Image.Resampling.BILINEAR)) for each in small]
    return np.stack(large)[..., None], found.target


def changed(images: Pixels, how: str) -> Pixels:
    """The images after a change that must be seen."""
    values = images.astype(np.float64)
    if how == "brightness":
        values = values * 1.15
    elif how == "contrast":
        mean = values.mean(axis=(1, 2, 3), keepdims=True)
        values = mean + (values - mean) / 2
    elif how == "noise":
        values = values + np.random.default_rng(0).normal(0, 20, values.shape)
    else:
        return np.stack([_as_file(each, how) for each in images])
    return np.clip(values, 0, 255).round().astype(np.uint8)


def _as_file(image: Pixels, how: str) -> Pixels:
    found = Image.fromarray(image.squeeze(-1))
    if how == "blur":
        found = found.filter(ImageFilter.GaussianBlur(1))
    else:
        file = io.BytesIO()
        found.save(file, "JPEG", quality=20)
        found = Image.open(file)
    return np.asarray(found).reshape(image.shape)


@dataclass(frozen=True)
class Seen:
    """N images as they are logged: outputs, features, brightness, contrast and noise of each."""

    outputs: Any
    features: Any
    brightness: Any
    contrast: Any
    noise: Any

    def of(self, chosen: Any, others: Any = None) -> Observed:
        """Resampled. others: those of which there is only metadata."""
        every = chosen if others is None else others
        return Observed(
            metadata={"brightness": self.brightness[every].tolist(), "contrast": self.contrast[every].tolist()},
            inputs={"noise": self.noise[chosen].tolist()},
            predicted=[str(each) for each in self.outputs[chosen].argmax(axis=1)],
            outputs=self.outputs[chosen],
            confidence=self.outputs[chosen].max(axis=1),
            features=self.features[chosen],
        )


def seen(model: Model, images: Pixels) -> Seen:
    outputs, features = model(images)
    values = images.reshape(len(images), -1).astype(np.float64)
    noise = input_statistics.of(images, images.shape[1:])["noise"]
    return Seen(outputs, features, values.mean(axis=1).round(3), values.std(axis=1).round(3), noise)


def alarms(
    reference: Seen, served: Seen, count: int, times: int, weights: Any = None, held_out: int = HELD_OUT, all: int = ALL
) -> int:
    """In how many of so many resamples there is a drift. weights: of each example that is served."""
    found = 0
    n = len(reference.brightness)
    shares = None if weights is None else weights / weights.sum()
    for seed in range(times):
        random = np.random.default_rng([count, seed])
        first = reference.of(random.integers(0, n, held_out), random.integers(0, n, all))
        second = served.of(random.choice(len(served.brightness), count, p=shares))
        found += any(test.drifted for test in compare(first, second, seed))
    return found

"""A version as it is served: the same predictions as its package gives, and the features of its last layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leptonflow.keras_runtime.keras_models import keras
from leptonflow.registry import packages, served_models
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.workloads.image_classification import cnn
from schemas.errors import Damaged, NotFound, TrainingError
from schemas.image_classification import ImageModel
from tests import small_packages

SHAPE = (12, 12, 1)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model() -> Any:
    keras().utils.set_random_seed(1)
    return cnn.build(ImageModel(filters=(4, 8), dense=6), SHAPE, 2)


def images(count: int) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, *SHAPE), np.uint8)


def test_a_served_version_predicts_what_its_package_does(model: Any) -> None:
    store = MemoryStore("memory://served")
    sha = small_packages.put_model(store, "one", model, SHAPE)
    served = served_models.load(store, small_packages.PIPELINE, "one", sha)
    package = packages.load(store, small_packages.PIPELINE, "one")
    assert (served.manifest_sha256, served.classes) == (sha, ("0", "1"))
    assert served.runtime == "keras" and served.why_keras
    for count in (0, 1, 3, 300):
        rows, features = served.predict_encoded(served.encode(images(count)))
        assert features is not None
        assert (rows.shape, rows.dtype) == ((count, 2), np.float64)
        assert (features.shape, features.dtype) == ((count, 6), np.float32)
        np.testing.assert_allclose(rows, package.predict(images(count)), atol=TOLERANCE)
    weights, bias = model.layers[-1].get_weights()
    logits = np.exp(features @ weights + bias)
    np.testing.assert_allclose(rows, logits / logits.sum(axis=1, keepdims=True), atol=TOLERANCE)
    with pytest.raises(TrainingError, match="12 x 12 x 1"):
        served.encode(images(1)[:, :5])


def test_a_model_whose_last_layer_takes_no_row_has_no_features() -> None:
    layers = keras().layers
    pooled = [layers.Rescaling(1 / 255), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()]
    model = keras().Sequential([layers.Input(SHAPE, dtype="uint8"), *pooled])
    store = MemoryStore("memory://served")
    small_packages.put_model(store, "one", model, SHAPE)
    rows, features = served_models.load(store, small_packages.PIPELINE, "one").predict_encoded(images(2))
    assert rows.shape == (2, 2) and features is None


def test_a_version_that_is_not_whole_is_not_served(model: Any) -> None:
    store = MemoryStore("memory://served")
    with pytest.raises(NotFound):
        served_models.load(store, small_packages.PIPELINE, "one")
    sha = small_packages.put_model(store, "one", model, SHAPE)
    with pytest.raises(Damaged):
        served_models.load(store, small_packages.PIPELINE, "one", "0" * 64)
    store._objects[f"models/{small_packages.PIPELINE}/one/model.keras"] = b"other"
    with pytest.raises(Damaged, match=r"model\.keras"):
        served_models.load(store, small_packages.PIPELINE, "one", sha)

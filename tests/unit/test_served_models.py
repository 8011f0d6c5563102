"""A version as it is served: the same predictions as its package gives, and the features of its last layer."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.core import store_keys
from leptonflow.core.code_digests import ROOT
from leptonflow.core.hashing import canonical
from leptonflow.evaluation import fresh_process
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.registry import onnx_export, onnx_session, packages, served_models
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.workloads.image_classification import cnn
from leptonflow.workloads.text_classification import model as text_model
from schemas.errors import Damaged, NotFound, TrainingError
from schemas.image_classification import ImageModel
from schemas.text_classification import TextInput, TextModel
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
    assert (served.runtime, served.why_keras) == ("keras", "its package is of a release that exported no model")
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


@pytest.fixture(scope="module")
def exported(model: Any) -> bytes:
    return onnx_export.export(model, images(1))


def test_onnx_runtime_serves_what_keras_predicts(model: Any, exported: bytes) -> None:
    store = MemoryStore("memory://served")
    small_packages.put_model(store, "one", model, SHAPE, [("model.onnx", exported)])
    served = served_models.load(store, small_packages.PIPELINE, "one", threads=1)
    assert (served.runtime, served.why_keras) == ("onnxruntime", None)
    both = onnx_export.with_features(model)
    assert both is not None
    for count in (0, 1, 300):
        rows, features = served.predict_encoded(served.encode(images(count)))
        assert features is not None and (rows.shape, features.shape) == ((count, 2), (count, 6))
        assert (rows.dtype, features.dtype) == (np.float64, np.float32)
        if count:
            expected = both.predict_on_batch(images(count))
            np.testing.assert_allclose(rows, expected[0], atol=TOLERANCE)
            np.testing.assert_allclose(features, expected[1], atol=1e-4)


def test_a_model_of_a_user_s_own_may_take_floats() -> None:
    """Keras converts the pixels to what the model's input says; ONNX Runtime takes nothing else."""
    layers = keras().layers
    own = keras().Sequential([layers.Input(SHAPE), layers.Flatten(), layers.Dense(3), layers.Dense(2)])
    store = MemoryStore("memory://served")
    exported = onnx_export.export(own, images(1))
    small_packages.put_model(store, "one", own, SHAPE, [("model.onnx", exported)])
    served = served_models.load(store, small_packages.PIPELINE, "one")
    assert served.why_keras is None
    np.testing.assert_allclose(served.predict(images(4)), own.predict_on_batch(images(4)), rtol=1e-5, atol=TOLERANCE)
    with pytest.raises(TrainingError, match="ONNX Runtime failed to predict"):
        served.predict_encoded(images(4)[:, :5])


def test_a_session_answers_many_threads(model: Any, exported: bytes) -> None:
    compute = onnx_session.opened(exported, threads=1)
    expected = compute(images(40))[0]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: compute(images(40)[n : n + 1])[0][0], range(40)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_keras_serves_what_onnx_runtime_may_not(model: Any, exported: bytes) -> None:
    store = MemoryStore("memory://served")
    keras().utils.set_random_seed(2)
    other = onnx_export.export(cnn.build(ImageModel(filters=(4, 8), dense=6), SHAPE, 2), images(1))
    for name, data, why in (
        ("other", other, "ONNX Runtime differed from Keras by up to"),
        ("garbage", b"garbage", "ONNX Runtime cannot load the model"),
        ("checked", exported, "ONNX Runtime differed here"),
    ):
        small_packages.put_model(store, name, model, SHAPE, [("model.onnx", data)])
        if name == "checked":  # by a load check, on more examples than the package has
            folder = store_keys.load_checks_folder(small_packages.PIPELINE, name)
            store.create(f"{folder}/garbage.json", b"[")
            store.create(f"{folder}/list.json", b"[]")
            store.create(f"{folder}/found.json", canonical({"onnx": why}))
        served = served_models.load(store, small_packages.PIPELINE, name)
        assert served.runtime == "keras" and served.why_keras is not None and why in served.why_keras
        if name != "checked":  # which is what a load check finds and records
            package = packages.load(store, small_packages.PIPELINE, name)
            found = fresh_process._in_onnx(store, package, [(images(3), package.predict(images(3)))])
            assert found["onnx"]
        np.testing.assert_allclose(served.predict_encoded(images(3))[0], model.predict_on_batch(images(3)), atol=1e-6)


def test_texts_are_served_by_the_same_function() -> None:
    """A recurrent network, whose graph holds a loop."""
    text = TextInput(length=8, vocabulary=30)
    tokens = np.random.default_rng(0).integers(0, 30, (9, 8), np.int32)
    model = text_model.build(TextModel(kind="gru", embedding=4, units=5, dense=3), text, 2)
    data = onnx_export.export(model, tokens)
    assert data == onnx_export.export(model, tokens)  # names are others within, as in another process
    rows, features = onnx_session.in_batches(onnx_session.opened(data), tokens)
    np.testing.assert_allclose(rows, model.predict_on_batch(tokens), atol=TOLERANCE)
    assert features is not None and features.shape == (9, 3)


def test_a_server_imports_neither_keras_nor_what_trains(model: Any, exported: bytes, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    small_packages.put_model(store, "one", model, SHAPE, [("model.onnx", exported)])
    script = (
        "import io, sys\n"
        "import numpy\n"
        "from PIL import Image\n"
        "from leptonflow.registry import served_models\n"
        "from leptonflow.storage.address import open_store\n"
        "from leptonflow.workloads import catalog\n"
        f"served = served_models.load(open_store({store.uri!r}), {small_packages.PIPELINE!r}, 'one')\n"
        "workload, body = catalog.load(served.manifest.workload), io.BytesIO()\n"
        "pixels = numpy.random.default_rng(0).integers(0, 256, (12, 12), numpy.uint8)\n"
        "Image.fromarray(pixels).save(body, 'png')\n"
        "example = workload.request(body.getvalue(), served.manifest.input)\n"
        "rows, _ = served.predict_encoded(served.encode(example[None]))\n"
        "assert served.runtime == 'onnxruntime', served.why_keras\n"
        "print(workload.target.answer(rows[0], served.classes)[0])\n"
        "print(*{name.split('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    label, loaded = done.stdout.splitlines()
    assert label in ("0", "1")
    heavy = {"keras", "tensorflow", "jax", "torch", "matplotlib", "sklearn", "scipy", "pandas", "prefect", "onnx"}
    assert not heavy & set(loaded.split())

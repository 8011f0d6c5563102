"""The model and its scores: the classic CNN, the user's own function, and what Keras computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from leptonflow.keras_runtime import optimizers
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.registry import package_builder, packages
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training import model_fits, workspace
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog
from leptonflow.workloads.image_classification import cnn
from schemas.errors import ConfigurationError
from tests.fit_examples import CLASSES, land, pipeline

WORKLOAD = catalog.load("image_classification")


def cross_correlation(
    images: NDArray[Any], kernel: NDArray[Any], bias: NDArray[Any], padding: str, stride: int
) -> NDArray[Any]:
    """out[n,i,j,f] = bias[f] + sum over a,b,c of images[n, s*i+a, s*j+b, c] * kernel[a,b,c,f]."""
    height, width = kernel.shape[:2]
    if padding == "same":
        pads = []
        for size, reach in zip(images.shape[1:3], (height, width), strict=True):
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            pads.append((total // 2, total - total // 2))
        images = np.pad(images, ((0, 0), *pads, (0, 0)))
    rows = (images.shape[1] - height) // stride + 1
    columns = (images.shape[2] - width) // stride + 1
    out = np.zeros((len(images), rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            window = images[:, stride * i : stride * i + height, stride * j : stride * j + width]
            out[:, i, j] = np.einsum("nabc,abcf->nf", window, kernel) + bias
    return out


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("shape", "kernel", "filters", "stride"),
    [
        ((2, 8, 8, 1), (3, 3), 4, 1),
        ((3, 9, 7, 3), (3, 3), 5, 1),
        ((1, 10, 11, 2), (5, 2), 3, 1),
        ((2, 9, 8, 3), (3, 3), 4, 2),
        ((2, 5, 5, 4), (1, 1), 6, 1),
    ],
)
def test_keras_convolution_is_the_plain_formula(
    shape: tuple[int, ...], kernel: tuple[int, int], filters: int, stride: int, padding: str
) -> None:
    random = np.random.default_rng(hash((shape, kernel, stride)) % 2**32)
    images = random.normal(size=shape).astype(np.float32)
    weights = random.normal(size=(*kernel, shape[3], filters)).astype(np.float32)
    bias = random.normal(size=filters).astype(np.float32)
    layer = keras().layers.Conv2D(filters, kernel, strides=stride, padding=padding)
    layer.build(shape)
    layer.set_weights([weights, bias])
    found = keras().ops.convert_to_numpy(layer(images))
    expected = cross_correlation(images.astype(np.float64), weights, bias, padding, stride)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_classic_model_has_the_layers_of_the_yaml() -> None:
    config = pipeline(input=[28, 28, 1], model={"filters": [32, 64, 64], "dense": 64, "dropout": 0.5})
    model = WORKLOAD.build(config, CLASSES)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "Rescaling", "Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Conv2D", "Flatten",
        "Dense", "Dropout", "Dense",
    ]  # fmt: skip
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 3)
    assert not model.compiled
    bright = np.full((1, 28, 28, 1), 255, np.uint8)
    assert keras().ops.convert_to_numpy(model.layers[0](bright)).max() == pytest.approx(1.0)
    plain = WORKLOAD.build(pipeline(model={"filters": [4]}), CLASSES)
    assert "Dropout" not in [type(layer).__name__ for layer in plain.layers]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_smallest_side_is_exact(depth: int) -> None:
    least = cnn.smallest_side(depth)
    model = {"filters": [2] * depth, "dense": 2}
    WORKLOAD.build(pipeline(input=[least, least, 3], model=model), CLASSES)
    with pytest.raises(ConfigurationError, match=f"at least {least} x {least}, or at most {depth - 1} widths"):
        WORKLOAD.build(pipeline(input=[least, least - 1, 3], model=model), CLASSES)


def test_the_residual_network_is_that_of_the_paper() -> None:
    """ResNet-18 for 224 x 224 and 1000 classes has as many weights as torchvision's resnet18: 11,689,512."""
    names = [str(number) for number in range(1000)]
    large = {"kind": "resnet", "filters": [64, 128, 256, 512], "blocks": 2}
    model = WORKLOAD.build(pipeline(input=[224, 224, 3], model=large), names)
    assert sum(int(np.prod(each.shape)) for each in model.trainable_variables) == 11_689_512
    assert model.get_layer("stage_4_block_2_out").output.shape == (None, 7, 7, 512)
    small = WORKLOAD.build(pipeline(input=[32, 32, 3], model={**large, "filters": [16, 32, 64], "blocks": 3}), CLASSES)
    assert len([each for each in small.layers if type(each).__name__ == "Conv2D"]) == 19 + 2  # and two shortcuts
    assert small.get_layer("stage_3_block_3_out").output.shape == (None, 8, 8, 64)


def test_a_residual_block_starts_as_the_identity() -> None:
    model = WORKLOAD.build(pipeline(model={"kind": "resnet", "filters": [4], "blocks": 1, "dropout": 0.5}), CLASSES)
    outputs = [model.get_layer(name).output for name in ("stem_relu", "stage_1_block_1_out", "probabilities")]
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 1), np.uint8)
    before, after, chances = keras().Model(model.inputs, outputs).predict_on_batch(images)
    assert before.any() and np.array_equal(before, after)
    assert chances.sum(1) == pytest.approx([1.0, 1.0])


@pytest.mark.slow
def test_a_residual_network_is_trained_and_packaged_like_any_other() -> None:
    training = {"epochs": 5, "folds": 2, "batch_size": 8, "learning_rate": 0.01}
    config = pipeline(model={"kind": "resnet", "filters": [4, 8], "blocks": 1}, training=training)
    store, workspace = MemoryStore("memory://resnet"), Workspace()
    plan = land(store, config)
    for fold in range(2):
        assert (model_fits.train_fold(store, config, plan, fold, workspace).metrics["accuracy"] or 0) > 0.6
    model_fits.fit_final(store, config, plan, workspace)
    package_builder.build(store, config, plan)
    found = packages.load(store, config.name, plan.version or "").predict(np.zeros((1, 12, 12, 1), np.uint8))
    assert found.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("name", sorted(optimizers.CLASSES))
def test_every_optimiser_of_the_yaml_compiles(name: str) -> None:
    config = pipeline(training={"optimizer": name, "learning_rate": 0.02})
    model = WORKLOAD.build(config, CLASSES)
    WORKLOAD.compile(model, config, optimizers.optimizer(config.training.steering, 1))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.02)


# --- the user's own function ---------------------------------------------------------------------

GOOD = """
import keras
from helper_of_mine import UNITS

def build(input_shape, classes):
    return keras.Sequential([
        keras.layers.Input(input_shape), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
        keras.layers.Dense(UNITS), keras.layers.Dense(len(classes), activation="softmax"),
    ])
"""
TWICE = """
one = build

def build(*of):
    model = one(*of)
    return keras.Model(model.inputs, [model.outputs[0], model.outputs[0]])
"""


def own_model(folder: Path, text: str, **changes: Any) -> Any:
    (folder / "own_model.py").write_text(text)
    return pipeline(model={"function": "own_model:build"}, folder=folder, **changes)


def test_a_function_of_the_users_own_is_imported_anew_when_it_changes(tmp_path: Path) -> None:
    (tmp_path / "helper_of_mine.py").write_text("UNITS = 5\n")
    config = own_model(tmp_path, GOOD)
    assert WORKLOAD.build(config, CLASSES).layers[-2].units == 5
    (tmp_path / "helper_of_mine.py").write_text("UNITS = 7\n")
    assert WORKLOAD.build(config, CLASSES).layers[-2].units == 7
    workspace.check_loadable(WORKLOAD, config, CLASSES)
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import no_such_thing_anywhere", "cannot be imported.*no_such_thing_anywhere"),
        ("def other(): pass", "is not there.*other"),
        ("def build(input_shape, classes): return 3", "does not return a model.*int"),
        ("def build(input_shape, classes): raise ValueError('so it is')", "raised an error.*so it is"),
        ("import sys\nsys.exit(2)", "cannot be imported.*SystemExit: 2"),
        ("def build(input_shape, classes): raise SystemExit('so it is')", "raised an error.*so it is"),
        (GOOD.replace("len(classes)", "9"), r"another shape.*\(N, 3\).*\(N, 9\)"),
        (GOOD.replace("softmax", "relu"), "does not return probabilities"),
        (GOOD + TWICE, r"does not return one output.*\(N, 3\), one per class.*a list of 2"),
        (GOOD.replace("Input(input_shape)", "Input((5, 5, 1))"), "does not take the input"),
    ],
)
def test_what_is_wrong_with_a_function_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "helper_of_mine.py").write_text("UNITS = 5\n")
    with pytest.raises(ConfigurationError, match=told):
        WORKLOAD.build(own_model(tmp_path, text), CLASSES)


def test_a_function_may_not_take_the_name_of_another_module(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("def build(): pass\n")
    with pytest.raises(ConfigurationError, match="name of another module"):
        WORKLOAD.build(pipeline(model={"function": "yaml:build"}, folder=tmp_path), CLASSES)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ("keras.layers.Lambda(lambda x: x)", "(?i)lambda"),
        ("Doubling()", "own_model.*Doubling"),
        ("keras.layers.Dense(4, activation=twice)", "twice"),
    ],
)
def test_what_could_not_be_loaded_later_is_refused_now(tmp_path: Path, layer: str, told: str) -> None:
    text = f"""
import keras

@keras.saving.register_keras_serializable("mine")
class Doubling(keras.layers.Layer):
    def call(self, x):
        return 2 * x

@keras.saving.register_keras_serializable("mine")
def twice(x):
    return 2 * x

def build(input_shape, classes):
    return keras.Sequential([
        keras.layers.Input(input_shape), keras.layers.Flatten(), {layer}, keras.layers.Dense(len(classes), "softmax"),
    ])
"""
    with pytest.raises(ConfigurationError, match=told):
        workspace.check_loadable(WORKLOAD, own_model(tmp_path, text), CLASSES)


# --- scores --------------------------------------------------------------------------------------


def test_scores_of_a_small_example_by_hand() -> None:
    labels = np.array([0, 0, 1, 1], np.int64)
    rows = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.6, 0.3]])
    found = WORKLOAD.score(labels, rows, CLASSES)
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["recall[left]"] == pytest.approx(1 / 2)
    assert found["precision[left]"] == pytest.approx(1)
    assert found["precision[middle]"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.2, 0.8, 0.6]).mean())
    assert found["recall[right]"] is found["precision[right]"] is found["f1[right]"] is None


def test_a_class_that_is_never_predicted_has_precision_zero_and_rounding_warns_nobody() -> None:
    rows = np.array([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1]], np.float32).astype(np.float64) * (1 + 1e-6)
    found = WORKLOAD.score(np.array([0, 1]), rows, CLASSES)
    assert found["precision[middle]"] == 0.0
    assert set(WORKLOAD.score(np.zeros(0, np.int64), np.zeros((0, 3)), CLASSES).values()) == {None}


def test_targets_are_one_hot() -> None:
    np.testing.assert_array_equal(WORKLOAD.target.fit(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])

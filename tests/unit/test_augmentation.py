"""`training.augment`: what each operation does to a batch, by seed, in training alone, and in no package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from leptonflow.keras_runtime import keras_models
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.training import augmentation, model_fits, workspace
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog
from leptonflow.workloads.image_classification import augmentation as images
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError
from schemas.training import Training
from tests.fit_examples import CLASSES, land, pipeline

BASE: dict[str, Any] = {
    "name": "p", "workload": "image_classification", "input": [12, 12, 3],
    "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}],
}  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), np.uint8)
OPERATIONS: list[dict[str, Any]] = [
    {"flip": "both"}, {"shift": 0.2}, {"rotate": 30}, {"zoom": [-0.3, 0.1]}, {"crop": [0.6, 0.9]}, {"brightness": 0.3},
    {"contrast": 0.4}, {"colour": 0.3}, {"cutout": 0.5},
]  # fmt: skip


@pytest.fixture
def store() -> Store:
    return MemoryStore("memory://augment")


def config(*operations: Any, **changes: Any) -> Pipeline:
    document = {**BASE, **changes, "training": {"augment": list(operations)}}
    return parse(document, where="p.yaml", folder=Path("."))


def changed(operation: dict[str, Any], seed: int = 7, training: bool = True, given: Any = IMAGES) -> NDArray[Any]:
    """The images as a network sees them in a step of its training."""
    inputs = keras().layers.Input(IMAGES.shape[1:], dtype="uint8")
    network = keras().Model(inputs, keras().ops.cast(inputs, "int32"))
    section = Training(augment=[operation])  # type: ignore[arg-type]
    made = augmentation.augmented(network, catalog.load("image_classification"), section, seed)
    found = keras().ops.convert_to_numpy(made(given, training=training))
    return np.asarray(found)


# --- the configuration ---------------------------------------------------------------------------


def test_an_operation_is_in_the_document_as_it_was_written_or_with_its_whole_range() -> None:
    made = config({"flip": "horizontal"}, {"rotate": 10}, {"crop": [0.8, 1]}, {"crop": 0.9}, {"mixup": 0.2})
    written = [
        {"flip": "horizontal"}, {"rotate": [-10, 10]}, {"crop": [0.8, 1]}, {"crop": [0.9, 0.9]}, {"mixup": 0.2},
    ]  # fmt: skip
    assert made.training.model_dump(mode="json")["augment"] == written
    assert Pipeline.model_validate_json(made.model_dump_json()).training == made.training
    assert "augment" not in config().training.model_dump()


@pytest.mark.parametrize(
    ("operations", "told"),
    [
        ([{"flp": "horizontal"}], r"unknown key training\.augment\.0\.flp.*one of flip, shift.*Did you mean flip"),
        ([{"flip": "sideways"}], r"training\.augment\.0\.flip.*'horizontal'.*'sideways'"),
        ([{"flip": "both"}, {"rotate": 200}], r"training\.augment\.1\.rotate.*-180 to 180.*Received: 200"),
        ([{"rotate": -5}], r"training\.augment\.0\.rotate.*two in rising order"),
        ([{"zoom": [0.2, 0.1]}], r"training\.augment\.0\.zoom.*two in rising order, from -0\.9 to 1"),
        ([{"crop": "0.8"}], r"training\.augment\.0\.crop.*a number, or two.*'0\.8'"),
        ([{"contrast": 1}], r"training\.augment\.0\.contrast.*less than 1"),
        ([{"mixup": 0}], r"training\.augment\.0\.mixup.*greater than 0"),
        ([{"flip": "both", "rotate": 3}], r"training\.augment\.0 is not valid.*one operation with its range"),
        ([{}], r"training\.augment\.0 is not valid.*one operation with its range"),
        (["flip"], r"training\.augment\.0 is not valid.*'flip'"),
        ([{"mixup": 0.2}, {"mixup": 0.2}], r"training\.augment\.1\.mixup.*mixup once"),
        ([{"token_dropout": 0.1}], r"training\.augment\.0\.token_dropout.*one of flip, .*mixup"),
    ],
)
def test_a_wrong_operation_is_named_with_what_was_expected(operations: list[Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        config(*operations)


def test_operations_are_those_of_the_workload_and_its_input() -> None:
    with pytest.raises(ConfigurationError, match=r"training\.augment\.0\.colour.*one of flip, .*cutout, mixup"):
        config({"colour": 0.2}, input=[12, 12, 1])
    text = {"workload": "text_classification", "input": {"length": 8}}
    assert config({"token_dropout": 0.1}, **text).training.augment[0].range == 0.1
    with pytest.raises(ConfigurationError, match=r"training\.augment\.0\.flip.*one of token_dropout"):
        config({"flip": "both"}, **text)


# --- the operations ------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_changes_images_by_its_seed_and_in_training_alone(operation: dict[str, Any]) -> None:
    found = changed(operation)
    assert found.shape == IMAGES.shape and found.min() >= 0 and found.max() <= 255
    different = (found != IMAGES).any(axis=(1, 2, 3))
    assert different.sum() >= 3, "most images are changed"
    assert len({image.tobytes() for image in found - IMAGES.astype(int)}) > 3, "each in its own way"
    np.testing.assert_array_equal(found, changed(operation))
    assert (found != changed(operation, seed=8)).any()
    np.testing.assert_array_equal(changed(operation, training=False), IMAGES)


def test_what_can_be_computed_by_hand_is_right() -> None:
    mirrored = IMAGES[:, :, ::-1]
    for image, other, found in zip(IMAGES, mirrored, changed({"flip": "horizontal"}), strict=True):
        assert (found == image).all() or (found == other).all()
    grey = np.full_like(IMAGES, 100)
    added = changed({"brightness": [0.2, 0.2]}, given=grey)
    assert (added == 151).all()  # 0.2 of 255
    boxes = changed({"cutout": [0.5, 0.5]}, given=np.zeros_like(IMAGES)) == images.GREY
    assert boxes.sum(axis=(1, 2, 3)).tolist() == [6 * 5 * 3] * 6  # half of 12 x 10
    flat = changed({"crop": 0.5}, given=grey)
    assert (flat == 100).all(), "no border comes in"


def test_mixup_mixes_examples_and_targets_by_the_same_shares() -> None:
    shares = np.linspace(0, 1, 6, dtype=np.float32)
    found = changed({"mixup": 0.4}, given=[IMAGES, shares])
    own = shares[:, None, None, None]
    np.testing.assert_allclose(found, own * IMAGES + (1 - own) * np.roll(IMAGES, 1, axis=0), atol=0.51)
    targets = augmentation.mixed(shares, np.eye(6, dtype=np.float32))
    assert targets.sum(axis=1) == pytest.approx(np.ones(6)) and targets[2].tolist() == pytest.approx(
        [0, 0.6, 0.4, 0, 0, 0]
    )


def test_token_dropout_makes_tokens_unknown_and_no_padding() -> None:
    tokens = np.array([[5, 6, 7, 8, 9, 2, 0, 0]] * 50, np.int32)
    (layer,) = catalog.load("text_classification").augment(Training(augment=[{"token_dropout": 0.3}]).augment, [3])  # type: ignore[arg-type,misc]
    found = np.asarray(layer(tokens, training=True))
    assert (found[:, 6:] == 0).all() and set(np.unique(found)) == {0, 1, 2, 5, 6, 7, 8, 9}
    assert 0.2 < (found[:, :6] == 1).mean() < 0.4
    np.testing.assert_array_equal(np.asarray(layer(tokens, training=False)), tokens)


# --- the fit -------------------------------------------------------------------------------------

TRAINING = {"epochs": 2, "batch_size": 16, "folds": 3, "class_weights": "balanced"}
AUGMENT = [{"flip": "vertical"}, {"shift": 0.1}, {"crop": [0.8, 1.0]}, {"mixup": 0.2}]


@pytest.mark.slow
def test_a_package_has_no_augmentation_and_a_fold_is_its_own_in_a_shared_workspace(store: Store) -> None:
    made = pipeline(training={**TRAINING, "augment": AUGMENT})
    plan, together = land(store, made), Workspace()
    fit = model_fits.fit_final(store, made, plan, together)
    saved = keras_models.load(store.get(fit.files[0].key))
    plain = catalog.load(made.workload).build(pipeline(), CLASSES)
    assert [type(layer) for layer in saved.layers] == [type(layer) for layer in plain.layers]
    assert saved.input_shape == plain.input_shape
    among = model_fits.train_fold(store, made, plan, 1, together)
    alone = MemoryStore("memory://alone")
    land(alone, made)
    by_itself = model_fits.train_fold(alone, made, plan, 1)
    assert [e.value for e in by_itself.epochs] == pytest.approx([e.value for e in among.epochs], abs=1e-5)
    assert by_itself.metrics == pytest.approx(among.metrics, abs=1e-5)
    assert among.epochs[-1].value == pytest.approx(among.metrics["accuracy"])  # of the images as they are


OWN = """
import keras

def build(input_shape, classes):
    model = keras.Sequential([
        keras.layers.Input(input_shape), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
        keras.layers.Dense(len(classes), activation="softmax", name="last"),
    ])
    return model

def built_compiled(input_shape, classes):
    model = build(input_shape, classes)
    model.compile("sgd", "categorical_crossentropy")
    return model

def compiled(model, training):
    model.get_layer("last").bias.assign([5.0] * 3)
    model.compile(keras.optimizers.SGD(0.5), "categorical_crossentropy")
"""


def test_a_compile_of_the_users_own_gets_the_model_that_is_trained(tmp_path: Path) -> None:
    (tmp_path / "my_own.py").write_text(OWN)
    augmented = {**TRAINING, "augment": AUGMENT[:2]}
    made = pipeline(
        model={"function": "my_own:build", "compile": "my_own:compiled"}, folder=tmp_path, training=augmented
    )
    workload = catalog.load(made.workload)
    models = workspace._fresh(workload, made, CLASSES, 1, 1)
    assert float(models.trainer.optimizer.learning_rate) == 0.5 and models.learner is models.model
    assert models.learner.get_layer("last").bias.numpy().tolist() == [5.0] * 3
    refused = pipeline(model={"function": "my_own:built_compiled"}, folder=tmp_path, training=augmented)
    with pytest.raises(ConfigurationError, match=r"model\.function compiles the model, but with training\.augment"):
        workspace._fresh(workload, refused, CLASSES, 1, 1)


UNFREEZING = """
import keras

def build(input_shape, classes):
    layers = keras.layers
    base = keras.Sequential([layers.Input((144,)), layers.Dense(4, activation="relu", name="inner")], name="base")
    base.trainable = False
    return keras.Sequential([
        layers.Input(input_shape), layers.Rescaling(1 / 255), layers.Flatten(), base,
        layers.Dense(len(classes), activation="softmax"),
    ])

def compiled(model, training):
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])

class Unfreeze(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.get_layer("base").trainable = True
            compiled(self.model, None)

def callbacks(training):
    return [Unfreeze()] if training.epochs > 2 else []
"""


@pytest.mark.slow
def test_a_callback_of_the_users_own_finds_its_layers_in_the_model_that_is_trained(
    tmp_path: Path, store: Store
) -> None:
    (tmp_path / "unfreezing.py").write_text(UNFREEZING)
    model = {"function": "unfreezing:build", "compile": "unfreezing:compiled", "callbacks": "unfreezing:callbacks"}
    inner = []
    for epochs in (2, 3):
        section = {**TRAINING, "epochs": epochs, "augment": [{"flip": "vertical"}], "precision": "bfloat16"}
        made = pipeline(model=model, folder=tmp_path, training=section)
        place = MemoryStore("memory://unfreezing")
        fit = model_fits.fit_final(place, made, land(place, made))
        start = workspace._fresh(
            catalog.load(made.workload), made, CLASSES, model_fits.seed(0, "final", None), 1
        ).model.get_layer("base")
        saved = keras_models.load(place.get(fit.files[0].key)).get_layer("base")
        inner.append(np.abs(np.asarray(saved.get_weights()[0]) - start.get_weights()[0]).max())
    assert inner[0] == 0 and inner[1] > 1e-3, "frozen, then unfrozen by the callback"

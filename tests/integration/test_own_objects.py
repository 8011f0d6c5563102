"""A model of layers that are not Keras's own: its package has their code, which runs where it is allowed to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.evaluation import load_check
from leptonflow.registry import package_builder, packages, served_models
from leptonflow.registry.onnx_session import TOLERANCE
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.training import model_fits, workspace
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, TrainingError
from schemas.records import Plan
from tests.fit_examples import CLASSES, land, pipeline

CODE = """
from pathlib import Path
import keras

BY = Path(__file__).with_name("by.txt")

def halved(x):
    return x / 2

@keras.saving.register_keras_serializable(package="mine")
class Scale(keras.layers.Layer):
    def __init__(self, **others):
        super().__init__(**others)
        self.by = float(BY.read_text())
    def call(self, x):
        return x * self.by

def build(input, classes):
    layers = keras.layers
    model = keras.Sequential([
        layers.Input(input), layers.Rescaling(1 / 255), Scale(), layers.Flatten(), layers.Dense(4, activation=halved),
        layers.Dense(len(classes), activation="softmax"),
    ])
    model.compile(optimizer="adam", loss="categorical_crossentropy")
    return model

OBJECTS = {"mine>Scale": Scale, "halved": halved}

def objects():
    return OBJECTS

def no_objects():
    return ["Scale"]
"""


def own(folder: Path, code: str = CODE, **keys: Any) -> Pipeline:
    (folder / "layered.py").write_text(code)
    (folder / "by.txt").write_text("2.0")
    model = {"function": "layered:build", "custom_objects": "layered:objects", "files": ["by.txt"], **keys}
    training = {"epochs": 1, "folds": 2}
    return pipeline(model={k: v for k, v in model.items() if v}, folder=folder, training=training, serving={})


def packaged(store: Store, config: Pipeline, plan: Plan) -> tuple[Store, str, str, str]:
    """A trained version, as `packages.load` takes it."""
    shared = Workspace()
    for fold in range(2):
        model_fits.train_fold(store, config, plan, fold, shared)
    model_fits.fit_final(store, config, plan, shared)
    package = package_builder.build(store, config, plan, shared)
    return store, config.name, package.version, package.manifest_sha256


@pytest.mark.slow
def test_each_package_runs_its_own_code_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, config = open_store(str(tmp_path / "store")), own(tmp_path)
    plan = land(store, config, count=60)
    first = packaged(store, config, plan)
    checked = load_check.validate(store, config, *first[2:])
    assert checked.passed, checked.sentence
    own(tmp_path, CODE.replace("return x / 2", "return 1 - x"))
    second = packaged(store, config, plan.model_copy(update={"version": "c" * 12}))
    own(tmp_path, "edited since")
    (tmp_path / "by.txt").unlink()
    packages._models.clear()
    for named in (first, second, first):
        inputs, expected = packages.read_reference(store, packages.manifest(*named[:3]))
        package = packages.load(*named, code=True)
        assert np.abs(package.predict(inputs) - expected).max() <= TOLERANCE
        assert float(package.model.layers[-2].activation(3.0)) == (1.5 if named is first else -2.0)
        packages._models.clear()
    with pytest.raises(TrainingError, match=r"cannot be loaded without its own code, layered:objects.*source\.zip"):
        packages.load(*first)
    served = served_models.load(*first)  # what ONNX Runtime takes needs no code
    assert served.runtime == "onnxruntime"
    np.testing.assert_allclose(served.predict(inputs), expected, atol=TOLERANCE)
    monkeypatch.setenv("LEPTONFLOW_PACKAGE_CODE", "1")
    packages.load(*first)


def test_what_is_no_keras_layer_and_no_custom_object_is_told_before_training(tmp_path: Path) -> None:
    workload = catalog.load("image_classification")
    workspace.check_loadable(workload, own(tmp_path, custom_objects="layered:OBJECTS"), CLASSES)
    plain = CODE.replace("    model.compile", "    # ")
    for code, objects, told in (
        (plain, None, r"without the code that built it.*halved, layered\.Scale.*model\.custom_objects"),
        (CODE, None, r"without the code that built it.*halved, layered\.Scale.*model\.custom_objects"),
        (CODE, "layered:no_objects", r"model\.custom_objects .* is no such mapping.*\['Scale'\]"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            workspace.check_loadable(workload, own(tmp_path, code, custom_objects=objects), CLASSES)

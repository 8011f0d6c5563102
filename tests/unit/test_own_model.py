"""The user's own compile and callbacks: what they decide stays, what fails is told with its place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.core import pipeline_files
from leptonflow.core.code_digests import ROOT
from leptonflow.data.dataset import holdout_split
from leptonflow.keras_runtime import keras_models
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training import model_fits, workspace
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog, user_model
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, TrainingError
from tests.fit_examples import CLASSES, land, pipeline

WORKLOAD = catalog.load("image_classification")
TRAINING = {"epochs": 3, "batch_size": 16, "folds": 3}
CODE = """
import keras

def build(input, classes):
    layers = keras.layers
    return keras.Sequential([
        layers.Input(input), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(4, name="first"),
        layers.Dense(len(classes), activation="softmax"),
    ])

@keras.saving.register_keras_serializable()
class Sub(keras.Model):
    def __init__(self, count, **given):
        super().__init__(**given)
        self.count, self.flat, self.out = count, keras.layers.Flatten(), keras.layers.Dense(count, "softmax")
    def build(self, shape):
        self.out.build((None, 144))
    def call(self, images):
        return self.out(self.flat(images) / 255)
    def get_config(self):
        return {**super().get_config(), "count": self.count}

def subclassed(input, classes):
    return Sub(len(classes))

def objects():
    return {"Sub": Sub}

def built_compiled(input, classes):
    model = build(input, classes)
    model.compile(optimizer=keras.optimizers.SGD(0.25), loss="mse", metrics=["mae"])
    return model

def compile(model, training):
    model.compile(optimizer=keras.optimizers.SGD(1 / training.batch_size), loss="kl_divergence", metrics=["mae"])

class Watch(keras.callbacks.Callback):
    def __init__(self, told):
        self.told = told
    def on_train_begin(self, logs=None):
        import imported_late
        self.told.append(("begin", dict(self.params)))
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:  # unfreeze, as transfer learning does
            self.model.get_layer("first").trainable = False
            self.model.compile(optimizer="adam", loss="mse", metrics=[])
    def on_train_batch_end(self, batch, logs=None):
        self.told.append(("batch", batch, sorted(logs)))
    def on_epoch_end(self, epoch, logs=None):
        self.told.append(("epoch", epoch, sorted(logs)))
        self.model.stop_training = epoch == 1
    def on_train_end(self, logs=None):
        self.told.append(("end", sorted(logs)))

TOLD = []

def callbacks(training):
    return [Watch(TOLD)]

def wrong_callbacks(training):
    return [3]

def failing_callbacks(training):
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("no more")
    return [Fails()]

def sparse(model, training):
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")

def averaged(model, training):
    sgd = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer=sgd, loss="categorical_crossentropy")

def of_each_class(model, training):
    model.compile(optimizer="sgd", loss="categorical_crossentropy", metrics=[keras.metrics.F1Score()])

def undefined(model, training):
    def undefined_metric(y, p):
        return keras.ops.log(keras.ops.mean(y) - 1)
    model.compile(optimizer="sgd", loss="categorical_crossentropy", metrics=[undefined_metric])

SHARED = None

def shared(input, classes):
    global SHARED
    SHARED = SHARED or keras.layers.Dense(4, name="base")
    layers = keras.layers
    return keras.Sequential(
        [layers.Input(input), layers.Flatten(), SHARED, layers.Dense(len(classes), activation="softmax")]
    )

def nothing(model, training):
    pass

def other_arguments(model):
    pass

def raises(input, classes):
    return helper()

def helper():
    raise ValueError("not today\\nsecond line")
"""


def placed(error: ConfigurationError) -> None:
    """Where a line of CODE is named, it is the one that raised."""
    for number in re.findall(r"mine_too\.py:(\d+)", error.line()):
        assert "raise " in CODE.splitlines()[int(number) - 1]


def own(folder: Path, model: dict[str, Any], **changes: Any) -> Pipeline:
    (folder / "mine_too.py").write_text(CODE)
    (folder / "imported_late.py").write_text("")
    named = {key: f"mine_too:{value}" if key != "filters" else value for key, value in model.items()}
    return pipeline(**{"model": named, "folder": folder, "training": TRAINING, **changes})


def test_a_compiled_model_keeps_its_optimizer_loss_and_metrics(tmp_path: Path) -> None:
    for keys, loss, rate in (
        ({"function": "built_compiled"}, "mse", 0.25),
        ({"function": "build", "compile": "compile"}, "kl_divergence", 1 / 16),
        ({"compile": "compile", "filters": [4]}, "kl_divergence", 1 / 16),
    ):  # fmt: skip
        model = Workspace().models(WORKLOAD, own(tmp_path, keys), CLASSES, 0, 9).trainer
        assert (model.loss, type(model.optimizer).__name__) == (loss, "SGD")
        assert float(model.optimizer.learning_rate) == pytest.approx(rate)
    plain = Workspace().models(WORKLOAD, own(tmp_path, {"function": "build"}), CLASSES, 0, 9).trainer
    assert (plain.loss, type(plain.optimizer).__name__) == ("categorical_crossentropy", "Adam")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_that_the_users_optimizer_averages_are_evaluated(tmp_path: Path, precision: str) -> None:
    config = own(tmp_path, {"function": "build", "compile": "averaged"}, training={**TRAINING, "precision": precision})
    models = Workspace().models(WORKLOAD, config, CLASSES, 0, 9)
    models.learner.get_layer("first").trainable = False  # as a callback may, which compiles again
    user_model.compiled(config, models.trainer)
    images, targets = np.full((4, 12, 12, 1), 200, np.uint8), np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    kernels = []
    for _ in range(2):
        models.trainer.train_on_batch(images, targets)
        kernels.append(models.learner.layers[-1].get_weights()[0].copy())
    assert np.abs(kernels[1] - kernels[0]).max() > 0.001
    averaged = models.settled().layers[-1].get_weights()[0]  # Keras's average begins with the first step
    np.testing.assert_allclose(averaged, (kernels[0] + kernels[1]) / 2, atol=1e-5)


def test_a_subclassed_model_trains_and_is_told_to_be_none_for_bfloat16(tmp_path: Path) -> None:
    keys = {"function": "subclassed", "custom_objects": "objects"}
    assert Workspace().models(WORKLOAD, own(tmp_path, keys), CLASSES, 0, 9).trainer.count == 3
    low = own(tmp_path, keys, training={**TRAINING, "precision": "bfloat16"})
    told = r"cannot be trained in bfloat16.*a Sequential or functional model.*Received: Sub, a subclass.*float32"
    with pytest.raises(ConfigurationError, match=told):
        Workspace().models(WORKLOAD, low, CLASSES, 0, 9)


def test_keys_of_the_built_in_models_beside_a_function_are_told(tmp_path: Path) -> None:
    store = MemoryStore("memory://unread")
    for keys, told in (
        ({"function": "build", "filters": [4]}, ["not read, because model.function builds the model: model.filters"]),
        ({"function": "build"}, []),
        ({"compile": "compile", "filters": [4]}, []),
    ):  # fmt: skip
        config = own(tmp_path, keys)
        snapshot = land(store, config).snapshot
        assert snapshot is not None
        found = holdout_split.split(store, config, snapshot).warnings
        assert [line for line in found if "model" in line] == told


@pytest.mark.parametrize(("key", "value"), [("learning_rate", 0.001), ("optimizer", "adam")])
def test_keys_without_effect_are_errors_even_at_their_defaults(tmp_path: Path, key: str, value: object) -> None:
    config = own(tmp_path, {"function": "built_compiled"}, training={**TRAINING, key: value})
    with pytest.raises(ConfigurationError, match=rf"training\.{key} has no effect.*model\.function compiles"):
        Workspace().models(WORKLOAD, config, CLASSES, 0, 9)
    path = tmp_path / "squares.yaml"
    path.write_text(
        "name: squares\nworkload: image_classification\ninput: [12, 12, 1]\nmodel: {compile: 'mine_too:compile'}\n"
        f"training:\n  epochs: 1\n  {key}: {value}\ngate: [{{rule: at_least, metric: accuracy, value: 0.5}}]\n"
    )
    with pytest.raises(ConfigurationError, match=rf"training\.{key} has no effect \(line 7\).*model\.compile compiles"):
        pipeline_files.load_config(str(path))


@pytest.mark.slow
def test_callbacks_are_called_as_keras_calls_them_and_may_end_the_fit(tmp_path: Path) -> None:
    config = own(tmp_path, {"function": "build", "callbacks": "callbacks"})
    store = MemoryStore("memory://hooks")
    plan = land(store, config)
    shared = Workspace()
    fits = [model_fits.train_fold(store, config, plan, fold, shared) for fold in (0, 1)]
    import mine_too  # type: ignore[import-not-found]

    steps = -(-fits[0].examples // 16)
    batches = [("batch", step, ["accuracy", "loss"]) for step in range(steps)]
    later = [("batch", step, ["loss"]) for step in range(steps)]
    end = [("epoch", 1, ["loss"]), ("end", [])]
    begin = ("begin", {"verbose": 0, "epochs": 3, "steps": steps})
    assert mine_too.TOLD[: 2 * steps + 4] == [begin, *batches, ("epoch", 0, ["accuracy", "loss"]), *later, *end]
    assert {each.epoch for each in fits[0].epochs} == {1, 2}, "it ended after the second of three"
    alone = MemoryStore("memory://hooks-alone")
    for key, _ in store.list("examples"):
        alone.create(key, store.get(key))
    assert model_fits.train_fold(alone, config, plan, 1).metrics == pytest.approx(fits[1].metrics, abs=1e-6)
    final = model_fits.fit_final(store, config, plan, shared)
    assert {each.metric for each in final.epochs if each.epoch == 2} == {"loss"}


@pytest.mark.slow
def test_keras_is_set_up_before_code_is_imported_that_imports_it_too(tmp_path: Path) -> None:
    """As `predict` does with a model of layers of its own: no other code has imported Keras by then."""
    (tmp_path / "early.py").write_text(
        'import os\nSEEN = os.environ["NVIDIA_TF32_OVERRIDE"]\ndef callbacks(training): return []'
    )
    program = (
        "import sys; from pathlib import Path; from leptonflow.workloads import user_model;"
        "from tests.fit_examples import pipeline;"
        "user_model.callbacks(pipeline(model={'callbacks': 'early:callbacks'}, folder=Path(sys.argv[1])))"
    )
    environment = {key: value for key, value in os.environ.items() if key not in keras_models.DEVICE}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env={**environment, "KERAS_BACKEND": "jax"}, cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"function": "build", "callbacks": "wrong_callbacks"}, r"model\.callbacks .* does not return callbacks.*int"),
        ({"function": "build", "compile": "nothing"}, r"model\.compile .* does not compile the model"),
        ({"function": "build", "compile": "other_arguments"}, r"takes other arguments.*other_arguments\(model\)"),
        ({"function": "raises"}, r"raised an error.*ValueError: not today second line \(mine_too\.py:\d+\)"),
        ({"function": "gone"}, r"is not there.*build.*gone"),
    ],
)
def test_what_is_wrong_is_told_before_any_training(tmp_path: Path, keys: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        workspace.check_loadable(WORKLOAD, own(tmp_path, keys), CLASSES)
    placed(caught.value)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"function": "build", "callbacks": "failing_callbacks"}, r"RuntimeError: no more \(mine_too\.py:\d+\)"),
        ({"function": "build", "compile": "of_each_class"}, r"metric f1_score .*has several values.*3 numbers"),
        ({"function": "build", "compile": "sparse"}, r"model\.compile mine_too:sparse.*one-hot rows"),
        ({"function": "shared"}, r"two calls of model\.function gave models with the same weights.*2 variables.*base/"),
    ],
)
def test_what_fails_in_a_fit_is_the_users_to_change(tmp_path: Path, keys: dict[str, str], told: str) -> None:
    config, store = own(tmp_path, keys), MemoryStore("memory://blamed")
    plan = land(store, config)
    with pytest.raises(ConfigurationError, match=told) as caught:
        model_fits.train_fold(store, config, plan, 0)
    placed(caught.value)


def test_a_metric_that_is_no_number_is_named_and_not_the_loss(tmp_path: Path) -> None:
    config, store = own(tmp_path, {"function": "build", "compile": "undefined"}), MemoryStore("memory://undefined")
    told = "the metric undefined_metric of the compiled model is not a finite number.*nan at step 1 of epoch 1, fold 1"
    with pytest.raises(TrainingError, match=told):
        model_fits.train_fold(store, config, land(store, config), 0)


def test_the_package_of_a_compiled_model_has_no_optimizer(tmp_path: Path) -> None:
    config = own(tmp_path, {"function": "built_compiled"})
    store = MemoryStore("memory://compiled")
    plan = land(store, config)
    final = model_fits.fit_final(store, config, plan)
    data = store.get(final.files[0].key)
    assert not workspace._layers(data)["compile_config"]
    assert not keras_models.load(data).compiled
    trained = keras_models.load(data).predict_on_batch(np.zeros((1, 12, 12, 1), np.uint8))
    assert trained.shape == (1, 3) and np.isfinite(trained).all()


def test_a_pipeline_without_these_keys_is_recorded_as_before() -> None:
    assert pipeline().model.model_dump(mode="json") == {
        "filters": [4, 8], "dense": 8, "dropout": 0.25, "function": None
    }  # fmt: skip

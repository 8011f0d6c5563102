"""The keys of `training:`: what each does to a fit, what a wrong value is told, and that no other digest changes."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from pydantic_core import PydanticCustomError

from leptonflow.core import accelerators
from leptonflow.core.hashing import digest
from leptonflow.data.dataset import holdout_split
from leptonflow.keras_runtime import keras_models, optimizers
from leptonflow.registry import model_cards
from leptonflow.runs import planning
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.training import class_weights, model_fits
from leptonflow.training import workspace as workspaces
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog
from schemas import training as schemas_training
from schemas import yaml_text
from schemas.augmentation import Operation
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError
from schemas.rules import Frozen
from schemas.training import EarlyStopping, Optimizer, Training, compiled_keys
from schemas.workloads import SECTIONS, Sections
from tests.fit_examples import CLASSES, land, pipeline

BASE: dict[str, Any] = {
    "name": "p", "workload": "image_classification", "input": [12, 12, 1],
    "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}],
}  # fmt: skip
TRAINING = {"epochs": 2, "batch_size": 16, "folds": 3}


def config(**training: Any) -> Pipeline:
    return parse({**BASE, "training": training}, where="p.yaml", folder=Path("."))


@pytest.fixture
def store() -> Store:
    return MemoryStore("memory://options")


# --- the configuration ---------------------------------------------------------------------------


def test_without_a_new_key_the_document_and_its_digest_are_those_of_before() -> None:
    before = {
        "epochs": 10, "batch_size": 32, "folds": 5, "seed": 0, "optimizer": "adam", "learning_rate": 0.001,
    }  # fmt: skip
    assert config().training.model_dump(mode="json") == before
    assert digest(config(**before).training) == digest(before)


GIVEN = [
    {"optimizer": {}},
    {"optimizer": {"name": "adamw", "learning_rate": 0.01, "schedule": "cosine", "warmup": 0.1, "ema": 0.9}},
    {"label_smoothing": 0.1},
    {"class_weights": "balanced"},
    {"class_weights": {"cat": 2, 3: 0.5}},
    {"precision": "bfloat16"},
    {"precision": "auto", "deterministic": True},
    {"early_stopping": {}, "final_epochs": "folds_median"},
    {"early_stopping": {"metric": "recall[cat]", "patience": 3, "fraction": 0.2}},
]


@pytest.mark.parametrize("given", GIVEN)
def test_a_new_key_is_in_the_digest_and_the_document_is_read_again_as_it_was(given: dict[str, Any]) -> None:
    made = config(**given)
    with warnings.catch_warnings(action="error"):  # pydantic's, of a value that is not what was declared
        assert Pipeline.model_validate(made.model_dump(mode="json", exclude_defaults=True)).training == made.training
    assert digest(made.training) != digest(config().training)
    assert Pipeline.model_validate_json(made.model_dump_json()).training == made.training
    assert Training.model_validate(made.training.model_dump()) == made.training


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"optimizer": {}, "learning_rate": 0.1}, r"training\.learning_rate is not valid.*within training\.optimizer"),
        ({"learning_rate": None}, r"training\.learning_rate is not valid.*None"),
        ({"optimizer": "adan"}, r"training\.optimizer is not valid.*one of adam, adamw.*mapping of name.*'adan'"),
        ({"optimizer": 3}, r"training\.optimizer is not valid.*one of adam"),
        ({"optimizer": {"name": "adan"}}, r"training\.optimizer\.name is not valid.*'adam'.*'adan'"),
        ({"optimizer": {"rate": 1}}, r"unknown key training\.optimizer\.rate.*one of name, learning_rate"),
        ({"optimizer": {"shedule": "cosine"}}, r"training\.optimizer\.shedule.*Did you mean schedule"),
        ({"optimizer": {"schedule": "linear"}}, r"training\.optimizer\.schedule.*'cosine'.*'linear'"),
        ({"optimizer": {"warmup": 1}}, r"training\.optimizer\.warmup.*less than 1"),
        ({"optimizer": {"warmup": 0.1, "schedule": "plateau"}}, r"training\.optimizer\.warmup.*plateau"),
        ({"optimizer": {"weight_decay": -1}}, r"training\.optimizer\.weight_decay.*greater than or equal to 0"),
        ({"optimizer": {"clip_norm": 0}}, r"training\.optimizer\.clip_norm.*greater than 0"),
        ({"optimizer": {"ema": 1}}, r"training\.optimizer\.ema.*less than 1"),
        ({"optimizer": {"ema": True}}, r"training\.optimizer\.ema.*number.*True"),
        ({"label_smoothing": 1}, r"training\.label_smoothing.*less than 1"),
        ({"class_weights": "equal"}, r"training\.class_weights is not valid.*none, balanced, or a mapping.*'equal'"),
        ({"class_weights": {}}, r"training\.class_weights is not valid.*one or more classes"),
        ({"class_weights": {"cat": 0}}, r"training\.class_weights\.cat is not valid.*greater than 0.*Received: 0"),
        ({"class_weights": {"cat": "2"}}, r"training\.class_weights\.cat is not valid.*greater than 0.*'2'"),
        ({"early_stopping": True}, r"training\.early_stopping is not valid.*True"),
        ({"early_stopping": {"patience": 0}}, r"training\.early_stopping\.patience.*greater than or equal to 1"),
        ({"early_stopping": {"fraction": 1.0}}, r"training\.early_stopping\.fraction.*less than 1"),
        ({"early_stopping": {"metric": "val_loss"}}, r"training\.early_stopping\.metric.*one of accuracy"),
        ({"early_stopping": {"wait": 3}}, r"training\.early_stopping\.wait.*one of metric, patience, fraction"),
        ({"final_epochs": "folds_median"}, r"training\.final_epochs.*early_stopping beside"),
        ({"precision": "float16"}, r"training\.precision.*'auto', 'float32' or 'bfloat16'.*'float16'"),
        ({"deterministic": "yes"}, r"training\.deterministic.*boolean.*'yes'"),
        ({"final_epochs": 7}, r"training\.final_epochs.*'folds_median'.*7"),
        ({"class_weights": {"cat": float("inf")}}, r"training\.class_weights\.cat is not valid"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        config(**given)


def test_a_weight_for_a_class_that_is_not_there_is_an_error(store: Store) -> None:
    given = {"classes": ["cat", "dog"], "training": {"class_weights": {"cat": 2.0, "bird": 3.0}}}
    with pytest.raises(ConfigurationError, match=r"training\.class_weights\.bird is not valid.*classes cat, dog"):
        parse({**BASE, **given}, where="p.yaml", folder=Path("."))
    given = {"classes": ["cat", "dog"], "training": {"early_stopping": {"metric": "recall[bird]"}}}
    with pytest.raises(ConfigurationError, match=r"training\.early_stopping\.metric is not valid.*classes cat, dog"):
        parse({**BASE, **given}, where="p.yaml", folder=Path("."))
    made = pipeline(training={**TRAINING, "class_weights": {"left": 2.0, "top": 3.0}})  # its data names the classes
    snapshot = land(store, made).snapshot
    assert snapshot is not None
    with pytest.raises(ConfigurationError, match=r"class_weights\.top names a class.*left, middle, right.*top"):
        holdout_split.split(store, made, snapshot)


def test_a_batch_larger_than_the_training_set_is_told(store: Store) -> None:
    for size, told in ((30, 0), (64, 1)):
        made = pipeline(training={**TRAINING, "batch_size": size})
        snapshot = land(store, made, count=60).snapshot
        assert snapshot is not None
        found = holdout_split.split(store, made, snapshot)
        assert len([each for each in found.warnings if "each epoch is a single step" in each]) == told


@pytest.mark.parametrize("given", [{"label_smoothing": 0.1}, {"class_weights": "balanced"}])
def test_a_workload_without_classes_refuses_keys_of_classes(given: dict[str, Any]) -> None:
    made = Training.model_validate(given)
    schemas_training.check(made, "image_classification", (8, 8, 1), SECTIONS["image_classification"], None)
    with pytest.raises(PydanticCustomError, match="no such key: numbers has no classes"):
        schemas_training.check(made, "numbers", None, Sections(TypeAdapter(Any), Frozen, classes=False), None)


def test_the_keys_that_a_compiled_model_makes_useless_are_named() -> None:
    assert compiled_keys(Training()) == ()
    assert compiled_keys(Training(epochs=3, learning_rate=0.1)) == ("learning_rate",)
    assert compiled_keys(Training(optimizer=Optimizer())) == ("optimizer",)


def test_the_page_on_training_has_every_key_and_its_examples_are_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in [each for whole in blocks for each in whole.split("---\n")]:
        parse({**BASE, **yaml_text.load(block.encode(), "docs/training.md").value}, where="docs", folder=Path("."))
    keys = [key for section in (Training, Optimizer, EarlyStopping, Operation) for key in section.model_fields]
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_a_model_card_tells_nested_keys_by_their_paths() -> None:
    told = model_cards._settings(config(optimizer={"ema": 0.9}).training.model_dump(mode="json"))
    assert "batch_size 32" in told and "optimizer.ema 0.9" in told and "optimizer.clip_norm" not in told


# --- the optimizer -------------------------------------------------------------------------------


def rates(given: Optimizer, steps: int) -> list[float]:
    """The learning rate at each step of a fit."""
    made = optimizers.optimizer(given, steps)
    found = []
    for step in range(steps):
        made.iterations.assign(step)
        found.append(float(made.learning_rate))
    return found


def test_the_learning_rate_follows_its_schedule() -> None:
    highest: dict[str, Any] = {"learning_rate": 0.1}
    assert rates(Optimizer(**highest), 3) == pytest.approx([0.1] * 3)
    assert rates(Optimizer(**highest, warmup=0.5), 8) == pytest.approx([0.025, 0.05, 0.075, 0.1, *[0.1] * 4])
    cosine = [0.05 * (1 + np.cos(np.pi * step / 8)) for step in range(8)]
    assert rates(Optimizer(**highest, schedule="cosine"), 8) == pytest.approx(cosine, abs=1e-7)
    both = rates(Optimizer(**highest, schedule="cosine", warmup=0.2), 10)
    assert both == pytest.approx([0.05, 0.1, *cosine], abs=1e-7)
    assert rates(Optimizer(**highest, schedule="steps"), 8) == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)
    assert rates(Optimizer(**highest, schedule="steps", warmup=0.2), 10)[1:7] == pytest.approx([0.1] * 5 + [0.01])


def test_keras_gets_weight_decay_clipping_and_averaging() -> None:
    made = optimizers.optimizer(Optimizer(name="sgd", weight_decay=0.1, clip_norm=2.0, ema=0.9), 1)
    assert (made.weight_decay, made.global_clipnorm, made.use_ema, made.ema_momentum) == (0.1, 2.0, True, 0.9)
    plain = optimizers.optimizer(Optimizer(name="adamw"), 1)
    assert (plain.weight_decay, plain.global_clipnorm, plain.use_ema) == (0.004, None, False)


@pytest.mark.slow
def test_the_averaged_weights_are_evaluated_and_saved(store: Store) -> None:
    made = pipeline(training={**TRAINING, "optimizer": {"learning_rate": 0.01, "ema": 0.9}})
    plan, workspace = land(store, made), Workspace()
    fit = model_fits.fit_final(store, made, plan, workspace)
    assert workspace._models is not None
    saved = keras_models.load(store.get(fit.files[0].key)).trainable_variables
    averages = workspace._models.trainer.optimizer._model_variables_moving_average
    last = workspace._models.trainer.trainable_variables
    for ours, average, weight in zip(saved, averages, last, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(average))
        assert np.abs(np.asarray(ours) - np.asarray(weight)).max() > 1e-5
    fold = model_fits.train_fold(store, made, plan, 0, workspace)
    assert fold.metrics["accuracy"] == pytest.approx(fold.epochs[-1].value)  # the curve is of the averages too


@pytest.mark.slow
def test_a_schedule_is_of_the_fits_own_steps_in_a_shared_workspace(store: Store) -> None:
    """The final fit has more steps than a fold, and the schedule that was traced for the fold's ends too early."""
    made = pipeline(training={**TRAINING, "epochs": 1, "optimizer": {"schedule": "cosine", "warmup": 0.2}})
    plan, workspace, traced = land(store, made), Workspace(), []
    for fold in (0, None):
        if fold is None:
            model_fits.fit_final(store, made, plan, workspace)
        else:
            model_fits.train_fold(store, made, plan, fold, workspace)
        assert workspace._models is not None
        traced.append(workspace._models.trainer.optimizer)
        assert float(traced[-1].learning_rate) == pytest.approx(0.0, abs=1e-9)  # it ends with its fit
    assert traced[0] is not traced[1]


def test_a_plateau_halves_the_learning_rate(store: Store) -> None:
    steering = {"name": "sgd", "learning_rate": 1e-9, "schedule": "plateau"}  # a loss that does not fall
    still = {"filters": [4], "dense": 4, "dropout": 0.0}  # nor by chance
    made = pipeline(model=still, training={**TRAINING, "epochs": 5, "optimizer": steering})
    workspace = Workspace()
    model_fits.train_fold(store, made, land(store, made), 0, workspace)
    assert workspace._models is not None
    assert float(workspace._models.trainer.optimizer.learning_rate) == pytest.approx(0.5e-9)


# --- the loss ------------------------------------------------------------------------------------


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = class_weights.weights(Training(class_weights="balanced"), labels, CLASSES)
    assert found == pytest.approx(expected)
    assert class_weights.weights(Training(), labels, CLASSES) is None
    named = class_weights.weights(Training(class_weights={"middle": 2.5}), labels, CLASSES)
    assert named == pytest.approx([1, 2.5, 1])


def test_smoothing_and_weights_are_in_the_loss(store: Store) -> None:
    """An optimizer that moves nothing leaves the first weights, whose loss can be computed by hand."""
    given = {"class_weights": {"left": 3.0}, "label_smoothing": 0.3}
    still = {**TRAINING, "epochs": 1, "optimizer": "sgd", "learning_rate": 1e-12}
    plain_model = {"filters": [4, 8], "dense": 8, "dropout": 0.0}
    made = pipeline(model=plain_model, training={**still, **given})
    plan, workspace = land(store, made), Workspace()
    fit = model_fits.fit_final(store, made, plan, workspace)
    assert plan.snapshot is not None
    examples = workspace.examples(store, made, plan.snapshot)
    rows = keras_models.predict(keras_models.load(store.get(fit.files[0].key)), examples.inputs)
    targets = np.eye(3)[examples.labels] * 0.7 + 0.1
    losses = -(targets * np.log(rows)).sum(axis=1) * np.where(examples.labels == 0, 3.0, 1.0)
    assert fit.epochs[0].metric == "loss" and fit.epochs[0].value == pytest.approx(losses.mean(), rel=1e-4)


# --- precision and determinism -------------------------------------------------------------------


def test_bfloat16_is_of_the_training_alone(store: Store) -> None:
    made = pipeline(training={**TRAINING, "precision": "bfloat16", "optimizer": {"learning_rate": 0.01, "ema": 0.5}})
    plan, workspace = land(store, made), Workspace()
    fit = model_fits.fit_final(store, made, plan, workspace)
    assert workspace._models is not None and fit.precision == "bfloat16"
    learner = workspace._models.learner
    assert {layer.compute_dtype for layer in learner.layers[:-1]} == {"bfloat16"}
    assert learner.layers[-1].compute_dtype == "float32"
    saved = keras_models.load(store.get(fit.files[0].key))
    assert {layer.compute_dtype for layer in saved.layers} == {"float32"}
    assert {variable.dtype for variable in learner.trainable_variables} == {"float32"}
    fold = model_fits.train_fold(store, made, plan, 0, workspace)
    assert fold.metrics["accuracy"] == pytest.approx(fold.epochs[-1].value)  # both of the float32 model


def test_auto_is_bfloat16_where_every_gpu_is_fast_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    auto = Training(precision="auto")
    for told, expected in (("9.0\n9.0", "bfloat16"), ("9.0\n7.5", "float32"), ("", "float32"), ("No GPU", "float32")):
        driver.write_text(f"#!/bin/sh\nprintf '{told}\n'\n")
        driver.chmod(0o755)
        accelerators._driver.cache_clear()
        assert accelerators.precision(auto) == expected
    driver.write_text("#!/bin/sh\nprintf '9.0\n'\n")
    accelerators._driver.cache_clear()
    ids = []
    for visible in ("0", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        snapshot = land(MemoryStore("memory://any"), pipeline(), count=3).snapshot
        assert snapshot is not None
        code = {"data": "d", "train": "t", "gate": "g"}
        ids.append(planning.ids(pipeline(training={"precision": "auto"}), snapshot, code, 0))
    assert ids[0] != ids[1], "the precision that was resolved is in the version"
    accelerators._driver.cache_clear()


def test_deterministic_is_for_the_fit_alone(store: Store) -> None:
    from tensorflow.python.framework import config as tensorflow

    seen = []
    with keras_models.deterministic(True):
        seen.append(tensorflow.is_op_determinism_enabled())
    with keras_models.deterministic(False):
        seen.append(tensorflow.is_op_determinism_enabled())
    assert seen == [True, False]
    made = pipeline(training={**TRAINING, "epochs": 1, "deterministic": True})
    fit = model_fits.fit_final(store, made, land(store, made))
    assert fit.epochs and not tensorflow.is_op_determinism_enabled()


def test_a_functional_model_of_operations_trains_in_bfloat16() -> None:
    """The cnn of texts has Keras operations between its layers, which have no precision of their own."""
    section = {"precision": "bfloat16", "augment": [{"token_dropout": 0.2}]}
    given = {"workload": "text_classification", "input": {"length": 12, "vocabulary": 60}, "model": {"kind": "cnn"}}
    made = pipeline(**given, training=section)
    models = workspaces._fresh(catalog.load(made.workload), made, CLASSES, 1, 1)
    tokens = np.random.default_rng(0).integers(0, 60, (8, 12), np.int32)
    logs = models.trainer.train_on_batch(tokens, np.eye(3, dtype=np.float32)[np.arange(8) % 3], return_dict=True)
    assert 0.5 < float(logs["loss"]) < 2
    assert {layer.compute_dtype for layer in models.learner.layers} == {"bfloat16", "float32"}
    assert keras_models.predict(models.settled(), tokens).sum(axis=1) == pytest.approx(np.ones(8), abs=1e-5)


def test_a_model_within_a_model_computes_in_bfloat16_but_for_the_very_last_layer() -> None:
    layers = keras_models.keras().layers
    inner = [layers.Input((6,)), layers.Dense(4, activation="relu"), layers.Dense(3, activation="softmax")]
    head = keras_models.keras().Sequential(inner, name="head")
    whole = keras_models.keras().Sequential([layers.Input((8,)), layers.Dense(6), head])
    made = keras_models.in_bfloat16(whole)
    assert [made.layers[0].compute_dtype, *(each.compute_dtype for each in made.layers[1].layers)] == [
        "bfloat16", "bfloat16", "float32",
    ]  # fmt: skip
    given = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_allclose(made.predict_on_batch(given), whole.predict_on_batch(given), atol=0.02)

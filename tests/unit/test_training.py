"""Fits: the folds are independent although they share one traced model, and nothing is trained twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow.core import progress, store_keys
from leptonflow.data.dataset import example_sets, holdout_split
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.training import epochs, model_fits
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog, predictions
from leptonflow.workloads.classification import ONE_CLASS
from schemas.config import Pipeline
from schemas.errors import TrainingError
from schemas.records import FitResult, Plan
from tests.fit_examples import CLASSES, land, pipeline

OWN = """
import keras

def build(input_shape, classes):
    layers = keras.layers
    return keras.Sequential([
        layers.Input(input_shape), layers.Rescaling(1 / 255), layers.Conv2D(4, 3), layers.BatchNormalization(),
        layers.Flatten(), layers.Dropout(0.5), layers.Dense(len(classes), activation="softmax"),
    ])
"""


@pytest.fixture
def store() -> Store:
    return MemoryStore("memory://training")


def fitted(
    store: Store, config: Pipeline, plan: Plan, fold: int | None, workspace: Workspace
) -> tuple[FitResult, list[Any]]:
    """The fit, and all variables of the workspace's model after it, the optimiser's too."""
    result = (
        model_fits.fit_final(store, config, plan, workspace)
        if fold is None
        else model_fits.train_fold(store, config, plan, fold, workspace)
    )
    assert workspace._models is not None
    model = workspace._models.trainer
    return result, [np.asarray(v) for v in (*model.variables, *model.optimizer.variables)]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("sgd", "adagrad")]


@pytest.mark.parametrize("optimizer", ["adam", *SLOW])
def test_a_fold_in_a_shared_workspace_is_the_fold_alone(store: Store, optimizer: str) -> None:
    config = pipeline(training={"epochs": 2, "batch_size": 16, "folds": 3, "optimizer": optimizer})
    _independent(store, config)


@pytest.mark.slow
def test_moving_statistics_and_random_layers_are_reset_too(store: Store, tmp_path: Path) -> None:
    (tmp_path / "batch_normal.py").write_text(OWN)
    training_section = {"epochs": 2, "batch_size": 16, "folds": 3}
    _independent(store, pipeline(model={"function": "batch_normal:build"}, folder=tmp_path, training=training_section))


def _independent(store: Store, config: Pipeline) -> None:
    plan = land(store, config)
    expected = {}
    for fold in (1, None):
        own = MemoryStore("memory://alone")
        _copy(store, own)
        expected[fold] = fitted(own, config, plan, fold, Workspace())
    workspace, traced = Workspace(), None
    for fold in (0, 1, None):  # in another order, after others
        result, variables = fitted(store, config, plan, fold, workspace)
        traced = traced or workspace._models
        assert workspace._models is traced  # it was one model all along
        if fold in expected:
            same, by_itself = expected[fold]
            assert len(variables) == len(by_itself)
            for ours, theirs in zip(variables, by_itself, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
            assert [e.value for e in result.epochs] == pytest.approx([e.value for e in same.epochs], abs=1e-6)
            assert result.metrics == pytest.approx(same.metrics, abs=1e-6)
    different = [np.abs(a - b).max() for a, b in zip(expected[1][1], expected[None][1], strict=True)]
    assert max(different) > 1e-3  # and two fits are not the same


@pytest.mark.slow
def test_a_fold_in_a_process_of_its_own_is_the_fold_among_others(tmp_path: Path) -> None:
    """It needs the store, the configuration, the plan and the fold's number, and nothing of this process."""
    here, there, config = open_store(str(tmp_path / "here")), open_store(str(tmp_path / "there")), pipeline()
    plan = land(here, config)
    _copy(here, there)
    script = (
        "import sys\n"
        "from leptonflow.storage.address import open_store\n"
        "from leptonflow.training import model_fits\n"
        "from schemas.config import Pipeline\n"
        "from schemas.records import Plan\n"
        "uri, config, plan = sys.argv[1:]\n"
        "config, plan = Pipeline.model_validate_json(config), Plan.model_validate_json(plan)\n"
        "print(model_fits.train_fold(open_store(uri), config, plan, 1).model_dump_json())\n"
    )
    given = (there.uri, config.model_dump_json(), plan.model_dump_json())
    told = subprocess.run([sys.executable, "-c", script, *given], capture_output=True, text=True, check=True).stdout
    workspace = Workspace()
    for fold in (0, 1):
        among = model_fits.train_fold(here, config, plan, fold, workspace)
    assert FitResult.model_validate_json(told).metrics == pytest.approx(among.metrics, abs=1e-6)
    if all(device.startswith("cpu") for device in keras().distribution.list_devices()):
        (file,) = among.files
        assert there.get(file.key) == here.get(file.key)


def _copy(source: Store, target: Store) -> None:
    for key, _ in source.list("examples"):
        target.create(key, source.get(key))


def test_a_fold_leaves_its_predictions_and_its_curve(store: Store) -> None:
    config = pipeline()
    plan = land(store, config)
    told: list[tuple[str, int, int]] = []
    workspace = Workspace()
    with progress.listen(lambda *report: told.append(report)):
        fits = [model_fits.train_fold(store, config, plan, fold, workspace) for fold in range(3)]
    assert plan.snapshot is not None
    examples = example_sets.training_set(store, config, plan.snapshot)
    seen: list[str] = []
    for fit in fits:
        (file,) = fit.files
        table = pq.read_table(pa.BufferReader(store.get(file.key)))
        assert table.column_names == [
            "example_id", "label", "predicted", "probability", "probability_true", "fold", "probabilities",
            "source",
        ]  # fmt: skip
        ids, labels, rows = predictions.read(ONE_CLASS, store.get(file.key), CLASSES)
        assert catalog.load(config.workload).score(labels, rows, CLASSES) == fit.metrics
        assert table["fold"].unique().to_pylist() == [fit.fold]
        names = [CLASSES[n] for n in rows.argmax(1)]
        assert table["predicted"].to_pylist() == names
        assert fit.examples == len(examples.ids) - len(ids)
        names_of = dict(zip(examples.ids, examples.sources, strict=True))
        assert table["source"].to_pylist() == [names_of[example] for example in ids]
        seen += ids
        assert [(e.epoch, e.metric) for e in fit.epochs] == [
            (epoch, metric) for epoch in (1, 2) for metric in ("loss", "accuracy", "val_loss", "val_accuracy")
        ]
        # The curve's last point is of the whole fold where the fold is small.
        assert fit.epochs[-1].value == pytest.approx(fit.metrics["accuracy"])
        cost = fit.cost
        assert cost is not None and cost.steps == 2 * -(-fit.examples // 16)
        assert (cost.device, cost.compiled, cost.peak_device_memory) == ("cpu", True, None)
        assert cost.examples_per_second > 0 and 0 < cost.waiting < 1 and 0 < cost.device_seconds <= fit.seconds
        assert cost.peak_memory > 100 * 2**20  # a process with TensorFlow
        assert fit.epochs[-2].value == pytest.approx(fit.metrics["log_loss"], rel=1e-4)
    assert sorted(seen) == examples.ids
    last = [r for r in told if r[0] == "fold 3"][-1]
    assert last[1] == last[2] == 2 * fits[2].examples
    found = model_fits.cross_validation(fits)
    accuracies = [fit.metrics["accuracy"] for fit in fits]
    assert found["accuracy"]["folds"] == accuracies
    assert found["accuracy"]["std"] == pytest.approx(np.std(np.array(accuracies, float), ddof=1))


def test_a_finished_fit_is_returned_as_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pipeline()
    plan = land(store, config)
    workspace = Workspace()
    first = (
        model_fits.train_fold(store, config, plan, 0, workspace), model_fits.fit_final(store, config, plan, workspace)
    )  # fmt: skip

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(epochs, "run", never)
    assert (model_fits.train_fold(store, config, plan, 0), model_fits.fit_final(store, config, plan)) == first


def test_a_fold_cut_off_before_its_manifest_tells_the_numbers_that_lie_there(store: Store) -> None:
    config = pipeline()
    plan = land(store, config)
    assert plan.snapshot is not None and plan.version is not None
    examples = example_sets.training_set(store, config, plan.snapshot)
    held = holdout_split.folds(examples.labels, 3, 0) == 0
    rows = np.tile([0.1, 0.8, 0.1], (int(held.sum()), 1))
    ids = [i for i, h in zip(examples.ids, held, strict=True) if h]
    others = predictions.write(ONE_CLASS, ids, examples.labels[held], rows, CLASSES, 0)
    key = store_keys.fit_key(config.name, plan.version, 0, "oof.parquet")
    store.create(key, others)
    result = model_fits.train_fold(store, config, plan, 0)
    assert store.get(key) == others
    assert result.metrics["recall[middle]"] == 1.0
    assert result.metrics["recall[left]"] == 0.0


def test_a_training_that_diverges_says_what_to_change(store: Store) -> None:
    config = pipeline(training={"epochs": 3, "folds": 3, "optimizer": "sgd", "learning_rate": 1e30})
    plan = land(store, config)
    with pytest.raises(TrainingError, match="learning_rate"):
        model_fits.train_fold(store, config, plan, 0)
    assert list(store.list("fits")) == []


def test_a_loss_that_is_no_number_ends_the_fit_at_that_step_and_names_its_examples(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "no_number.py").write_text(f"""{OWN}
def compile(model, training):
    model.compile(optimizer="sgd", loss=lambda truth, found: keras.ops.sum(found) * float("nan"))
""")
    own = {"function": "no_number:build", "compile": "no_number:compile"}
    config = pipeline(model=own, folder=tmp_path)
    with pytest.raises(TrainingError, match="diverged") as caught:
        model_fits.train_fold(store, config, land(store, config), 0)
    named = r"loss nan at step 1 of epoch 1, fold 1, on the examples \d+\.png, \d+\.png, \d+\.png and 13 more"
    assert re.fullmatch(named, str(caught.value.received))
    assert list(store.list("fits")) == []


def test_a_seed_depends_on_all_that_it_should() -> None:
    seeds = [model_fits.seed(*of) for of in ((0, "fold", 0), (0, "fold", 1), (1, "fold", 0), (0, "final", None))]
    assert len(set(seeds)) == 4
    assert all(0 <= s < 2**31 for s in seeds)
    assert model_fits.seed(0, "fold", 0) == seeds[0]


@pytest.mark.slow  # test_devices trains on it in every run
def test_the_same_code_trains_on_jax() -> None:
    pytest.importorskip("jax", reason="jax is not installed: `pip install jax` to run this")
    script = (
        "from leptonflow.keras_runtime import keras_models\n"
        "from leptonflow.registry import package_builder, served_models\n"
        "from leptonflow.training import model_fits\n"
        "from leptonflow.training.workspace import Workspace\n"
        "from leptonflow.storage.memory_store import MemoryStore\n"
        "from tests.fit_examples import land, pipeline\n"
        "training = {'epochs': 4, 'batch_size': 16, 'folds': 2}\n"
        "store, config = MemoryStore('memory://jax'), pipeline(training=training, serving={})\n"
        "plan = land(store, config)\n"
        "workspace = Workspace()\n"
        "fits = [model_fits.train_fold(store, config, plan, k, workspace) for k in range(2)]\n"
        "model_fits.fit_final(store, config, plan, workspace)\n"
        "package_builder.build(store, config, plan, workspace)\n"
        "print(keras_models.keras().backend.backend(), model_fits.cross_validation(fits)['accuracy']['mean'])\n"
        "served = served_models.load(store, config.name, plan.version)\n"
        "print(served.runtime, served.why_keras)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    backend, accuracy, *served = done.stdout.split()
    assert backend == "jax"
    assert served == ["onnxruntime", "None"]  # exported by a process of the TensorFlow backend
    assert float(accuracy) > 0.5


@pytest.mark.slow
def test_importing_keras_prints_nothing_and_neither_do_many_models() -> None:
    script = (
        "import os\n"
        "import numpy\n"
        "from leptonflow.keras_runtime.keras_models import keras\n"
        "os.write(2, b'before\\n')\n"
        "layers = keras().layers\n"
        "for _ in range(7):\n"
        "    keras().Sequential([layers.Input((1,)), layers.Dense(1)]).predict_on_batch(numpy.zeros((1, 1)))\n"
        "os.write(2, b'after\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "before\nafter\n")

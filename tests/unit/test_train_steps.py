"""Many steps in one call of the backend: they learn what the same steps learn one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.core import progress
from leptonflow.keras_runtime.train_steps import TrainSteps
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training import augmentation, batches, model_fits, workspace
from leptonflow.training.batches import Call, Material, Order, Pace
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from tests.fit_examples import CLASSES, land, pipeline

TRAINING = {"epochs": 2, "batch_size": 16, "folds": 3}
PLAIN: dict[str, Any] = {"class_weights": {"left": 3.0}}
ALL: dict[str, Any] = {
    "class_weights": "balanced", "label_smoothing": 0.1, "precision": "bfloat16",
    "optimizer": {"name": "adamw", "warmup": 0.2, "schedule": "cosine", "clip_norm": 1.0, "ema": 0.9},
    "augment": [{"flip": "both"}, {"shift": 0.1}, {"mixup": 0.2}],
}  # fmt: skip


def material(count: int = 150) -> Material:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 12, 12, 1), np.uint8)
    labels = random.integers(0, 3, count)
    numbers = np.arange(count)
    weights = np.asarray([0.5, 1.0, 2.0], np.float32)
    return Material(images, labels, CLASSES, numbers[5:], numbers[:5], numbers[:0], [str(n) for n in numbers], weights)


def gathered(config: Pipeline, of: Material, steps: int, first: int = 0) -> list[Call]:
    order = Order.of(of.kept, 7, 1, augmentation.mixup(config.training))
    return list(batches.calls(of, catalog.load(config.workload), order, 16, first, None, lambda: steps, steps))


@pytest.mark.parametrize("training", [PLAIN, pytest.param(ALL, marks=pytest.mark.slow)])
def test_what_several_steps_in_a_call_learn_is_what_they_learn_one_by_one(training: dict[str, Any]) -> None:
    config, of = pipeline(training={**TRAINING, **training}), material()
    workload = catalog.load(config.workload)
    one, many = (workspace._fresh(workload, config, CLASSES, 3, 10) for _ in range(2))
    steps, losses = TrainSteps(), []
    assert not steps.one_by_one(many.trainer, hooks=False)
    for call in gathered(config, of, 1):
        losses.append(steps.run_one(one.trainer, call.batches)["loss"][0])
    found = [steps.run(many.trainer, call.batches, 4)["loss"] for call in gathered(config, of, 4)]
    assert [len(each) for each in found] == [4, 4, 1, 1]  # 145 examples: the last, smaller batch by itself
    np.testing.assert_allclose(np.concatenate(found), losses, rtol=1e-5)
    for ours, theirs in zip(many.trainer.variables, one.trainer.variables, strict=True):
        np.testing.assert_allclose(np.asarray(ours, np.float32), np.asarray(theirs, np.float32), rtol=1e-4, atol=1e-5)


def test_the_batches_of_an_epoch_are_the_same_however_many_go_into_a_call() -> None:
    config, of = pipeline(training={**TRAINING, **ALL}), material()
    alone = gathered(config, of, 1)
    assert sorted(np.concatenate([call.numbers.ravel() for call in alone])) == sorted(of.kept)
    for calls in (gathered(config, of, 4), gathered(config, of, 3, first=2)):
        for call in calls:
            for step in range(call.steps):
                theirs = alone[call.first + step].batches
                for mine, other in zip(call.batches[2:], theirs[2:], strict=True):
                    np.testing.assert_array_equal(mine[step], other[0])
                examples = call.batches.examples[call.batches.indices[step]]
                np.testing.assert_array_equal(examples, theirs.examples[theirs.indices[0]])
    resident = batches.calls(
        of, catalog.load(config.workload), Order.of(of.kept, 7, 1, 0.2), 16, 0, of.encoded, lambda: 9, 9
    )
    for call, same in zip(resident, gathered(config, of, 9), strict=True):
        examples = call.batches.examples[call.batches.indices[: call.steps]]
        np.testing.assert_array_equal(examples, same.batches.examples[same.batches.indices[: call.steps]])


def test_a_call_lasts_half_a_second_by_what_the_last_ones_took() -> None:
    pace, seen = Pace(32), []
    for seconds in (3.0, 0.01, 0.02, 0.04, 0.08, 0.16, 3.2, 0.1):
        seen.append(pace.steps)
        pace.took(pace.steps, seconds)
    assert seen == [1, 1, 2, 4, 8, 16, 32, 5]
    pace.took(1, 60.0)
    assert pace.steps == 1


@pytest.mark.slow
def test_a_callback_of_each_step_makes_the_fit_go_step_by_step_which_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "hooked.py").write_text(
        "import keras\n"
        "SEEN = []\n"
        "def build(input, classes):\n"
        "    layers = keras.layers\n"
        "    last = layers.Dense(len(classes), activation='softmax')\n"
        "    return keras.Sequential([layers.Input(input), layers.Rescaling(1 / 255), layers.Flatten(), last])\n"
        "def of_steps(training):\n"
        "    return [keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: SEEN.append(step))]\n"
        "def of_epochs(training):\n"
        "    return [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)]\n"
    )
    curves, said = [], list[str]()
    for callbacks in ("of_steps", "of_epochs"):
        own = {"function": "hooked:build", "callbacks": f"hooked:{callbacks}"}
        config, store = pipeline(model=own, training=TRAINING, folder=tmp_path), MemoryStore("memory://hooked")
        plan, shared = land(store, config), workspace.Workspace()
        with progress.listen(to_note=said.append):
            fits = [model_fits.train_fold(store, config, plan, fold, shared) for fold in (0, 1)]
        curves.append([each.value for fit in fits for each in fit.epochs])
    import hooked  # type: ignore[import-not-found]

    steps = -(-fits[0].examples // 16)
    seen: list[int] = hooked.SEEN
    assert seen == [*range(steps)] * 4
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert [line for line in said if "per step" in line] == [
        "training makes one call per step, which is slower: a callback of model.callbacks has a hook for each batch"
    ]


SCRIPT = """
import json, sys
import numpy as np
from leptonflow.keras_runtime import jax_steps
from leptonflow.keras_runtime.train_steps import TrainSteps
from leptonflow.training import workspace
from leptonflow.workloads import catalog
from tests.fit_examples import CLASSES, pipeline
from tests.unit.test_train_steps import TRAINING, gathered, material
config, of = pipeline(training={**TRAINING, **json.loads(sys.argv[1])}), material(90)
made = [workspace._fresh(catalog.load(config.workload), config, CLASSES, 3, 10) for _ in range(3)]
steps, found = TrainSteps(), []
assert not steps.one_by_one(made[1].trainer, hooks=False)
found.append([float(steps.run_one(made[0].trainer, call.batches)["loss"][0]) for call in gathered(config, of, 1)])
calls = gathered(config, of, 3)
found.append([float(x) for call in calls for x in steps.run(made[1].trainer, call.batches, 3)["loss"]])
made[2].trainer._symbolic_build(data_batch=calls[0].batches.batch(0))
looped = jax_steps.compiled(made[2].trainer, looped=True)
found.append([float(x) for call in calls for x in looped(call.batches, 3)["loss"]])
weights = [[np.asarray(each, np.float32).ravel().tolist() for each in one.trainer.variables] for one in made]
print(json.dumps([found, weights]))
"""


@pytest.mark.slow  # a process that compiles three times
@pytest.mark.parametrize("training", [PLAIN, ALL])
def test_the_loop_on_jax_learns_the_same(training: dict[str, Any]) -> None:
    pytest.importorskip("jax", reason="jax is not installed: `pip install jax` to run this")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(training)],
        env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    losses, weights = json.loads(done.stdout)
    for ours, theirs in ((1, 0), (2, 0)):
        assert losses[ours] == pytest.approx(losses[theirs], rel=1e-3)
        for mine, other in zip(weights[ours], weights[theirs], strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-2, atol=1e-3)

"""The keys of `training:` on Keras's other backend, whose compiled steps reuse the memory of what they are given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import json, sys
from leptonflow.keras_runtime import keras_models
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training import model_fits
from leptonflow.training.workspace import Workspace
from tests.fit_examples import land, pipeline
store, config = MemoryStore("memory://jax"), pipeline(input=[12, 12, 3], training=json.loads(sys.argv[1]))
plan, workspace = land(store, config, count=60), Workspace()
for fold in range(int(sys.argv[2])):
    model_fits.train_fold(store, config, plan, fold, workspace)
final = model_fits.fit_final(store, config, plan, workspace)
assert workspace._models.trainer.jit_compile, "the whole step is compiled"
saved = keras_models.load(store.get(final.files[0].key))
print(keras_models.keras().backend.backend(), len(saved.layers), max(each.epoch for each in final.epochs))
"""
ALL: dict[str, Any] = {
    "epochs": 2, "batch_size": 16, "folds": 2, "precision": "bfloat16", "deterministic": True,
    "early_stopping": {"patience": 2, "fraction": 0.2}, "final_epochs": "folds_median",
    "class_weights": "balanced", "label_smoothing": 0.1,
    "optimizer": {"name": "adamw", "warmup": 0.1, "schedule": "cosine", "clip_norm": 1.0, "ema": 0.9},
    "augment": [
        {"flip": "both"}, {"rotate": 10}, {"shift": 0.1}, {"zoom": 0.1}, {"crop": [0.8, 1]}, {"brightness": 0.1},
        {"contrast": 0.1}, {"colour": 0.1}, {"cutout": 0.2}, {"mixup": 0.2},
    ],
}  # fmt: skip


@pytest.mark.slow  # test_devices trains with some of them in every run
def test_every_key_trains_on_jax() -> None:
    pytest.importorskip("jax", reason="jax is not installed: `pip install jax` to run this")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(ALL), "2"],
        env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    backend, layers, epochs = done.stdout.split()
    assert (backend, int(layers)) == ("jax", 8) and int(epochs) in (1, 2)

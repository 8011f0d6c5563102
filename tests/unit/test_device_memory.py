"""A fit that runs out of memory: the real error of the backend's own allocator, told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training import model_fits
from schemas.errors import TrainingError
from tests.fit_examples import land, pipeline

# No machine has so much: 2^47 numbers are 563 TB.
HUNGRY = """
import keras

class Hungry(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        keras.ops.zeros((2**47,), "float32")

def callbacks(training):
    return [Hungry()]
"""


def failure(folder: Path) -> TrainingError:
    """Of a fit whose callback asks for more than any machine has."""
    (folder / "hungry.py").write_text(HUNGRY)
    config = pipeline(model={"filters": [4], "callbacks": "hungry:callbacks"}).model_copy(update={"folder": folder})
    store = MemoryStore("memory://hungry")
    plan = land(store, config)
    with pytest.raises(TrainingError) as failed:
        model_fits.train_fold(store, config, plan, 0)
    return failed.value


def test_out_of_memory_is_a_failure_that_names_the_batch(tmp_path: Path) -> None:
    error = failure(tmp_path)
    assert error.message == "out of memory on cpu"
    assert "batches of 16 examples (training.batch_size)" in str(error.expected)
    assert "ResourceExhausted" in str(error.received) and error.exit_status == 1


@pytest.mark.slow
def test_out_of_memory_is_told_on_jax_too(tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="jax is not installed: `pip install jax` to run this")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.unit.test_device_memory import failure\n"
        "print(failure(Path(sys.argv[1])).line())\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("out of memory on cpu") and "RESOURCE_EXHAUSTED" in told.stdout

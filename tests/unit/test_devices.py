"""`training.devices`: what a number asks for, what is said where the CPU trains instead, and data parallel on JAX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import health_checks
from leptonflow.core import accelerators, progress
from leptonflow.core.hashing import digest
from leptonflow.keras_runtime import devices
from leptonflow.runs import planning
from leptonflow.storage.memory_store import MemoryStore
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, LeptonflowError
from schemas.training import Training
from tests.fit_examples import land, pipeline

CODE = {"data": "d", "train": "t", "gate": "g"}


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose driver tells of a GPU; the folder of its program."""
    for name in ("CUDA_VISIBLE_DEVICES", "XLA_FLAGS", "JAX_PLATFORMS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "driver"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"devices": 0}, r"training\.devices is not valid.*auto, or a number of devices from 1.*Received: 0"),
        ({"devices": True}, r"training\.devices is not valid.*Received: True"),
        ({"devices": "2"}, r"training\.devices is not valid.*Received: '2'"),
        ({"devices": 2.0}, r"training\.devices is not valid.*Received: 2\.0"),
        ({"devices": 3}, r"training\.devices is not valid.*divides training\.batch_size, 16.*Received: 3"),
        ({"tensorboard": "yes"}, r"training\.tensorboard.*boolean.*'yes'"),
        ({"checkpoint": 5}, r"training\.checkpoint is not valid.*Received: 5"),
        ({"checkpoint": {"minutes": 0}}, r"training\.checkpoint\.minutes.*greater than 0.*Received: 0"),
        ({"checkpoint": {"minutes": float("inf")}}, r"training\.checkpoint\.minutes.*finite"),
        ({"checkpoint": {"hours": 1}}, r"training\.checkpoint\.hours.*Received: hours"),
    ],
)
def test_a_wrong_value_is_named(training: dict[str, Any], told: str) -> None:
    from schemas.config import parse

    document = pipeline().model_dump(mode="json") | {"training": {"batch_size": 16, **training}}
    with pytest.raises(ConfigurationError, match=told):
        parse(document, where="p.yaml", folder=Path("."))


def test_where_a_fit_is_computed_and_watched_is_in_no_version() -> None:
    plain = pipeline()
    others = {"devices": 4, "tensorboard": True, "checkpoint": {"minutes": 1}}
    several = pipeline(training={**plain.training.model_dump(), **others})
    assert several.training.devices == 4 and several.training.tensorboard and several.training.checkpoint.minutes == 1
    assert several.model_dump_json() == plain.model_dump_json() and digest(several.training) == digest(plain.training)
    snapshot = land(MemoryStore("memory://any"), plain, count=3).snapshot
    assert snapshot is not None
    assert planning.ids(several, snapshot, CODE, 0) == planning.ids(plain, snapshot, CODE, 0)


def test_more_than_one_is_for_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    several: Pipeline = pipeline(training={"batch_size": 16, "devices": 2})
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(ConfigurationError, match=r"only JAX.*Received: 2 with KERAS_BACKEND=tensorflow"):
        planning.plan(MemoryStore("memory://any"), several)  # before anything is read or trained
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert planning.plan(MemoryStore("memory://any"), several).snapshot is None


def test_a_number_never_ends_on_the_cpu_by_itself(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Training(devices=1)
    with (
        pytest.raises(ConfigurationError, match=r"1 accelerator, and tensorflow sees none.*H100; not installed: nv"),
        devices.chosen(one),
    ):
        pass
    (gpu / "nvidia-smi").unlink()
    accelerators._driver.cache_clear()
    with pytest.raises(ConfigurationError, match=r"Received: the CPU alone\. devices: auto"), devices.chosen(one):
        pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with devices.chosen(one):
        assert devices.used() == ("cpu", 1, None)


def test_a_gpu_that_is_not_used_is_told_of_once(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with progress.listen(to_note=told.append):
        devices.tell_of_unused(Training())
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        devices.tell_of_unused(Training())
    (line,) = told
    assert "on the CPU, and not on NVIDIA H100: tensorflow sees no GPU (not installed: nvidia-cublas-cu12, " in line
    assert "pip install 'tensorflow[and-cuda]==2." in line and "\n" not in line


def test_the_drivers_own_folder_tells_of_a_gpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert accelerators.gpus(tmp_path) == ()
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA A10\nIRQ: 1\n")
    assert accelerators.gpus(tmp_path) == ("NVIDIA A10",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert accelerators.gpus(tmp_path) == ()


# --- doctor --------------------------------------------------------------------------------------

# As TensorFlow's: its log names what it cannot load only where the log of that source file is asked for.
TENSORFLOW = """
import os, sys
class config:
    def list_physical_devices(kind):
        if os.environ.get("TF_CPP_VMODULE") == "dso_loader=1" and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0":
            for name in LIBRARIES:
                print(f"I dso_loader.cc:70] Could not load dynamic library '{name}'; dlerror: no", file=sys.stderr)
        return SEEN
"""


@pytest.mark.parametrize(
    ("libraries", "seen", "expected"),
    [
        (["libcudnn.so.9", "libcufft.so.11"], [], "cannot load libcudnn.so.9, libcufft.so.11; not installed: nvidia-"),
        (["libcuda.so.1"], [], "libcuda.so.1 comes with NVIDIA's driver"),
        ([], ["GPU:0"], None),
    ],
)
def test_doctor_names_what_tensorflow_lacks(
    gpu: Path, monkeypatch: pytest.MonkeyPatch, libraries: list[str], seen: list[str], expected: str | None
) -> None:
    (gpu / "tensorflow.py").write_text(f"LIBRARIES, SEEN = {libraries}, {seen}\n{TENSORFLOW}")
    monkeypatch.setenv("PYTHONPATH", str(gpu))
    told = health_checks._accelerator()
    if expected is None:
        assert told == "NVIDIA H100"
    else:
        assert told.startswith("NVIDIA H100, unused: training runs on the CPU. tensorflow 2.") and expected in told
        assert "pip install 'tensorflow[and-cuda]==2." in told


@pytest.mark.slow
def test_doctor_asks_tensorflow_itself(gpu: Path) -> None:
    told = health_checks._accelerator()
    assert "unused" in told and "cannot load lib" in told and "not installed: nvidia-cublas-cu12" in told


def test_doctor_says_that_the_driver_fails(gpu: Path) -> None:
    (gpu / "nvidia-smi").write_text("#!/bin/sh\necho 'Driver/library version mismatch' >&2\nexit 18\n")
    with pytest.raises(LeptonflowError, match=r"nvidia-smi fails.*Driver/library version mismatch"):
        health_checks._accelerator()


# --- data parallel on JAX ------------------------------------------------------------------------

SCRIPT = """
import json, sys
from leptonflow.evaluation import fresh_process
fresh_process._prepare()  # what the load check does without must not be what JAX needs
from leptonflow.keras_runtime import devices
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training import model_fits
from leptonflow.training.workspace import Workspace
from schemas.errors import ConfigurationError
from schemas.training import Training
from tests.fit_examples import land, pipeline
found = {}
for number in json.loads(sys.argv[2]):
    training = {**json.loads(sys.argv[1]), "devices": number}
    store, workspace = MemoryStore("memory://any"), Workspace()
    config = pipeline(input=[12, 12, 3], model={"filters": [4], "dense": 4, "dropout": 0.25}, training=training)
    plan = land(store, config, count=70)  # not a multiple of the batch
    fits = [model_fits.train_fold(store, config, plan, fold, workspace) for fold in range(int(sys.argv[3]))]
    fits.append(model_fits.fit_final(store, config, plan, workspace))
    assert workspace._models.trainer.jit_compile, "the whole step is compiled"
    spread = {len(each.value.devices()) for each in workspace._models.trainer.variables}
    found[number] = {
        "values": [[each.metric, each.value] for fit in fits for each in fit.epochs], "device": fits[-1].cost.device,
        "spread": sorted(spread),
    }
try:
    with devices.chosen(Training(devices=8)):
        pass
except ConfigurationError as error:
    found["error"] = error.line()
print(json.dumps(found))
"""
SOME: dict[str, Any] = {
    "epochs": 2, "batch_size": 16, "folds": 2, "optimizer": {"ema": 0.9, "warmup": 0.1},
    "augment": [{"flip": "both"}, {"mixup": 0.2}],
}  # fmt: skip
ALL: dict[str, Any] = {
    **SOME, "epochs": 3, "class_weights": "balanced", "early_stopping": {"patience": 2, "fraction": 0.2},
    "optimizer": {"name": "adamw", "warmup": 0.1, "schedule": "cosine", "clip_norm": 1.0, "ema": 0.9},
    "augment": [{"flip": "both"}, {"shift": 0.1}, {"brightness": 0.1}, {"mixup": 0.2}],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "numbers", "folds"),
    [(SOME, ["auto", 4], 0), (ALL, ["auto", 1, 2, 4], 2)],
)
def test_several_devices_learn_what_one_does(training: dict[str, Any], numbers: list[Any], folds: int) -> None:
    pytest.importorskip("jax", reason="jax is not installed: `pip install jax` to run this")
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(training), json.dumps(numbers), str(folds)],
        env={**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    one = found["auto"]
    assert one["device"] == "cpu" and one["spread"] == [1]
    for number in numbers[1:]:
        several = found[str(number)]
        assert several["spread"] == [number]
        assert several["device"] == ("cpu" if number == 1 else ", ".join(f"cpu:{n}" for n in range(number)))
        assert [name for name, _ in several["values"]] == [name for name, _ in one["values"]]
        values = [value for _, value in several["values"]]
        assert values == pytest.approx([value for _, value in one["values"]], rel=1e-3, abs=1e-4)
    assert "training.devices is 8, and jax sees 4 devices" in found["error"]
    assert "at most 4: cpu:0, cpu:1, cpu:2, cpu:3" in found["error"]

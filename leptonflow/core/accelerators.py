"""What the machine's accelerator can do, asked of its driver, so that planning needs no heavy library.

What does not belong here: which devices Keras's backend has found (keras_runtime.devices).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from leptonflow.core.code_digests import backend
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, LeptonflowError
from schemas.training import Training

BFLOAT16 = 8.0  # the first compute capability of NVIDIA's with matrix units for it: Ampere, 2020
PATIENCE = 20  # seconds; a driver that starts up takes some
DRIVER = Path("/proc/driver/nvidia")
EXTRAS = {"tensorflow": "and-cuda", "jax": "cuda12"}  # of the backend's package: what it needs for NVIDIA's GPUs
SHOWN = 4


def precision(training: Training) -> str:
    """float32 or bfloat16: that of the YAML, where auto is bfloat16 if every GPU of the machine is fast in it."""
    if training.precision != "auto":
        return training.precision
    try:
        found = () if hidden() else tuple(float(each) for each in driver("compute_cap"))
    except (LeptonflowError, ValueError):  # a driver that fails, or that answers otherwise
        found = ()
    return "bfloat16" if found and min(found) >= BFLOAT16 else "float32"


def fixed(config: Pipeline, precision: str) -> Pipeline:
    """The pipeline with that precision in place of auto, for a fit that may see other GPUs than its run does."""
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})


def check(training: Training) -> None:
    """Raises ConfigurationError where the YAML wants more devices for a fit than its backend can ever use."""
    if training.devices != "auto" and training.devices > 1 and backend() != "jax":
        raise ConfigurationError(
            "training.devices is more than 1, which only JAX can train on",
            expected="training.devices auto or 1, or KERAS_BACKEND=jax",
            received=f"{training.devices} with KERAS_BACKEND={backend()}",
            hint="Set the variable before the command starts, or change training.devices",
        )


def hidden() -> bool:
    """Whether the environment hides NVIDIA's GPUs from every library."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def cpu_is_meant() -> bool:
    """Whether the environment says that the CPU computes: GPUs are hidden, or the backend is told so."""
    if hidden():
        return True
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    return backend() == "jax" and (forced or os.environ.get("JAX_PLATFORMS") == "cpu")


def gpus(driver_folder: Path = DRIVER) -> tuple[str, ...]:
    """The NVIDIA GPUs of the machine, as their driver names them; none where the environment hides them."""
    if hidden():
        return ()
    try:
        told = driver("name")
    except LeptonflowError:
        told = ()
    return told or tuple(_model(each) for each in sorted(driver_folder.glob("gpus/*/information")))


def _model(information: Path) -> str:
    found = re.search(r"^Model:\s*(.+?)\s*$", information.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else "an NVIDIA GPU"


def driver(query: str) -> tuple[str, ...]:
    """The driver's answer for each NVIDIA GPU; none without its program nvidia-smi.

    Raises LeptonflowError where that fails.
    """
    return _driver(query, os.environ.get("PATH"))


@lru_cache
def _driver(query: str, path: str | None) -> tuple[str, ...]:
    """path: where the program is looked for."""
    try:
        told = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=True,
        ).stdout  # fmt: skip
    except FileNotFoundError:
        return ()
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout).split())[:200] or f"status {error.returncode}"
        raise LeptonflowError("nvidia-smi fails", expected="a driver that answers", received=said) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise LeptonflowError("nvidia-smi fails", expected="a driver that answers", received=str(error)) from None
    return tuple(line.strip() for line in told.splitlines() if line.strip())


class Missing(NamedTuple):
    """What the backend lacks for NVIDIA's GPUs. packages: not installed; command: what installs them."""

    packages: tuple[str, ...]
    command: str

    def told(self) -> str:
        """For a message: which packages are not installed."""
        if not self.packages:
            return "all its CUDA packages are installed"
        more = len(self.packages) - SHOWN
        return "not installed: " + ", ".join(self.packages[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def missing() -> Missing:
    """By the requirements that the backend's own package states for GPUs; nothing is imported."""
    name = backend()
    extra = EXTRAS.get(name)
    if extra is None:
        return Missing((), f"see how {name} is installed for GPUs")
    asked = [line for line in metadata.requires(name) or () if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in asked]
    absent = tuple(sorted({each for each in names if not _installed(each)}))
    return Missing(absent, f"pip install '{name}[{extra}]=={metadata.version(name)}'")


# Prints the GPUs that the backend sees, one a line, in a process of its own: to import one takes seconds and memory.
PROBES = {
    "tensorflow": "import tensorflow as tf; print(*tf.config.list_physical_devices('GPU'), sep='\\n')",
    "jax": "import jax; print(*(each for each in jax.devices() if each.platform != 'cpu'), sep='\\n')",
}
# TensorFlow names a library that it cannot load here and nowhere else: a run has its log switched off.
LOUD = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
LIBRARY = re.compile(r"Could not load dynamic library '([^']+)'")
OF_THE_DRIVER = "libcuda.so.1"


def unused() -> str | None:
    """Why the backend sees none of the machine's GPUs, and what to do; None where it sees one. Takes seconds.

    Raises LeptonflowError where the backend cannot be imported.
    """
    name = backend()
    if name not in PROBES:
        return None
    environment = {**os.environ, **LOUD}
    try:
        asked = subprocess.run(
            [sys.executable, "-c", PROBES[name]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=120, check=True, env=environment,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [f"status {error.returncode}"])[-1]
        raise LeptonflowError(f"{name} cannot be asked for its GPUs", expected="a list", received=said[:200]) from None
    except subprocess.TimeoutExpired as error:
        raise LeptonflowError(f"{name} cannot be asked for its GPUs", expected="a list", received=str(error)) from None
    if asked.stdout.strip():
        return None
    libraries = sorted(set(LIBRARY.findall(asked.stderr)))
    lacks = missing()
    why = [f"cannot load {', '.join(libraries)}"] if libraries else []
    what = [lacks.command] if lacks.packages or not libraries else []
    if OF_THE_DRIVER in libraries:
        what.insert(0, f"{OF_THE_DRIVER} comes with NVIDIA's driver, or with a container that is started with its GPUs")
    elif libraries and not what:
        what = ["LD_LIBRARY_PATH must lead to them"]
    return f"{name} {metadata.version(name)} sees none: {'; '.join([*why, lacks.told()])}. {'; '.join(what)}"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True

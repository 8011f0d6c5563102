"""Keras, imported in silence, and what every holder of a model does with it: build, reset, predict, save, load.

Backend-neutral: nothing here names TensorFlow, JAX or PyTorch except to switch XLA off. What does
not belong here: examples, folds, stores, and which model a workload builds.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonflow.core import garbage_collection, progress, spools
from leptonflow.core.code_digests import backend
from schemas.errors import ConfigurationError, LeptonflowError, TrainingError, words_of
from schemas.settings import quiet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Two processes share an accelerator (training, and infra-validation beside it), and TensorFloat-32 would make
# their predictions differ by more than any tolerance worth having.
DEVICE = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "NVIDIA_TF32_OVERRIDE": "0",
}
# What the C++ side of a backend writes before any switch can silence it.
NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} [\d:. ]+\S+\.cc:\d+\]"
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IWE] \S+\.cc:\d+\]|To enable the following instructions:"
)
# JAX alone, for TensorFlow's converters, costs every process a second and 100 MB.
UNUSED = ("jax", "pandas", "matplotlib")
_IMPORT = threading.Lock()  # a process imports Keras once


def keras(unused: Sequence[str] = UNUSED) -> Any:
    """The keras module. Its first import takes seconds and prints nothing.

    unused: what Keras and its backend would import wherever it is installed, and nobody needs here.

    Raises ConfigurationError where the backend of KERAS_BACKEND cannot be imported.
    """
    if "keras" in sys.modules and not _IMPORT.locked():
        import keras as module

        return module
    with _IMPORT:
        quiet()
        for name, value in DEVICE.items():
            os.environ.setdefault(name, value)
        with _without_noise(), garbage_collection.paused():  # collections take a sixth of the import
            try:
                with _hidden([name for name in unused if name != backend()]):
                    import keras as module
            except ImportError as error:
                raise ConfigurationError(
                    "Keras cannot be imported",
                    expected=f"the backend {backend()}, completely installed",
                    received=words_of(error),
                    hint="`leptonflow doctor` says what this machine has; KERAS_BACKEND names the backend",
                ) from error
            # TensorFlow warns of many traces, each time a model is built anew: it is for who writes such code.
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
            # A ~/.keras/keras.json of the user's own must not change what a pipeline trains.
            module.config.set_image_data_format("channels_last")
            module.config.set_floatx("float32")
            module.ops.convert_to_numpy(module.ops.zeros(1))  # opens the device, which logs too
    return module


@contextmanager
def _hidden(names: Sequence[str]) -> Iterator[None]:
    """To the import system, these modules are not installed; those that are imported already stay."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _without_noise() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and pass on all but known noise afterwards."""
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all: nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held.read().splitlines(keepends=True):
                if not NOISE.match(line):
                    os.write(2, line)


def jit() -> bool | str:
    """XLA gains a small CNN nothing on TensorFlow and costs it a compilation; JAX is nothing without it."""
    return False if backend() == "tensorflow" else "auto"


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and Keras. Keras imports TensorFlow for it wherever that is installed."""
    if "tensorflow" in sys.modules:
        keras().utils.set_random_seed(seed)
        return
    module = keras()
    with _without_noise():
        module.utils.set_random_seed(seed)


def in_bfloat16(model: Any) -> Any:
    """A copy that computes in bfloat16, but for its last layer; its weights are float32. It has the values of `model`.

    It is of Keras's own layers, as a model that can be saved and loaded is.
    """
    module, last = keras(), model
    while getattr(last, "layers", None):  # a model may be the last layer of another
        last = last.layers[-1]

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        # Probabilities and their logarithm need more digits; an operation between layers has no precision.
        if isinstance(layer, module.layers.Layer) and layer is not last:
            config["dtype"] = "mixed_bfloat16"
        return type(layer).from_config(config)

    copy = module.models.clone_model(model, clone_function=copied, recursive=True)
    for new, old in zip(copy.variables, model.variables, strict=True):
        new.assign(module.ops.copy(old.value))
    return copy


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """In this block the backend uses only operations that give the same bits each time, if that is wanted.

    Raises ConfigurationError where the backend cannot: PyTorch's, and JAX on a GPU without the flag of XLA.
    """
    if not wanted:
        yield
        return
    module = keras()
    if backend() == "tensorflow":
        own = sys.modules["tensorflow.python.framework.config"]  # the public module cannot switch it off again
        own.enable_op_determinism()
        try:
            yield
        finally:
            own.disable_op_determinism()
        return
    flag = "--xla_gpu_deterministic_ops=true"
    cpu = backend() == "jax" and all(str(each).startswith("cpu") for each in module.distribution.list_devices())
    if not cpu and (backend() != "jax" or flag not in os.environ.get("XLA_FLAGS", "")):
        raise ConfigurationError(
            "training.deterministic is true, which the backend is not ready for",
            expected=f"TensorFlow, or JAX started with XLA_FLAGS={flag}",
            received=f"KERAS_BACKEND={backend()}",
            hint="Set the variable before the command starts, or remove training.deterministic",
        )
    yield


class _Chance:
    """Python's `random` as one thread is to see it: a generator of its own. All others keep the global one."""

    def __init__(self, seed: int) -> None:
        self._own = random.Random(seed)
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own if threading.get_ident() == self._thread else random, name)


@contextmanager
def _own_chance(seed: int) -> Iterator[None]:
    """Let Keras draw the seeds of layers from a generator that no other thread draws from.

    It takes them from Python's global one, which every thread of the process shares: a pause of Prefect's
    client between the seeding and the building gave a fit other first weights than its seed's.
    """
    source = sys.modules.get("keras.src.random.seed_generator")
    before = getattr(source, "python_random", None)
    if source is None or before is None:  # a Keras that draws elsewhere
        yield
        return
    source.python_random = _Chance(seed)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        source.python_random = before  # type: ignore[attr-defined]


def batch_size(encoded: NDArray[Any]) -> int:
    """Examples in one prediction: 256 small ones, fewer of a size whose activations would fill the memory."""
    area = int(encoded.shape[1] * encoded.shape[2]) if encoded.ndim > 2 else 1
    return min(256, max(16, 2**20 // max(1, area)))


def predict(model: Any, encoded: NDArray[Any], numbers: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Outputs N x K of N encoded examples, the first axis N; numbers: of N of them.

    Every batch has the same shape, the last one padded with zeros, so that nothing is traced twice.
    """
    import numpy as np

    size = batch_size(encoded)
    numbers = np.arange(len(encoded)) if numbers is None else numbers
    found: list[NDArray[np.float64]] = []
    for start in range(0, len(numbers), size):
        progress.pulse()
        chosen = numbers[start : start + size]
        count = len(chosen)
        batch = np.zeros((size, *encoded.shape[1:]), encoded.dtype)
        spools.gather(encoded, chosen, batch[:count])
        found.append(np.asarray(model.predict_on_batch(batch), np.float64)[:count])
    return np.concatenate(found) if found else np.zeros((0, model.output_shape[-1]), np.float64)


def uncompiled(model: Any, objects: Mapping[str, Any] | None = None) -> Any:
    """The model, or where it is compiled one of the same layers that is not. Its variables are new then.

    objects: classes and functions that are not Keras's own, by the names that they are saved under.
    """
    if not model.compiled:
        return model
    with keras().saving.custom_object_scope(dict(objects or {})):
        return type(model).from_config(model.get_config())


def save(model: Any) -> bytes:
    """The model as the bytes of a `.keras` file. It should be uncompiled: the optimiser doubles its size.

    Raises LeptonflowError where the disk of temporary files is full.
    """
    with _model_file() as path:
        model.save(path)
        return path.read_bytes()


def load(data: bytes, objects: Mapping[str, Any] | None = None) -> Any:
    """The model in the bytes of a `.keras` file, not compiled. Code in it is never run (safe mode).

    objects: classes and functions in it that are not Keras's own, by the names that they are saved under.
    """
    module = keras()
    with _model_file() as path:
        path.write_bytes(data)
        try:
            model = module.saving.load_model(path, dict(objects or {}), compile=False, safe_mode=True)
        except Exception as error:
            if _no_room(error):
                raise
            raise TrainingError(
                "Keras cannot load the saved model",
                expected="a .keras file of Keras's own layers",
                received=_first_line(error),
                hint="Was it saved by another version of Keras? `leptonflow doctor` names this one",
            ) from error
    model.jit_compile = jit() is not False
    return model


@contextmanager
def _model_file() -> Iterator[Path]:
    """The path of a file of this block's own, for a model. Raises LeptonflowError where the disk is full."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "model.keras"
    except OSError as error:
        if not _no_room(error):
            raise
        raise LeptonflowError(
            "a model cannot be written to the folder of temporary files",
            expected=f"room for it in {tempfile.gettempdir()}",
            received=os.strerror(errno.ENOSPC),
            hint="Free some space there, or let TMPDIR name a folder with more room, and run the same command again",
        ) from error


def _no_room(error: Exception) -> bool:
    """HDF5's errors have no number."""
    return isinstance(error, OSError) and (error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error))


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]

"""A model in the ONNX format, opened in ONNX Runtime, which no other module imports.

What does not belong here: making such a model (onnx_export), and whether it is served (served_models).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.keras_runtime import keras_models
from schemas.errors import TrainingError, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rows = tuple["NDArray[np.float64]", "NDArray[np.float32] | None"]  # outputs (N, K), features (N, F)
Compute = Callable[["NDArray[Any]"], Rows]
TYPES = {"float": "float32", "double": "float64"}  # ONNX's names of types that NumPy calls otherwise
TOLERANCE = 1e-5  # between a version's predictions, wherever and by whatever they are computed


def opened(data: bytes, threads: int | None = None) -> Compute:
    """N encoded examples -> their outputs and features, of the model in these verified bytes. Threads may share it.

    threads: of one prediction; by default one for each core. Raises TrainingError where they are no such model.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # An arena keeps the most that any batch needed, and a pattern is kept for each size of batch.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a thread that waits uses no core
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (source,) = session.get_inputs()
        kind = source.type.removeprefix("tensor(").removesuffix(")")
        takes = np.dtype(TYPES.get(kind, kind))  # Keras would convert what it is given itself
    except Exception as error:
        raise TrainingError(
            "ONNX Runtime cannot load the model",
            expected="a model of the ONNX format with one input",
            received=words_of(error),
            hint="Was it exported for a newer ONNX Runtime?",
        ) from error

    def compute(encoded: NDArray[Any]) -> Rows:
        try:
            rows, *features = session.run(None, {source.name: encoded.astype(takes, copy=False)})
        except Exception as error:
            raise TrainingError("ONNX Runtime failed to predict", received=words_of(error)) from error
        return np.asarray(rows, np.float64), features[0] if features else None

    return compute


def in_batches(compute: Compute, encoded: NDArray[Any]) -> Rows:
    """The same of any number of examples, whose activations fit into memory a batch at a time."""
    import numpy as np

    size = keras_models.batch_size(encoded)
    parts = [compute(encoded[at : at + size]) for at in range(0, max(1, len(encoded)), size)]
    features = [np.asarray(each, np.float32) for _, each in parts if each is not None]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate(features) if features else None


def largest(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float | None:
    """The largest absolute difference of predictions, None for other shapes or what is no number."""
    import numpy as np

    if any(found.shape != expected.shape or not np.isfinite(found).all() for found, expected in pairs):
        return None
    return float(max((np.abs(found - expected).max() for found, expected in pairs if expected.size), default=0.0))


def unlike(difference: float | None) -> str | None:
    """Why a model that differs so much from Keras is not served; None where it may be."""
    if difference is None:
        return "ONNX Runtime gave another shape or non-finite numbers"
    if difference <= TOLERANCE:
        return None
    return f"ONNX Runtime differed from Keras by up to {difference:.2g}; at most {TOLERANCE:g} is allowed"

"""A version as it is served: what its package predicts, one caller at a time, in the lightest runtime that can.

What does not belong here: HTTP, which version is served (the champion log), and what an output means (the workload's
target).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leptonflow.keras_runtime import keras_models
from leptonflow.registry import packages
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.records import ModelManifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rows = tuple["NDArray[np.float64]", "NDArray[np.float32] | None"]  # outputs (N, K), features (N, F)
KERAS = "keras"


@dataclass(frozen=True)
class ServedModel:
    """A loaded version, every file that is used of it held against its manifest.

    runtime    what computes its predictions: onnxruntime or keras
    why_keras  why it is Keras; None where it is not
    """

    manifest: ModelManifest
    manifest_sha256: str
    runtime: str
    why_keras: str | None
    vocabulary: str | None
    _compute: Callable[[NDArray[Any]], Rows]

    @property
    def classes(self) -> tuple[str, ...]:
        """The K columns of the outputs, in order; () of a workload without classes."""
        return self.manifest.classes

    def encode(self, examples: NDArray[Any]) -> NDArray[Any]:
        """What the model takes of N examples, the first axis N. Raises TrainingError for others than its workload's."""
        workload = catalog.load(self.manifest.workload)
        return workload.encode(examples, self.vocabulary, self.manifest.input)

    def predict_encoded(self, encoded: NDArray[Any]) -> Rows:
        """N encoded examples -> outputs (N, K) float64, and what the model's last layer gets of them: features (N, F).

        The outputs are those of `Package.predict` within 1e-5. Features are float32, and None where the last layer
        does not take a row of numbers for each example.
        """
        import numpy as np

        size = keras_models.batch_size(encoded)
        parts = [self._compute(encoded[at : at + size]) for at in range(0, max(1, len(encoded)), size)]
        features = [np.asarray(each, np.float32) for _, each in parts if each is not None]
        return np.concatenate([rows for rows, _ in parts]), np.concatenate(features) if features else None


def load(
    store: Store, pipeline: str, version: str, manifest_sha256: str | None = None, code: bool = False
) -> ServedModel:
    """The version, ready to be served. code: whether its own code may be run, as in `packages.load`.

    Raises NotFound, Damaged naming the file, or TrainingError where this Keras cannot load it, or may not.
    """
    package = packages.load(store, pipeline, version, manifest_sha256, code)
    return ServedModel(
        manifest=package.manifest,
        manifest_sha256=package.manifest_sha256,
        runtime=KERAS,
        why_keras="its package has no model in the ONNX format",
        vocabulary=package.vocabulary,
        _compute=_in_keras(package.model),
    )


def _in_keras(model: Any) -> Callable[[NDArray[Any]], Rows]:
    both = with_features(model)

    def compute(encoded: NDArray[Any]) -> Rows:
        import numpy as np

        count = len(encoded)
        # Batches of powers of two: each size that a model sees for the first time is traced or compiled.
        batch = np.zeros((1 << max(0, count - 1).bit_length(), *encoded.shape[1:]), encoded.dtype)
        batch[:count] = encoded
        rows, features = both.predict_on_batch(batch) if both else (model.predict_on_batch(batch), None)
        return np.asarray(rows, np.float64)[:count], None if features is None else features[:count]

    return compute


def with_features(model: Any) -> Any | None:
    """A model of the same layers with a second output, what the last layer gets: (N, F). None where that is no row.

    So it is of a model that is no graph of layers, such as a subclass of keras.Model.
    """
    try:
        last, outputs = model.layers[-1].input, model.outputs
        if len(outputs or ()) != 1 or len(getattr(last, "shape", ())) != 2:
            return None
        return keras_models.keras().Model(model.inputs, [outputs[0], last])
    except (AttributeError, IndexError, ValueError):  # Keras: never called, called twice, or of a graph of its own
        return None

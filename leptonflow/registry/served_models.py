"""A version as it is served: what its package predicts, in the lightest runtime that can; threads may share it.

What does not belong here: HTTP, which version is served (the champion log), and what an output means (the workload's
target).
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leptonflow.core import store_keys
from leptonflow.registry import onnx_session, packages
from leptonflow.registry.onnx_export import with_features
from leptonflow.registry.onnx_session import Compute, Rows
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.errors import LeptonflowError, TrainingError
from schemas.export import Export
from schemas.records import ModelManifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KERAS, ONNX = "keras", "onnxruntime"


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
    _compute: Compute

    @property
    def classes(self) -> tuple[str, ...]:
        """The K columns of the outputs, in order; () of a workload without classes."""
        return self.manifest.classes

    def encode(self, examples: NDArray[Any]) -> NDArray[Any]:
        """What the model takes of N examples, the first axis N. Raises TrainingError for others than its workload's."""
        workload = catalog.load(self.manifest.workload)
        return workload.encode(examples, self.vocabulary, self.manifest.input)

    def predict(self, examples: NDArray[Any]) -> NDArray[np.float64]:
        """The outputs (N, K) for N examples. Raises TrainingError for others than its workload's."""
        return self.predict_encoded(self.encode(examples))[0]

    def predict_encoded(self, encoded: NDArray[Any]) -> Rows:
        """N encoded examples -> outputs (N, K) float64, and what the model's last layer gets of them: features (N, F).

        The outputs are those of `Package.predict` within 1e-5. Features are float32, and None where the last layer
        does not take a row of numbers for each example.
        """
        return onnx_session.in_batches(self._compute, encoded)


def load(
    store: Store,
    pipeline: str,
    version: str,
    manifest_sha256: str | None = None,
    code: bool = False,
    threads: int | None = None,
) -> ServedModel:
    """The version, ready to be served: in ONNX Runtime where its package has a model for it that agrees with Keras.

    code: whether its own code may be run, as in `packages.load`; ONNX Runtime needs none. threads: of one prediction in
    ONNX Runtime, by default one for each core.

    Raises NotFound, Damaged naming the file, or TrainingError where this Keras cannot load it, or may not.
    """
    found, digest = packages.checked_manifest(store, pipeline, version, manifest_sha256)
    compute = _in_onnx(store, found, threads)
    if not isinstance(compute, str):
        return ServedModel(found, digest, ONNX, None, packages.vocabulary(store, found), compute)
    package = packages.load(store, pipeline, version, digest, code)
    return ServedModel(found, digest, KERAS, compute, package.vocabulary, _in_keras(package.model))


def _in_onnx(store: Store, manifest: ModelManifest, threads: int | None) -> Compute | str:
    """The package's exported model, or why it is not the one that is served."""
    data = packages.read_file(store, manifest, packages.ONNX)
    if data is None:
        told = packages.read_file(store, manifest, packages.EXPORT)
        if told is None:
            return "its package is of a release that exported no model"
        return Export.model_validate_json(told).reason or "its package has no exported model"
    for key in store.keys(store_keys.load_checks_folder(manifest.pipeline, manifest.version)):
        with suppress(ValueError, AttributeError, LeptonflowError):  # garbage is no finding: the load check tells of it
            if why := json.loads(store.get(key)).get("onnx"):
                return str(why)
    try:
        compute = onnx_session.opened(data, threads)
        inputs, expected = packages.read_reference(store, manifest)
        encoded = catalog.load(manifest.workload).encode(inputs, packages.vocabulary(store, manifest), manifest.input)
        rows, _ = onnx_session.in_batches(compute, encoded)
    except TrainingError as error:
        return error.line()
    return onnx_session.unlike(onnx_session.largest([(rows, expected)])) or compute


def _in_keras(model: Any) -> Compute:
    both, one_at_a_time = with_features(model), threading.Lock()  # Keras traces a new shape in whichever thread asks

    def compute(encoded: NDArray[Any]) -> Rows:
        import numpy as np

        count = len(encoded)
        # Batches of powers of two: each size that a model sees for the first time is traced or compiled.
        batch = np.zeros((1 << max(0, count - 1).bit_length(), *encoded.shape[1:]), encoded.dtype)
        batch[:count] = encoded
        with one_at_a_time:
            rows, features = both.predict_on_batch(batch) if both else (model.predict_on_batch(batch), None)
        return np.asarray(rows, np.float64)[:count], None if features is None else features[:count]

    return compute

"""A version that is ready to be served: loaded, warmed up, and seen to predict what its package says.

Which version that is does not belong here (champion_watch).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.registry import packages, served_models
from leptonflow.registry.onnx_session import TOLERANCE, Rows
from leptonflow.registry.served_models import ServedModel
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Workload
from schemas import own_model
from schemas.config import Pipeline
from schemas.errors import Damaged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OWN_CODE = threading.Lock()  # versions import their own code under the same names: one after another


@dataclass(frozen=True)
class Live:
    """A version with its canary: some examples as a part holds them, and the outputs that its package records."""

    served: ServedModel
    workload: Workload
    canary: list[bytes]
    recorded: NDArray[np.float64]

    @property
    def version(self) -> str:
        return self.served.manifest.version

    def predict(self, encoded: Sequence[bytes]) -> Rows:
        """Outputs (N, K) and features (N, F) or None of N examples as a part holds them."""
        examples = self.workload.codec.stack(encoded, self.served.manifest.input)
        return self.served.predict_encoded(self.served.encode(examples))

    def input_statistics(self, encoded: Sequence[bytes]) -> list[dict[str, float]]:
        """The workload's numbers of N examples as the model takes them; [] where it has none."""
        if self.workload.input_statistics is None:
            return []
        shape = self.served.manifest.input
        found = self.workload.input_statistics(self.workload.codec.stack(encoded, shape), shape)
        rows = zip(*(values.tolist() for values in found.values()), strict=True)
        return [dict(zip(found, row, strict=True)) for row in rows]

    def check(self, outputs: NDArray[np.float64], first: int = 0) -> None:
        """Raises Damaged where the outputs are not those that the package records of the canary from `first` on."""
        import numpy as np

        recorded = self.recorded[first : first + len(outputs)]
        worst = float(np.abs(outputs - recorded).max()) if outputs.shape == recorded.shape else np.inf
        if not worst <= TOLERANCE:  # NaN too
            raise Damaged(
                f"the version {self.version} does not predict here what its package records",
                expected=f"its own predictions of {len(recorded)} examples within {TOLERANCE:g}",
                received=f"a difference of {worst:.2g}" if np.isfinite(worst) else "another shape or no finite numbers",
                hint="`leptonflow rollback` goes back to an earlier version",
            )


def load(store: Store, config: Pipeline, version: str, manifest_sha256: str | None) -> Live:
    """The version, warmed up for every size of batch, its canary replayed.

    Raises NotFound, Damaged or TrainingError where it cannot be served, StoreUnreachable.
    """
    code = own_model.runs_code(config.model)
    threads = config.serving.threads
    with _OWN_CODE if code else nullcontext():
        served = served_models.load(store, config.name, version, manifest_sha256, code, threads)
    workload = catalog.load(served.manifest.workload)
    examples, recorded = packages.read_reference(store, served.manifest)
    live = Live(served, workload, workload.codec.raw(examples), recorded)
    size = 1
    while size < min(config.serving.batch, len(live.canary)):
        live.predict(live.canary[:size])
        size *= 2
    outputs, _ = live.predict(live.canary)
    live.check(outputs)
    return live

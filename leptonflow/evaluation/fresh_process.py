"""A process that loads a package as it lies on the store, and answers what it predicts and how long that takes.

`python -m leptonflow.evaluation.fresh_process` is that process. It imports Keras at once and then waits for requests,
so that it can start beside the final fit; before it is asked about a package it exports the package's model. What does
not belong here: whether its answer is good enough (load_check), and the export (onnx_export).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from leptonflow.core.code_digests import backend
from leptonflow.core.request_process import RequestProcess, answer_requests
from leptonflow.registry import latency, onnx_export, onnx_session
from leptonflow.storage.address import open_store
from leptonflow.storage.objects import steady
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import LeptonflowError, StoreUnreachable, line_of
from schemas.records import SnapshotRef

HOLDOUT_EXAMPLES = 256


class FreshProcess(RequestProcess):
    """One that imports Keras and then waits for requests. It ends with the `with` block, or with this process."""

    def __init__(self) -> None:
        super().__init__("leptonflow.evaluation.fresh_process")


# --- the fresh process ---------------------------------------------------------------------------


def main() -> None:
    """Import Keras, and answer requests until standard input ends."""
    answer_requests(_prepare, lambda request: onnx_export.answer(request) or _answer(request))


def _prepare() -> None:
    from leptonflow.keras_runtime.keras_models import UNUSED, keras

    # It loads and predicts: 130 MB less beside the final fit. JAX cannot be imported without scipy.
    keras(unused=(*UNUSED, "sklearn", *(() if backend() == "jax" else ("scipy",))))
    import pyarrow.parquet  # noqa: F401 - loaded while the parent still trains

    from leptonflow.registry import packages  # noqa: F401


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from leptonflow.registry import packages

    try:
        store = open_store(request["store"])
        named = (request["pipeline"], request["version"], request["manifest_sha256"])
        package = packages.load(store, *named, code=request["code"])
        inputs, expected = packages.read_reference(store, package.manifest)
        shown = [inputs]
        pairs = [(package.predict(inputs), expected)]
        if request["holdout"] is not None:
            holdout, recorded = _holdout(store, **request["holdout"])
            shown.append(holdout)
            pairs.append((package.predict(holdout), recorded))
        garbage, malformed = _garbage(package)
        measured = {
            "garbage": garbage,
            "malformed": malformed,
            # `predict` would fill the batch up
            "latency_ms": latency.single(package.model.predict_on_batch, package.encode(inputs)),
            **_in_onnx(store, package, [(each, found) for each, (found, _) in zip(shown, pairs, strict=True)]),
        }
    except StoreUnreachable as error:
        return {"unreachable": error.message}
    except Exception as error:  # noqa: BLE001 - a package that breaks a library is a finding, not a crash
        return {"error": line_of(error)}
    return {
        "largest_difference": onnx_session.largest(pairs),
        "examples": sum(len(expected) for _, expected in pairs),
        **measured,
    }


def _holdout(store: Store, config: dict[str, Any], snapshot: dict[str, Any], predictions: str) -> tuple[Any, Any]:
    """(up to 256 holdout examples, the recorded outputs), read from their parts as evaluation read them."""
    from leptonflow.data.dataset import example_sets
    from leptonflow.workloads import catalog
    from leptonflow.workloads.predictions import read

    pipeline = Pipeline.model_validate_json(json.dumps(config))
    state = SnapshotRef.model_validate(snapshot)
    _, _, recorded = read(catalog.load(pipeline.workload).target, steady(store, predictions), state.classes)
    inputs = example_sets.holdout_set(store, pipeline, state).inputs[:HOLDOUT_EXAMPLES]
    return inputs, recorded[:HOLDOUT_EXAMPLES]


def _in_onnx(store: Store, package: Any, predicted: list[tuple[Any, Any]]) -> dict[str, Any]:
    """{onnx_difference, onnx}: how the package's model.onnx differs from Keras on (examples, Keras's outputs)."""
    from leptonflow.registry import packages

    data = packages.read_file(store, package.manifest, packages.ONNX)
    if data is None:
        return {}
    try:
        compute = onnx_session.opened(data)
        pairs = [(onnx_session.in_batches(compute, package.encode(each))[0], found) for each, found in predicted]
    except Exception as error:  # noqa: BLE001 - then Keras serves it
        return {"onnx": f"ONNX Runtime failed: {' '.join(str(error).split())[:300]}"}
    difference = onnx_session.largest(pairs)
    return {"onnx_difference": difference, "onnx": onnx_session.unlike(difference)}


def _garbage(package: Any) -> tuple[str | None, int]:
    """(the first malformed input that was answered with anything but an error, how many were tried)."""
    from leptonflow.workloads import catalog

    workload, own = catalog.load(package.manifest.workload), package.manifest.input
    wrong = workload.malformed(own)
    tried: dict[str, Callable[[], Any]] = {name: partial(package.predict, each) for name, each in wrong.arrays.items()}
    tried |= {name: partial(workload.request, body, own) for name, body in wrong.bodies.items()}
    for name, call in tried.items():
        try:
            call()
        except LeptonflowError:
            continue
        return name, len(tried)
    return None, len(tried)


if __name__ == "__main__":
    main()

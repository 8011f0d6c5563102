"""A process that loads a package as it lies on the store, and answers what it predicts and how long that takes.

`python -m leptonflow.evaluation.fresh_process` is that process. It imports Keras at once and then waits for one
request, so that it can start beside the final fit; it ends with its standard input. What does not belong here: whether
its answer is good enough (load_check).
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from leptonflow.core.child_processes import python_path
from leptonflow.core.code_digests import backend
from leptonflow.core.deadlines import Limit
from leptonflow.storage.address import open_store
from leptonflow.storage.objects import steady
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import LeptonflowError, StoreUnreachable
from schemas.records import SnapshotRef
from schemas.settings import quiet

HOLDOUT_EXAMPLES = 256
SINGLE_EXAMPLES = 50  # answered one at a time, after some that do not count
WARM_UP = 5


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]


class FreshProcess:
    """One that imports Keras and then waits for one request. It ends with the `with` block, or with this process."""

    def __init__(self) -> None:
        self._child: _Child | None = None

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(self, *_: object) -> None:
        child, self._child = self._child, None
        if child is not None:
            _end(child)

    def start(self) -> None:
        """Start it, unless one waits already."""
        if self._child is not None:
            if self._child.process.poll() is None:
                return
            _end(self._child)  # it has died waiting
        quiet()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "leptonflow.evaluation.fresh_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            env={**os.environ, "PYTHONPATH": python_path()},
        )  # fmt: skip
        self._child = _Child(process, errors)

    def ask(self, request: dict[str, Any], limit: Limit) -> dict[str, Any]:
        """Its answer, or {"error": why there is none}. Raises TimeLimit."""
        self.start()
        child, self._child = self._child, None
        assert child is not None
        try:
            output, _ = child.process.communicate(json.dumps(request).encode() + b"\n", timeout=max(0.0, limit.left()))
            child.errors.seek(0)
            told = child.errors.read().decode(errors="replace").strip().splitlines()
            try:
                answer = json.loads(output)
            except ValueError:
                why = f": {told[-1]}" if told else ""
                return {"error": f"it ended with status {child.process.returncode}{why}"}
            return answer if isinstance(answer, dict) else {"error": "its reply is not a JSON object"}
        except subprocess.TimeoutExpired:
            raise limit.exceeded() from None
        finally:
            _end(child)


def _end(child: _Child) -> None:
    child.process.kill()
    for pipe in (child.process.stdin, child.process.stdout, child.errors):
        if pipe is not None:
            pipe.close()
    child.process.wait()


# --- the fresh process ---------------------------------------------------------------------------


def main() -> None:
    """Import Keras, answer one request from standard input on standard output, and end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to handle; its end is ours
    os.nice(5)  # the final fit goes first
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not part of the reply
    answer: dict[str, Any] | None = None
    try:
        _prepare()
    except LeptonflowError as error:
        answer = {"error": error.line()}
    line = sys.stdin.readline()
    if not line:
        return
    answers.write(json.dumps(answer or _answer(json.loads(line))).encode())
    answers.flush()
    os._exit(0)  # the reply is written, and a backend takes a second to shut down


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
        pairs = [(package.predict(inputs), expected)]
        if request["holdout"] is not None:
            pairs.append(_holdout(store, package, **request["holdout"]))
        garbage, malformed = _garbage(package)
        measured = {"garbage": garbage, "malformed": malformed, "latency_ms": _latency(package, inputs)}
    except StoreUnreachable as error:
        return {"unreachable": error.message}
    except Exception as error:  # noqa: BLE001 - a package that breaks a library is a finding, not a crash
        return {"error": error.line() if isinstance(error, LeptonflowError) else f"{type(error).__name__}: {error}"}
    return {
        "largest_difference": _largest(pairs),
        "examples": sum(len(expected) for _, expected in pairs),
        **measured,
    }


def _holdout(store: Store, package: Any, config: dict[str, Any], snapshot: dict[str, Any], predictions: str) -> Any:
    """(found, recorded) of up to 256 holdout examples, read from their parts as evaluation read them."""
    from leptonflow.data.dataset import example_sets
    from leptonflow.workloads import catalog
    from leptonflow.workloads.predictions import read

    pipeline = Pipeline.model_validate_json(json.dumps(config))
    state = SnapshotRef.model_validate(snapshot)
    _, _, recorded = read(catalog.load(pipeline.workload).target, steady(store, predictions), state.classes)
    inputs = example_sets.holdout_set(store, pipeline, state).inputs[:HOLDOUT_EXAMPLES]
    return package.predict(inputs), recorded[:HOLDOUT_EXAMPLES]


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


def _latency(package: Any, inputs: Any) -> float | None:
    """Milliseconds that 95 of 100 predictions of the package take at most, one example at a time; None without one."""
    if not len(inputs):
        return None
    encoded, taken = package.encode(inputs), []
    for number in range(WARM_UP + SINGLE_EXAMPLES):
        at = number % len(encoded)
        started = time.perf_counter()
        package.model.predict_on_batch(encoded[at : at + 1])  # `predict` would fill the batch up
        taken.append((time.perf_counter() - started) * 1000)
    counted = sorted(taken[WARM_UP:])
    return round(counted[math.ceil(0.95 * len(counted)) - 1], 3)


def _largest(pairs: list[tuple[Any, Any]]) -> float | None:
    """The largest absolute difference, None for other shapes or what is no number."""
    import numpy as np

    if any(found.shape != expected.shape or not np.isfinite(found).all() for found, expected in pairs):
        return None
    return float(max((np.abs(found - expected).max() for found, expected in pairs if expected.size), default=0.0))


if __name__ == "__main__":
    main()

"""Infra-validation: a package, loaded in a fresh process, must reproduce its own predictions.

It must also reject malformed inputs with errors, and meet the gate's limits of latency and size.

`python -m leptonflow.evaluation.load_check` is that process. It imports Keras at once and then waits for one request,
so that it can start beside the final fit; it ends with its standard input. What does not belong
here: judging the predictions (gate).
"""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from leptonflow.core import deadlines, store_keys
from leptonflow.core.child_processes import python_path
from leptonflow.core.code_digests import backend, code_digests
from leptonflow.core.deadlines import Limit
from leptonflow.core.hashing import canonical, digest, sha256, short
from leptonflow.storage.address import open_store
from leptonflow.storage.objects import adopt, steady
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import Damaged, LeptonflowError, NotFound, StoreUnreachable
from schemas.records import InfraResult, ModelManifest, Plan, SnapshotRef
from schemas.rules import Latency, Size
from schemas.settings import quiet

TOLERANCE = 1e-5
HOLDOUT_EXAMPLES = 256
SINGLE_EXAMPLES = 50  # answered one at a time, after some that do not count
WARM_UP = 5


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]


# --- this process --------------------------------------------------------------------------------


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
            [sys.executable, "-P", "-m", "leptonflow.evaluation.load_check"],
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


def record_key(pipeline: str, version: str, manifest_sha256: str, config: Pipeline) -> str:
    """Where a pass is recorded: under the manifest's sha256, the `gate` code and the platform.

    A package holds no code of the user's, so the user's own is not in it.
    """
    code = code_digests(config, own=False)["gate"]
    machine = (platform.system(), platform.machine(), platform.python_version(), backend())
    return store_keys.load_check_key(pipeline, version, short(digest(manifest_sha256, code, machine)))


def validate(
    store: Store,
    config: Pipeline,
    version: str,
    manifest_sha256: str,
    plan: Plan | None = None,
    fresh: FreshProcess | None = None,
) -> InfraResult:
    """Hash the version's files, load it in a fresh process and compare what it predicts.

    It must reproduce the predictions that lie in the package and, with `plan`, the run's holdout
    predictions, within 1e-5, reject malformed inputs with errors, and meet the limits of the gate's
    `latency` and `size`. A pass is recorded with its measurements and reused; the files are hashed, and
    the budgets held against them, each time. A record that is no pass of these bytes is made again each
    time, for nothing is overwritten. A bad package is a result that did not pass, never an
    exception. Raises StoreUnreachable, and TimeLimit where the fresh process has no answer within
    `limits.infra_validate`.

    fresh: the process that is asked, if need be, and ended; by default one that is started when it is needed.
    """
    from leptonflow.registry import packages

    started = time.perf_counter()

    def result(
        passed: bool, sentence: str, difference: float | None = None, examples: int = 0, **measured: Any
    ) -> InfraResult:
        return InfraResult(
            version=version, manifest_sha256=manifest_sha256, passed=passed, largest_difference=difference,
            tolerance=TOLERANCE, examples=examples, sentence=sentence, seconds=time.perf_counter() - started,
            **measured,
        )  # fmt: skip

    with fresh or FreshProcess() as fresh:
        try:
            manifest = packages.verify(store, config.name, version, manifest_sha256)
        except (Damaged, NotFound) as error:
            return result(False, f"the package is damaged: {error.line()}")
        key = record_key(config.name, version, manifest_sha256, config)
        known = _recorded(store.get(key), manifest_sha256) if store.size(key) is not None else None
        if known is not None:
            return within_budget(config, known.model_copy(update={"reused": True}))
        answer = _answered(store, config, version, manifest_sha256, plan, fresh)
    if "unreachable" in answer:
        raise StoreUnreachable(answer["unreachable"])
    passed, sentence = _judged(answer)
    if not passed:
        return result(False, sentence, answer.get("largest_difference"), int(answer.get("examples", 0)))
    found = result(
        True, sentence, answer["largest_difference"], int(answer["examples"]), latency_ms=answer["latency_ms"],
        malformed=answer["malformed"], package_bytes=_bytes(manifest),
    )  # fmt: skip
    return within_budget(config, _recorded(adopt(store, key, document(found)), manifest_sha256) or found)


def _answered(
    store: Store, config: Pipeline, version: str, manifest_sha256: str, plan: Plan | None, fresh: FreshProcess
) -> dict[str, Any]:
    """What the fresh process answers about that package."""
    with _reachable(store, config.name, version) as uri:
        request = {
            "pipeline": config.name, "version": version, "manifest_sha256": manifest_sha256, "store": uri,
            "holdout": _holdout_request(config, plan) if plan is not None and uri == store.uri else None,
        }  # fmt: skip
        return fresh.ask(request, deadlines.current() or deadlines.start(config, "infra_validate"))


def _holdout_request(config: Pipeline, plan: Plan) -> dict[str, Any] | None:
    """What the fresh process needs to score the run's holdout; None where the plan has no snapshot."""
    if plan.snapshot is None:
        return None
    return {
        "config": config.model_dump(mode="json"),
        "snapshot": plan.snapshot.model_dump(mode="json"),
        "predictions": store_keys.run_key(config.name, plan.run_id or "", "holdout-predictions.parquet"),
    }


def _judged(answer: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether what a fresh process answered passes, and the sentence about it."""
    if "error" in answer:
        return False, f"the package did not work in a fresh process: {answer['error']}"
    if answer["garbage"]:
        return False, f"a fresh process gave a prediction for {answer['garbage']}, as if it were an example"
    difference, examples = answer["largest_difference"], int(answer["examples"])
    if difference is None:
        return False, f"a fresh process gave another shape or non-finite numbers on {examples} examples"
    within = f"on {examples} examples; at most {TOLERANCE:g} is allowed"
    if not difference <= TOLERANCE:
        return False, f"a fresh process differed by up to {difference:.2g} {within}"
    sentence = f"a fresh process differed by no more than {difference:.2g} {within}"
    return True, f"{sentence}; it rejected each of {answer['malformed']} malformed inputs with an error"


def _bytes(manifest: ModelManifest) -> int:
    return sum(file.bytes for file in manifest.files)


def within_budget(config: Pipeline, found: InfraResult) -> InfraResult:
    """The same result, not passed where it is over a budget that the gate's `latency` or `size` names."""
    over = []
    for rule in config.gate:
        if isinstance(rule, Latency) and found.latency_ms is not None and found.latency_ms > rule.value:
            taken = f"{found.latency_ms:.4g} ms"
            over.append(f"95 of 100 predictions take up to {taken}, at most {rule.value:g} is required")
        if isinstance(rule, Size) and found.package_bytes is not None and found.package_bytes > rule.value * 1e6:
            over.append(f"the package has {found.package_bytes / 1e6:.4g} MB, at most {rule.value:g} is required")
    if not over or not found.passed:
        return found
    return found.model_copy(update={"passed": False, "sentence": "; ".join(over)})


def document(passed: InfraResult) -> bytes:
    """The record of a pass, with its own digest: none that is written later names its bytes."""
    plain = passed.model_dump(mode="json")
    return canonical({**plain, "digest": sha256(canonical(plain))})


def read(data: bytes) -> InfraResult:
    """The record of a pass, held against its own digest, which those of earlier releases lack. Raises ValueError."""
    plain = json.loads(data)
    told = plain.pop("digest", None) if isinstance(plain, dict) else None
    found = InfraResult.model_validate(plain)
    if told is not None and told != sha256(canonical(plain)):
        raise ValueError(f"a document with sha256 {sha256(canonical(plain))} and the digest {told}")
    return found


def _recorded(data: bytes, manifest_sha256: str) -> InfraResult | None:
    """The recorded pass of that manifest; None for anything else, which spares nobody the validation."""
    try:
        found = read(data)
    except ValueError:
        return None
    return found if found.passed and found.manifest_sha256 == manifest_sha256 else None


@contextmanager
def _reachable(store: Store, pipeline: str, version: str) -> Iterator[str]:
    """A URI under which another process finds the package: a memory store's is copied to a folder."""
    if not store.uri.startswith("memory://"):
        yield store.uri
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = open_store(folder)
        for key in store.keys(store_keys.package_folder(pipeline, version)):
            copy.create(key, store.get(key))
        yield copy.uri


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

    keras(unused=(*UNUSED, "scipy", "sklearn"))  # it loads and predicts: 130 MB less beside the final fit
    import pyarrow.parquet  # noqa: F401 - loaded while the parent still trains

    from leptonflow.registry import packages  # noqa: F401


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from leptonflow.registry import packages

    try:
        store = open_store(request["store"])
        package = packages.load(store, request["pipeline"], request["version"], request["manifest_sha256"])
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

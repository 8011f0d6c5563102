"""Infra-validation: a package, loaded in a fresh process, must reproduce its own predictions.

It must also reject malformed inputs with errors, and meet the gate's limits of latency and size. What does not belong
here: the process itself (fresh_process), and judging the predictions (gate).
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from leptonflow.core import deadlines, store_keys
from leptonflow.core.code_digests import backend, code_digests
from leptonflow.core.hashing import canonical, digest, sha256, short
from leptonflow.evaluation.fresh_process import FreshProcess
from leptonflow.registry.onnx_session import TOLERANCE
from leptonflow.storage.address import open_store
from leptonflow.storage.objects import adopt
from leptonflow.storage.store import Store
from schemas import own_model
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound, StoreUnreachable
from schemas.records import InfraResult, ModelManifest, Plan
from schemas.rules import Latency, Size
from schemas.text import counted


def record_key(pipeline: str, version: str, manifest_sha256: str, config: Pipeline) -> str:
    """Where a pass is recorded: under the manifest's sha256, the `gate` code and the platform.

    The user's own code is not in it: what a package needs of that lies in it, under the manifest's sha256.
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
    exception. A model.onnx in it that differs from Keras is recorded, and Keras serves it. Raises
    StoreUnreachable, and TimeLimit where the fresh process has no answer within `limits.infra_validate`.

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
        malformed=answer["malformed"], package_bytes=_bytes(manifest), onnx=answer.get("onnx"),
        onnx_difference=answer.get("onnx_difference"),
    )  # fmt: skip
    return within_budget(config, _recorded(adopt(store, key, document(found)), manifest_sha256) or found)


def _answered(
    store: Store, config: Pipeline, version: str, manifest_sha256: str, plan: Plan | None, fresh: FreshProcess
) -> dict[str, Any]:
    """What the fresh process answers about that package."""
    with _reachable(store, config.name, version) as uri:
        request = {
            "pipeline": config.name, "version": version, "manifest_sha256": manifest_sha256, "store": uri,
            "code": own_model.runs_code(config.model),
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
        return False, f"a fresh process gave another shape or non-finite numbers on {counted(examples, 'example')}"
    within = f"on {counted(examples, 'example')}; at most {TOLERANCE:g} is allowed"
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

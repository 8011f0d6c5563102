"""A run's final fit once more, from what is recorded of it, and whether it gives the same holdout predictions.

Snapshot, configuration and seed are the recorded ones, never the current YAML. Everything that is trained
goes into this process's memory: the store is only read. The folds are repeated only where that is asked
for: no prediction on the holdout depends on them. What does not belong here: whether the current data would
train the same (planning).
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from leptonflow.core import code_digests, pipeline_files, store_keys
from leptonflow.data.dataset import example_sets
from leptonflow.keras_runtime import keras_models
from leptonflow.registry import ancestry, lineage, model_sources, packages
from leptonflow.runs import recording
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.objects import BACK, recorded
from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog, predictions, user_model
from schemas.config import NAME, Pipeline, parse
from schemas.errors import Damaged, NotFound, UsageError
from schemas.records import ModelManifest, Plan, SnapshotRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Predictions = tuple[list[str], NDArray[np.float64]]  # ids, N x K

# Between two probabilities of one example. Retraining elsewhere adds up rounding over every step of the optimiser:
# more than loading elsewhere does (infra.TOLERANCE), and far less than would turn a label that was not a toss-up.
TOLERANCE = 1e-3
READ = (f"{store_keys.EXAMPLES}/", f"{store_keys.MODELS}/")  # a fit's examples, and the version that it starts from


class Scratch(MemoryStore):
    """Reads the dataset's parts and packages from a store, and keeps what is created to itself. Sees no fit of it."""

    def __init__(self, origin: Store) -> None:
        super().__init__(f"memory://reproduce-{uuid.uuid4().hex}")
        self._origin = origin

    def get(self, key: str) -> bytes:
        return self._origin.get(key) if key.startswith(READ) else super().get(key)

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        return (self.get(key) for key in keys)

    def size(self, key: str) -> int | None:
        return self._origin.size(key) if key.startswith(READ) else super().size(key)

    def path(self, key: str) -> Path | None:
        return self._origin.path(key) if key.startswith(READ) else super().path(key)


def reproduce(
    store: Store,
    run_id: str,
    tolerance: float = TOLERANCE,
    folder: Path = pipeline_files.PIPELINES,
    folds: bool = False,
) -> dict[str, Any]:
    """Train the run's version again and compare the holdout predictions; with folds, the out-of-fold ones too.

    folder is where the user's own code lies, for a version of a release that did not package it: otherwise the
    code in the package is run. Returns {pipeline, run_id, version, equal (bit for bit), largest_difference (of two
    probabilities; null where the examples are others), examples, flipped (labels), folds: null or [{fold, equal,
    largest_difference, examples, flipped}], within_tolerance (of the holdout and of every fold compared), tolerance,
    differs: [{what, key, recorded, here}], sentence}; `what` is code, libraries, hardware or data. Raises NotFound
    where no run with predictions has that id, Damaged where the dataset's log is shorter than the recorded snapshot,
    or a part or recorded predictions were changed.
    """
    if not 0 <= tolerance <= 1:
        raise UsageError("not a tolerance", expected="a number from 0 to 1", received=str(tolerance))
    manifest, recorded = _recorded(store, run_id)
    config = _configuration(manifest, folder.absolute())
    with model_sources.unpacked(packages.source(store, manifest), config) as own:
        return _reproduced(store, run_id, tolerance, own, manifest, recorded, folds)


def _reproduced(
    store: Store,
    run_id: str,
    tolerance: float,
    config: Pipeline,
    manifest: ModelManifest,
    recorded: bytes,
    folds: bool,
) -> dict[str, Any]:
    config = _as_trained(store, config, manifest)
    snapshot = lineage.snapshot_of(store, config, manifest)
    before = _read(recorded, f"the holdout predictions of run {run_id}", config, manifest.classes)
    out_of_fold = _out_of_fold(store, config, manifest) if folds else None
    _same_device(manifest)
    again = _Again(Scratch(store), config, _plan(store, config, manifest, snapshot, run_id), snapshot)
    compared = _compare(before, _final(again, store))
    rows = None
    if out_of_fold is not None:
        rows = [{"fold": number, **_compare(its, _fold(again, number))} for number, its in enumerate(out_of_fold)]
    document = {
        "pipeline": config.name,
        "run_id": run_id,
        "version": manifest.version,
        **compared,
        "folds": rows,
        "within_tolerance": all(_within(each, tolerance) for each in (compared, *(rows or ()))),
        "tolerance": tolerance,
        "differs": _differs(config, manifest, snapshot),
    }
    return {**document, "sentence": _sentence(document)}


def _recorded(store: Store, run_id: str) -> tuple[ModelManifest, bytes]:
    """(the manifest of the run's version, its holdout predictions)."""
    if not NAME.fullmatch(run_id):
        raise UsageError("not a run's id", expected=f"an id that matches {NAME.pattern}", received=repr(run_id))
    for pipeline in store.folders(store_keys.RUNS):
        key = store_keys.run_key(pipeline, run_id, "holdout-predictions.parquet")
        version = _version(store, pipeline, run_id)
        if version is not None and store.size(key) is not None:
            file = recording.reference(store, pipeline, run_id, key)
            data = store.get(key) if file is None else recorded(store, key, file.sha256)
            return packages.manifest(store, pipeline, version), data
    raise NotFound(
        "no run with holdout predictions has that id",
        expected="a run id of `leptonflow runs PIPELINE`",
        received=run_id,
        hint="List the runs, or retrain",
    )


def _configuration(manifest: ModelManifest, folder: Path) -> Pipeline:
    """As recorded. What is at its default counts as not set, as in the YAML of a model that is compiled by its user."""
    where = f"the configuration of {manifest.version}"
    whole = parse(dict(manifest.config), where=where, folder=folder)
    return parse(whole.model_dump(mode="json", exclude_defaults=True), where=where, folder=folder)


def _out_of_fold(store: Store, config: Pipeline, manifest: ModelManifest) -> list[Predictions]:
    """Each fold's recorded predictions, all of them there before anything is trained."""
    found = []
    for fold in range(config.training.folds):
        key = store_keys.fit_key(config.name, manifest.version, fold, "manifest.json")
        try:
            fit = model_fits.fit_result(store, config.name, manifest.version, fold)
        except ValidationError as error:
            raise _damaged(key, "a fold's manifest", error.errors(include_url=False)[0]["msg"]) from None
        if fit is None or not fit.files:
            raise _damaged(key, "a fold's manifest, which names its predictions", "none")
        file = fit.files[0]
        found.append(_read(recorded(store, file.key, file.sha256), file.key, config, manifest.classes))
    return found


def _read(data: bytes, what: str, config: Pipeline, classes: Sequence[str]) -> Predictions:
    try:
        ids, _, outputs = predictions.read(catalog.load(config.workload).target, data, classes)
    except (ValueError, KeyError, OSError) as error:  # pyarrow's errors are one of these too
        raise _damaged(what, "predictions as Parquet", str(error).splitlines()[0]) from None
    return ids, outputs


def _damaged(what: str, expected: str, received: str) -> Damaged:
    return Damaged(
        f"{what} cannot be compared with", expected=expected, received=received, hint=BACK
    )  # fmt: skip


def _version(store: Store, pipeline: str, run_id: str) -> str | None:
    finished = recording.finished(store, pipeline, run_id)
    if finished is not None:
        return str(finished["version"])
    begun = store_keys.run_key(pipeline, run_id, "started.json")
    if store.size(begun) is None:
        return None
    try:
        return str(json.loads(store.get(begun))["version"])
    except (ValueError, TypeError, KeyError):
        raise Damaged(
            f"{begun} is not what a run writes as it begins", expected="JSON with the run's version",
            received="something else", hint=BACK,
        ) from None  # fmt: skip


def _as_trained(store: Store, config: Pipeline, manifest: ModelManifest) -> Pipeline:
    """The configuration with the precision that `auto` was on the machine that trained it."""
    fit = model_fits.fit_result(store, config.name, manifest.version, None)
    if config.training.precision != "auto" or fit is None or fit.precision is None:
        return config
    training = config.training.model_copy(update={"precision": fit.precision})
    return config.model_copy(update={"training": training})


def _same_device(manifest: ModelManifest) -> None:
    """Compute on the processor where the run had nothing else.

    Everything else stays as it is in training. TF_DETERMINISTIC_OPS=1 would choose other kernels than those that the
    run was trained with: seen on a processor, its predictions differ by 3e-8 from the recorded ones, and without it
    those are reached bit for bit.
    """
    accelerated = manifest.lineage is None or bool(manifest.lineage.hardware.accelerators)
    if not accelerated and "keras" not in sys.modules:  # a backend reads it once
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@dataclass(frozen=True)
class _Again:
    """What a fit of the run is made of, and the memory that it is made into."""

    scratch: Scratch
    config: Pipeline
    plan: Plan
    snapshot: SnapshotRef
    workspace: Workspace = field(default_factory=Workspace)


def _plan(store: Store, config: Pipeline, manifest: ModelManifest, snapshot: SnapshotRef, run_id: str) -> Plan:
    return Plan(
        pipeline=config.name, attempt=0, version=manifest.version, run_id=run_id, snapshot=snapshot, waiting=(),
        trained=False, finished=False, start=ancestry.recorded(store, manifest),
    )  # fmt: skip


def _final(again: _Again, store: Store) -> Predictions:
    """On the holdout, of the final fit made again and loaded from its bytes as a package is."""
    fit = model_fits.fit_final(again.scratch, again.config, again.plan, again.workspace, origin=store)
    model = keras_models.load(again.scratch.get(fit.files[0].key), user_model.objects(again.config))
    examples = example_sets.holdout_set(again.scratch, again.config, again.snapshot)
    workload = catalog.load(again.config.workload)
    vocabulary = again.scratch.get(fit.files[1].key).decode() if workload.vocabulary else None
    return examples.ids, keras_models.predict(model, workload.encode(examples.inputs, vocabulary, again.config.input))


def _fold(again: _Again, fold: int) -> Predictions:
    """Of the fold's own examples, by the fold made again."""
    fit = model_fits.train_fold(again.scratch, again.config, again.plan, fold, again.workspace)
    key = fit.files[0].key
    return _read(again.scratch.get(key), key, again.config, again.snapshot.classes)


def _compare(recorded: Predictions, found: Predictions) -> dict[str, Any]:
    """Bit for bit, and by the largest difference of two probabilities; both of the same examples in the same order."""
    import numpy as np

    (ids, before), (again, after) = recorded, found
    if ids != again or before.shape != after.shape:
        return {"equal": False, "largest_difference": None, "examples": len(again), "flipped": None}
    return {
        "equal": before.tobytes() == after.tobytes(),
        "largest_difference": float(np.abs(before - after).max(initial=0.0)),
        "examples": len(ids),
        "flipped": int((before.argmax(axis=1) != after.argmax(axis=1)).sum()),
    }


def _within(compared: dict[str, Any], tolerance: float) -> bool:
    largest = compared["largest_difference"]
    return largest is not None and largest <= tolerance


def _differs(config: Pipeline, manifest: ModelManifest, snapshot: SnapshotRef) -> list[dict[str, Any]]:
    """What is recorded of the run and is otherwise here and now: [{what, key, recorded, here}]."""
    origin = manifest.lineage
    # The digest of the code counts Keras and its backend in: with the recorded ones, only the code is left.
    code = code_digests.code_digests(config, manifest.libraries)
    found: list[tuple[str, str, Any, Any]]
    found = [("code", name, value, code[name]) for name, value in sorted(manifest.code.items())]
    versions = lineage.versions()
    libraries = origin.libraries if origin else manifest.libraries
    found += [("libraries", name, value, versions.get(name)) for name, value in sorted(libraries.items())]
    here = lineage.hardware().model_dump(mode="json", exclude={"system"})  # a kernel's release computes nothing
    machine = origin.hardware.model_dump(mode="json") if origin else {}
    found += [("hardware", name, machine.get(name), value) for name, value in here.items()]
    content, now = (origin.snapshot, snapshot.content) if origin else (manifest.snapshot, snapshot.snapshot)
    found.append(("data", "snapshot", content, now))
    found.append(("data", "preprocessing", manifest.preprocessing, snapshot.preprocessing))
    return [
        {"what": what, "key": key, "recorded": before, "here": after}
        for what, key, before, after in found
        if before != after
    ]


def _sentence(document: dict[str, Any]) -> str:
    """The outcome in one line."""
    told = [f"the {document['examples']} holdout predictions {_outcome([document])}"]
    folds = document["folds"]
    if folds:
        examples = sum(fold["examples"] for fold in folds)
        told.append(f"the {examples} out-of-fold predictions of {len(folds)} folds {_outcome(folds)}")
    about = f"run {document['run_id']}, version {document['version']}: {', '.join(told)}"
    if all(each["equal"] for each in (document, *(folds or ()))):
        return about
    kinds = dict.fromkeys(each["what"] for each in document["differs"])
    why = f"{', '.join(kinds)} differ" if kinds else "no recorded difference explains it"
    return f"{about}; {document['tolerance']:g} is tolerated; {why}"


def _outcome(compared: Sequence[dict[str, Any]]) -> str:
    """What became of one or several sets of predictions, as the end of a sentence."""
    if all(each["equal"] for each in compared):
        return "are equal bit for bit"
    if any(each["largest_difference"] is None for each in compared):
        return "are of other examples than the recorded ones"
    largest = max(each["largest_difference"] for each in compared)
    return f"differ by at most {largest:.3g} ({sum(each['flipped'] for each in compared)} labels)"

"""Immutable model versions: a folder with the model, what it needs to be used, and a manifest of sha256s.

models/<pipeline>/<version>/: model.keras, preprocessing.json, labels.json, contract.json, config.json,
metrics.json, reference.parquet, lineage.json, model_card.md, then manifest.json. Nothing here is trusted
before its bytes were held against the manifest. What does not belong here: which version is the champion (registry).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from leptonflow.core import clock, parquet, store_keys
from leptonflow.core.code_digests import code_digests, libraries
from leptonflow.core.hashing import canonical, sha256
from leptonflow.core.store_keys import package_key
from leptonflow.data.dataset import example_sets
from leptonflow.data.validation import contracts
from leptonflow.keras_runtime import keras_models
from leptonflow.registry import lineage, model_cards
from leptonflow.storage.objects import BACK, adopt, parsed, recorded, steady
from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from leptonflow.workloads import catalog, predictions
from schemas import constants
from schemas.config import NAME, Pipeline
from schemas.errors import Damaged, NotFound, TrainingError, UsageError
from schemas.records import FitResult, Lineage, ModelManifest, ObjectRef, PackageRef, Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.data.dataset.example_sets import Examples

REFERENCE_EXAMPLES = 64
OTHER = f"{BACK}, or promote another version"
_models: dict[str, Any] = {}  # sha256 of a model.keras: the loaded model; the last two


@dataclass(frozen=True)
class Package:
    """A loaded version, every file of it held against its manifest.

    classes are the columns of `predict`, in order; preprocessing is {input, workload,
    preprocessing_version, digest}.
    """

    manifest: ModelManifest
    manifest_sha256: str
    preprocessing: dict[str, Any]
    model: Any

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities N x K of preprocessed examples N x H x W x C (uint8). Raises TrainingError."""
        if tuple(pixels.shape[1:]) != tuple(self.manifest.input) or pixels.dtype != "uint8":
            raise TrainingError(
                f"the version {self.manifest.version} does not take these examples",
                expected=f"N x {' x '.join(map(str, self.manifest.input))} pixels of uint8",
                received=f"shape {tuple(pixels.shape)} of {pixels.dtype}",
            )
        return keras_models.predict(self.model, pixels)


def package(store: Store, config: Pipeline, plan: Plan) -> PackageRef:
    """Make the finished final fit an immutable version; what lies there is adopted. Safe to repeat.

    Raises TrainingError where a fold or the final fit is not finished.
    """
    version, snapshot = model_fits.planned(plan)
    try:
        return reference(store, config.name, version)
    except NotFound:
        pass
    fits = [model_fits.fit_result(store, config.name, version, fold) for fold in range(config.training.folds)]
    finished = [fit for fit in fits if fit is not None]
    final = model_fits.fit_result(store, config.name, version, None)
    if final is None or len(finished) < len(fits):
        raise TrainingError(
            f"the version {version} is not trained yet",
            expected=f"{len(fits)} finished folds and a final fit",
            received=f"{len(finished)} folds and {'a' if final else 'no'} final fit",
            hint=f"Run `leptonflow retrain {config.name}`",
        )
    workload = catalog.load(config.workload)
    cv = model_fits.cross_validation(finished)
    files: dict[str, bytes] = {
        "model.keras": recorded(store, final.files[0].key, final.files[0].sha256, OTHER),
        "preprocessing.json": canonical(
            {
                "input": config.input,
                "workload": workload.name,
                "preprocessing_version": workload.preprocessing_version,
                "digest": snapshot.preprocessing,
            }
        ),
        "labels.json": canonical(snapshot.classes),
        "contract.json": canonical(_contract(config)),
        "config.json": canonical(config),
        "metrics.json": canonical(_metrics(cv, finished, final)),
    }

    lying: dict[str, bytes] = {}

    def put(name: str, data: bytes) -> bytes:
        lying[name] = adopt(store, package_key(config.name, version, name), data)
        return lying[name]

    for name, data in files.items():
        put(name, data)
    model = _model(lying["model.keras"])
    examples = example_sets.training_set(store, config, snapshot)
    put("reference.parquet", write_reference(model, examples))
    code = {name: value for name, value in code_digests(config).items() if name != "gate"}
    # A second writer was trained elsewhere and at another time: the card and the manifest tell of the first.
    mine = lineage.lineage(store, config, plan, snapshot, code)
    origin = Lineage.model_validate_json(put("lineage.json", canonical(mine)))
    parts = (*files, "reference.parquet", "lineage.json")
    refs = tuple(_reference(name, lying[name]) for name in parts)
    contract = json.loads(lying["contract.json"])
    card = model_cards.card(config, version, plan.run_id or "", snapshot, contract, cv, final, origin, refs)
    refs = (*refs, _reference("model_card.md", put("model_card.md", card.encode())))
    manifest = ModelManifest(
        pipeline=config.name,
        version=version,
        run_id=plan.run_id or "",
        workload=config.workload,
        classes=snapshot.classes,
        input=config.input,
        preprocessing=snapshot.preprocessing,
        snapshot=snapshot.snapshot,
        snapshot_number=snapshot.number,
        config=json.loads(lying["config.json"]),
        cv=cv,
        code=code,
        lineage=origin,
        libraries=libraries(),
        files=refs,
        created_at=clock.now(),
        number=sum(key.endswith("/manifest.json") for key in store.keys(store_keys.packages_folder(config.name))) + 1,
        split_rule=constants.SPLIT_RULE,
    )
    return _package(config.name, version, put("manifest.json", canonical(manifest)))


def _contract(config: Pipeline) -> dict[str, Any]:
    """contract.json: the data contract in force when the version was packaged, and its digest as `batches` has it.

    {digest, expectations, quarantine: {limit}, classes, checks_version}: all that the digest covers. A batch that came
    earlier can have been accepted under another one, which the table `batches` names.
    """
    return {
        "digest": contracts.digest(config),
        **contracts.read_contract(config),
        "quarantine": config.quarantine.model_dump(mode="json"),
        "classes": config.classes,
        "checks_version": catalog.load(config.workload).checks_version,
    }


def contract(store: Store, manifest: ModelManifest) -> dict[str, Any] | None:
    """The version's contract.json, or None for a package from before there was one. Raises NotFound, Damaged."""
    for file in manifest.files:
        if file.key == "contract.json":
            key = package_key(manifest.pipeline, manifest.version, file.key)
            return dict(json.loads(recorded(store, key, file.sha256, OTHER)))
    return None


def _metrics(cv: dict[str, dict[str, Any]], folds: list[FitResult], final: FitResult) -> dict[str, Any]:
    """metrics.json: what was measured while training. The holdout's metrics are a run's, not a package's."""
    kept = {"fold", "metrics", "examples", "seconds"}
    return {
        "cv": cv,
        "folds": [fit.model_dump(mode="json", include=kept) for fit in folds],
        "final": final.model_dump(mode="json", include={"examples", "seconds", "epochs"}),
    }


def _reference(name: str, data: bytes) -> ObjectRef:
    return ObjectRef(key=name, sha256=sha256(data), bytes=len(data))


def write_reference(model: Any, examples: Examples) -> bytes:
    """Some training examples and the probabilities that the packaged model gives for them, as Parquet.

    It lets a fresh process check the package on the spot, with nothing of any run. Columns:
    example_id, pixels (fixed-size binary, H*W*C), probabilities (list of K float64).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    pixels = examples.pixels[:REFERENCE_EXAMPLES]  # sorted by id, a digest: these are of all classes
    rows = keras_models.predict(model, pixels)
    table = pa.table(
        {
            "example_id": pa.array(examples.ids[: len(pixels)], pa.string()),
            "pixels": pa.array([p.tobytes() for p in pixels], pa.binary(pixels[0].nbytes)),
            "probabilities": pa.array(rows.tolist(), pa.list_(pa.float64())),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False)
    return bytes(sink.getvalue())


def read_reference(store: Store, manifest: ModelManifest) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(pixels N x H x W x C, probabilities N x K) that the package carries."""
    import numpy as np

    file = next(f for f in manifest.files if f.key == "reference.parquet")
    data = recorded(store, package_key(manifest.pipeline, manifest.version, file.key), file.sha256, OTHER)
    table = parquet.read(data)
    pixels = np.frombuffer(b"".join(table["pixels"].to_pylist()), np.uint8).reshape(-1, *manifest.input)
    return pixels, predictions.matrix(table["probabilities"], len(manifest.classes))


def manifest(store: Store, pipeline: str, version: str) -> ModelManifest:
    """What a version's manifest says. Raises NotFound where there is none, Damaged where it is garbage."""
    return _manifest(store, pipeline, version)[0]


def _manifest(store: Store, pipeline: str, version: str, expected: str | None = None) -> tuple[ModelManifest, str]:
    key = package_key(pipeline, version, "manifest.json")
    if store.size(key) is None:
        raise NotFound(
            f"the pipeline {pipeline} has no version {version}",
            expected=f"{key} on {store.uri}",
            received="no such object",
            hint=f"`leptonflow models {pipeline}` lists the versions",
        )
    if expected is not None:
        data = recorded(store, key, expected, OTHER)
        return _parsed(pipeline, version, data), expected
    return parsed(store, key, lambda data: (_parsed(pipeline, version, data), sha256(data)))


def _parsed(pipeline: str, version: str, data: bytes) -> ModelManifest:
    key = package_key(pipeline, version, "manifest.json")
    try:
        found = ModelManifest.model_validate_json(data)
    except ValidationError as error:
        raise _damaged(key, "a package's manifest", error.errors(include_url=False)[0]["msg"]) from None
    if (found.pipeline, found.version) != (pipeline, version):
        raise _damaged(key, f"the manifest of {pipeline} {version}", f"that of {found.pipeline} {found.version}")
    return found


def reference(store: Store, pipeline: str, version: str) -> PackageRef:
    """A reference to a whole version, whose digest can be recorded. Raises NotFound, Damaged."""
    _manifest(store, pipeline, version)
    return _package(pipeline, version, steady(store, package_key(pipeline, version, "manifest.json")))


def _package(pipeline: str, version: str, manifest: bytes) -> PackageRef:
    files = _parsed(pipeline, version, manifest).files
    return PackageRef(
        pipeline=pipeline, version=version, manifest_sha256=sha256(manifest), bytes=sum(file.bytes for file in files)
    )


def verify(store: Store, pipeline: str, version: str, manifest_sha256: str | None = None) -> ModelManifest:
    """Hash every file of a version. Raises NotFound without a manifest, Damaged naming the file."""
    found, _ = _manifest(store, pipeline, version, manifest_sha256)
    for file in found.files:  # one at a time: a package need not fit into memory twice
        recorded(store, package_key(pipeline, version, file.key), file.sha256, OTHER)
    return found


def load(store: Store, pipeline: str, version: str, manifest_sha256: str | None = None) -> Package:
    """The version, ready to predict. Every file is hashed before Keras opens one.

    Raises NotFound, Damaged naming the file, or TrainingError where this Keras cannot load it.
    """
    found, digest = _manifest(store, pipeline, version, manifest_sha256)
    files = _files(store, found)
    return Package(
        manifest=found,
        manifest_sha256=digest,
        preprocessing=json.loads(files["preprocessing.json"]),
        model=_model(files["model.keras"]),
    )


def known(store: Store, pipeline: str, version: str, what: str) -> ModelManifest:
    """The manifest of a version that a person named; `what` is how they named it, such as --version.

    Raises UsageError where it is no version's name; NotFound, which lists those that there are; Damaged.
    """
    named(what, version)
    try:
        return manifest(store, pipeline, version)
    except NotFound:
        found, damaged = readable(store, pipeline)
        there = [*(m.version for m in reversed(found)), *damaged]
        raise NotFound(
            f"the pipeline {pipeline} has no version {version}",
            expected=f"one of {listed(there)}" if there else "a version, and there is none yet",
            received=version,
            hint=f"`leptonflow models {pipeline}` lists them" if there else f"Run `leptonflow retrain {pipeline}`",
        ) from None


def named(what: str, version: str) -> None:
    """Raises UsageError where it is no version's name."""
    if not NAME.fullmatch(version):
        raise UsageError(
            f"{what} is not a version's name", expected=f"a name that matches {NAME.pattern}", received=repr(version)
        )


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} older" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def versions(store: Store, pipeline: str) -> list[ModelManifest]:
    """Every version of the pipeline that has a manifest, newest last. Raises Damaged where one is garbage."""
    found, damaged = readable(store, pipeline)
    for error in damaged.values():
        raise error
    return found


def readable(store: Store, pipeline: str) -> tuple[list[ModelManifest], dict[str, Damaged]]:
    """(the manifests that can be read, newest last; what is wrong with each other one, by its version)."""
    found: list[ModelManifest] = []
    damaged: dict[str, Damaged] = {}
    for name in store.folders(store_keys.packages_folder(pipeline)):
        try:
            found.append(manifest(store, pipeline, name))
        except NotFound:  # not finished
            continue
        except Damaged as error:
            damaged[name] = error
    # A clock can be set back. Versions of releases that gave no number are before those that have one.
    return sorted(found, key=lambda m: (m.number or 0, m.snapshot_number, m.created_at, m.version)), damaged


def _files(store: Store, found: ModelManifest) -> Mapping[str, bytes]:
    return {
        file.key: recorded(store, package_key(found.pipeline, found.version, file.key), file.sha256, OTHER)
        for file in found.files
    }


def _damaged(key: str, expected: str, received: str) -> Damaged:
    return Damaged(
        f"{key} is not what was recorded",
        expected=expected,
        received=received,
        hint=OTHER,
    )


def _model(data: bytes) -> Any:
    """The Keras model in these verified bytes; loading the same bytes twice in a process is saved."""
    digest = sha256(data)
    if digest not in _models:
        while len(_models) > 1:
            _models.pop(next(iter(_models)))
        _models[digest] = keras_models.load(data)
    return _models[digest]

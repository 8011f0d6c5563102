"""Immutable model versions: a folder with the model, what it needs to be used, and a manifest of sha256s.

models/<pipeline>/<version>/: model.keras, preprocessing.json, labels.json, contract.json, config.json,
metrics.json, reference.parquet, lineage.json, model.onnx and onnx.json, model_card.md, of a user's own model
source.zip, then manifest.json.
Nothing here is trusted before its bytes were held against the manifest. What does not belong here: which version is
the champion (registry).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from leptonflow.core import parquet, store_keys
from leptonflow.core.hashing import sha256
from leptonflow.core.store_keys import package_key
from leptonflow.keras_runtime import keras_models
from leptonflow.registry import model_sources
from leptonflow.storage.objects import BACK, parsed, recorded, steady
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas import own_model
from schemas.config import NAME
from schemas.errors import Damaged, NotFound, TrainingError, UsageError
from schemas.records import ModelManifest, PackageRef
from schemas.settings import package_code

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


SOURCE = "source.zip"  # the user's own code and the files that it declares: model_sources
ONNX = "model.onnx"  # the model as ONNX Runtime takes it, where it could be exported
EXPORT = "onnx.json"  # the record of that export: schemas.export.Export
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

    vocabulary: str | None = None  # vocabulary.json, of a workload that has one

    def encode(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """What the model takes of N examples. Raises TrainingError for others than its workload's."""
        workload = catalog.load(self.manifest.workload)
        return workload.encode(inputs, self.vocabulary, self.manifest.input)

    def predict(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """The outputs for N examples, the first axis N. Raises TrainingError."""
        return keras_models.predict(self.model, self.encode(inputs))


def contract(store: Store, manifest: ModelManifest) -> dict[str, Any] | None:
    """The version's contract.json, or None for a package from before there was one. Raises NotFound, Damaged."""
    data = read_file(store, manifest, "contract.json")
    return None if data is None else dict(json.loads(data))


def read_file(store: Store, manifest: ModelManifest, name: str) -> bytes | None:
    """A file of the version, or None where it has none of that name. Raises Damaged."""
    for file in manifest.files:
        if file.key == name:
            return recorded(store, package_key(manifest.pipeline, manifest.version, name), file.sha256, OTHER)
    return None


def vocabulary(store: Store, manifest: ModelManifest) -> str | None:
    """The version's vocabulary.json, or None of a workload that has none. Raises Damaged."""
    data = read_file(store, manifest, "vocabulary.json")
    return None if data is None else data.decode()


def read_reference(store: Store, manifest: ModelManifest) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """(N examples, the N outputs for them) that the package carries."""
    import numpy as np

    table = parquet.read(read_file(store, manifest, "reference.parquet") or b"")
    codec = catalog.load(manifest.workload).codec
    inputs = codec.read(table[codec.column].combine_chunks(), manifest.input)
    flat = table["probabilities"].combine_chunks().flatten()
    # Its own conversion to NumPy imports pandas, which a server has no other use for.
    rows = np.frombuffer(flat.buffers()[1] or b"", np.float64)[flat.offset : flat.offset + len(flat)]
    return inputs, rows.reshape(len(inputs), -1 if len(inputs) else 0)


def manifest(store: Store, pipeline: str, version: str) -> ModelManifest:
    """What a version's manifest says. Raises NotFound where there is none, Damaged where it is garbage."""
    return checked_manifest(store, pipeline, version)[0]


def checked_manifest(
    store: Store, pipeline: str, version: str, expected: str | None = None
) -> tuple[ModelManifest, str]:
    """(what a version's manifest says, the sha256 of it), which is the expected one if there is one.

    Raises NotFound, Damaged.
    """
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
    manifest(store, pipeline, version)
    return package_ref(pipeline, version, steady(store, package_key(pipeline, version, "manifest.json")))


def package_ref(pipeline: str, version: str, manifest: bytes) -> PackageRef:
    files = _parsed(pipeline, version, manifest).files
    return PackageRef(
        pipeline=pipeline, version=version, manifest_sha256=sha256(manifest), bytes=sum(file.bytes for file in files)
    )


def verify(store: Store, pipeline: str, version: str, manifest_sha256: str | None = None) -> ModelManifest:
    """Hash every file of a version. Raises NotFound without a manifest, Damaged naming the file."""
    found, _ = checked_manifest(store, pipeline, version, manifest_sha256)
    for file in found.files:  # one at a time: a package need not fit into memory twice
        recorded(store, package_key(pipeline, version, file.key), file.sha256, OTHER)
    return found


def load(store: Store, pipeline: str, version: str, manifest_sha256: str | None = None, code: bool = False) -> Package:
    """The version, ready to predict. Every file that is used is hashed before Keras opens one.

    code: the classes and functions in source.zip may be run that the model needs and that are not Keras's own.
    Raises NotFound, Damaged naming the file, or TrainingError where this Keras cannot load it, or may not.
    """
    found, digest = checked_manifest(store, pipeline, version, manifest_sha256)
    files = _files(store, found)
    needed = own_model.functions(dict(found.config.get("model") or {})).get("custom_objects")
    own = b"" if needed is None else _code(store, found, needed, code)
    with model_sources.objects(own, found.config) as objects:
        model = loaded(files["model.keras"], own, objects)
    return Package(
        manifest=found,
        manifest_sha256=digest,
        preprocessing=json.loads(files["preprocessing.json"]),
        model=model,
        vocabulary=files["vocabulary.json"].decode() if "vocabulary.json" in files else None,
    )


def source(store: Store, manifest: ModelManifest) -> bytes | None:
    """The version's source.zip, or None where its model is not of the user's own. Raises Damaged."""
    return read_file(store, manifest, SOURCE)


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
        if file.key not in (SOURCE, ONNX)  # which no prediction in Keras needs, and which are large
    }


def _damaged(key: str, expected: str, received: str) -> Damaged:
    return Damaged(
        f"{key} is not what was recorded",
        expected=expected,
        received=received,
        hint=OTHER,
    )


def _code(store: Store, found: ModelManifest, needed: str, allowed: bool) -> bytes:
    """source.zip of a version that cannot be loaded without it. Raises TrainingError where it may not be run."""
    if not (allowed or package_code()):
        raise TrainingError(
            f"the version {found.version} cannot be loaded without its own code, {needed}",
            expected="model.custom_objects in the pipeline's YAML here, or LEPTONFLOW_PACKAGE_CODE=1",
            received="neither",
            hint=f"The code is in {SOURCE} of the package: allow it if you trust whoever can write to {store.uri}",
        )
    return source(store, found) or b""


def loaded(data: bytes, code: bytes = b"", objects: Mapping[str, Any] | None = None) -> Any:
    """The Keras model in these verified bytes; loading the same bytes twice in a process is saved.

    objects: what the model needs of `code`, its verified source.zip.
    """
    digest = sha256(data) + (sha256(code) if objects else "")
    if digest not in _models:
        while len(_models) > 1:
            _models.pop(next(iter(_models)))
        _models[digest] = keras_models.load(data, objects)
    return _models[digest]

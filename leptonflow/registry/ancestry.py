"""Which version a version started from: resolved when a run is planned, followed where a proof needs the whole chain.

What becomes of the weights does not belong here (training.starting_weights).
"""

from __future__ import annotations

from leptonflow.core import declared_files
from leptonflow.registry import champion_log, packages
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, NotFound
from schemas.records import ModelManifest, SnapshotRef
from schemas.starting import Start


def start(store: Store, config: Pipeline, snapshot: SnapshotRef) -> Start | None:
    """What a run on this snapshot starts from; None: from scratch.

    `champion` is the current one or, once a version of this snapshot has become champion, the one before it: neither
    that promotion nor a rollback of it is a reason to train again, as no data came.

    Raises ConfigurationError where the version or the file is not there, Damaged where its manifest is garbage.
    """
    given = config.training.start_from
    file = config.training.start_file
    if file is not None:
        return Start(version=None, file=file, sha256=declared_files.digests(config)[file], classes=None)
    version = _champion(store, config.name, snapshot.snapshot) if given == "champion" else given
    if version is None or version == "scratch":
        return None
    try:
        return of_version(store, config.name, version)
    except NotFound as error:
        raise ConfigurationError(
            f"training.start_from names no version of the pipeline {config.name}", expected=error.expected,
            received=version, hint=f"`leptonflow models {config.name}` lists them",
        ) from None  # fmt: skip


def of_version(store: Store, pipeline: str, version: str) -> Start:
    """To start from that version. Raises NotFound, Damaged."""
    manifest = packages.manifest(store, pipeline, version)
    model = next(file for file in manifest.files if file.key == "model.keras")
    return Start(version=version, file=None, sha256=model.sha256, classes=manifest.classes)


def recorded(store: Store, manifest: ModelManifest) -> Start | None:
    """What a version started from, to start from it again. Raises NotFound, Damaged."""
    started = manifest.lineage.start if manifest.lineage else None
    if started is None:
        return None
    if started.version is not None:
        return of_version(store, manifest.pipeline, started.version)
    return Start(version=None, file=started.file, sha256=started.sha256, classes=None)


def parent(store: Store, manifest: ModelManifest) -> ModelManifest | None:
    """The version that a version started from; None: from scratch, or from a file that no version's model is.

    Raises NotFound, Damaged where it cannot be read.
    """
    started = manifest.lineage.start if manifest.lineage else None
    if started is None:
        return None
    if started.version is not None:
        return packages.manifest(store, manifest.pipeline, started.version)
    for other in packages.readable(store, manifest.pipeline)[0]:
        if any(file.key == "model.keras" and file.sha256 == started.sha256 for file in other.files):
            return other
    return None


def _champion(store: Store, pipeline: str, snapshot: str) -> str | None:
    log = champion_log.promotions(store, pipeline, complete=True)
    before = None
    for entry in log.entries:
        body = champion_log.promotion(log, entry)
        if body.snapshot == snapshot:
            break
        before = body.version
    return before

"""One version laid open, and two side by side: configuration, data, metrics, lineage and files.

Reads, and writes nothing. What does not belong here: which differences matter (gate, reproduction).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.core.hashing import canonical
from leptonflow.data.dataset import dataset_contents, dataset_state
from leptonflow.registry import champion_log, intact_champions, packages
from leptonflow.runs import approvals, recording
from leptonflow.storage.commit_log import Log
from leptonflow.storage.store import Store
from schemas.errors import Damaged, NotFound
from schemas.records import ModelManifest

# What `flat` lays side by side: the rest of a version's document tells of the registry, not of the version.
SECTIONS = ("workload", "input", "classes", "config", "data", "metrics", "lineage", "files")


def version(
    store: Store, pipeline: str, name: str, evaluated: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Everything that is known of one version.

    Keys: version, champion, run_id, created_at, damage (null, or the line that names the first file that
    is not what was recorded), promotions (its records in the log), verdict (the newest finished run's that
    evaluated it, else null), and SECTIONS; metrics are {cv, holdout}, lineage is null where the package is
    older than that. evaluated: those runs' documents, newest last, where the caller has them.

    Raises UsageError for no name, NotFound for an unknown version, Damaged where its
    manifest is garbage.
    """
    manifest = packages.known(store, pipeline, name, "the version")
    log = champion_log.promotions(store, pipeline, complete=True)
    champion = champion_log.champion(log)
    rows = champion_log.history(log)
    if evaluated is None:
        evaluated = [run for run in recording.runs(store, pipeline) if run["version"] == name]
    newest = approvals.told(store, pipeline, dict(evaluated[-1])) if evaluated else None
    return {
        "version": name,
        "champion": bool(champion and champion.version == name),
        "run_id": manifest.run_id,
        "created_at": manifest.created_at,
        "damage": _damage(store, pipeline, log, name),
        "promotions": [row for row in rows if row["version"] == name],
        "verdict": {key: newest[key] for key in ("run_id", "verdict", "sentence")} if newest else None,
        "workload": manifest.workload,
        "input": json.loads(canonical(manifest.input)),
        "classes": list(manifest.classes),
        "config": manifest.config,
        "data": _data(store, manifest),
        "metrics": {"cv": manifest.cv, "holdout": newest["holdout"] if newest else None},
        "lineage": manifest.lineage.model_dump(mode="json") if manifest.lineage else None,
        "files": {file.key: {"bytes": file.bytes, "sha256": file.sha256} for file in manifest.files},
    }


def compare(
    store: Store,
    pipeline: str,
    left: str,
    right: str,
    evaluated: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """{versions, differences: [{key, left, right}], left, right}: the last two are as `version` gives them.

    A key is the path into a version's document, such as config.training.epochs; a value that one side
    lacks is null there. evaluated: as `version` takes it, by version. Raises what `version` raises.
    """
    documents = [version(store, pipeline, name, (evaluated or {}).get(name)) for name in (left, right)]
    one, other = (flat(document) for document in documents)
    return {
        "versions": [left, right],
        "differences": [
            {"key": key, "left": one.get(key), "right": other.get(key)}
            for key in keys(one, other)
            if one.get(key) != other.get(key)
        ],
        "left": documents[0],
        "right": documents[1],
    }


def flat(document: dict[str, Any]) -> dict[str, Any]:
    """The SECTIONS of a version's document as one level: dotted path to value. Lists of scalars stay whole."""
    found: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, below in value.items():
                walk(f"{path}.{key}", below)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for number, item in enumerate(value):
                walk(f"{path}.{number}", item)
        else:
            found[path] = value

    for section in SECTIONS:
        walk(section, document[section])
    return found


def keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys of both, a section after the other."""
    return sorted({**one, **other}, key=lambda key: SECTIONS.index(key.split(".")[0]))


def text(value: Any) -> str:
    """A value as a person reads it: short numbers, - for null, JSON for the rest."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _damage(store: Store, pipeline: str, log: Log, name: str) -> str | None:
    """The same check as before a promotion: a manifest that made it champion must be that one still."""
    try:
        intact_champions.verified(store, pipeline, log, name)
    except (Damaged, NotFound) as error:
        return error.line()
    return None


def _data(store: Store, manifest: ModelManifest) -> dict[str, Any]:
    """The snapshot that it learned from; counts are null where the dataset's log does not reach so far."""
    entries = dataset_state.snapshots(store, manifest.pipeline).entries[: manifest.snapshot_number]
    body = entries[-1].body if len(entries) == manifest.snapshot_number and entries else {}
    batches = dataset_contents.accepted_batches(entries)
    return {
        "snapshot": manifest.snapshot,
        "number": manifest.snapshot_number,
        "content": body.get("content"),
        "preprocessing": manifest.preprocessing,
        "examples": body.get("examples"),
        "holdout": body.get("holdout"),
        "batches": batches if body else None,
        "contract": _contract(store, manifest),
    }


def _contract(store: Store, manifest: ModelManifest) -> str | None:
    """The digest of the data contract at the time; null for an older package, and where `damage` tells of the file."""
    try:
        found = packages.contract(store, manifest)
    except (Damaged, NotFound):
        return None
    return str(found["digest"]) if found else None

"""What `status`, `runs`, `models`, `history` and `report` say. Reads, and writes nothing."""

from __future__ import annotations

from typing import Any

from leptonflow import landing, packages, planning, recording, registry, whole
from leptonflow.store import Store
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound


def status(store: Store, config: Pipeline) -> dict[str, Any]:
    """The champion, its holdout metrics, the newest version, the last run, the dataset, what waits.

    damage: null, or the line that says what is wrong with the champion's package and which is the newest
    whole one.
    """
    log = planning.snapshots(store, config.name)
    promotions = registry.promotions(store, config.name)
    champion = registry.champion(promotions)
    damage = whole.champion_damage(store, config.name, promotions)
    finished = recording.runs(store, config.name)
    try:
        versions = packages.versions(store, config.name)
    except Damaged as error:  # a manifest that is garbage; the rest of the answer is not less true for it
        versions, damage = [], damage or error
    own = [r for r in finished if champion and r["version"] == champion.version]
    head = log.head.body if log.head else None
    return {
        "champion": champion.version if champion else None,
        "since": champion.since if champion else None,
        "metrics": own[-1]["holdout"] if own else None,
        "damage": damage.line() if damage else None,
        "newest": versions[-1].version if versions else None,
        "snapshot": head["snapshot"] if head else None,
        "examples": head["examples"] if head else 0,
        "classes": head["classes"] if head else None,
        "batches": [entry.body["batch"] for entry in log.entries if entry.kind == "batch"],
        "waiting": list(planning.waiting(store, config, log)),
        "misnamed": landing.misnamed_batches(store, config.name),
        "last_run": finished[-1] if finished else None,
    }


def runs(store: Store, config: Pipeline) -> list[dict[str, Any]]:
    """One record for each finished run, newest last."""
    return recording.runs(store, config.name)


def models(store: Store, config: Pipeline) -> list[dict[str, Any]]:
    """One record for each model version, newest last."""
    champion = registry.champion(registry.promotions(store, config.name))
    rows = []
    for manifest in packages.versions(store, config.name):
        rows.append(
            {
                "version": manifest.version,
                "run_id": manifest.run_id,
                "snapshot": manifest.snapshot,
                "bytes": sum(f.bytes for f in manifest.files),
                "created_at": manifest.created_at,
                "champion": bool(champion and champion.version == manifest.version),
                "cv": manifest.cv,
                "classes": list(manifest.classes),
                "libraries": manifest.libraries,
            }
        )
    return rows


def history(store: Store, config: Pipeline) -> list[dict[str, Any]]:
    """The promotions log, oldest first."""
    return registry.history(registry.promotions(store, config.name))


def report(store: Store, run_id: str) -> str:
    """The path (or, on S3, the URI) of a run's report, of whichever pipeline. Raises NotFound."""
    for pipeline in store.folders("runs"):
        key = planning.run_key(pipeline, run_id, "report.html")
        if store.size(key) is not None:
            path = store.path(key)
            return str(path) if path is not None else f"{store.uri}/{key}"
    raise NotFound(
        "no finished run has that id",
        expected="a run id of `leptonflow runs PIPELINE`",
        received=run_id,
        hint="List the runs, or retrain",
    )

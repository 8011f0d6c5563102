"""What `status`, `runs`, `models`, `history` and `report` say. Reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from leptonflow.core import clock, store_keys
from leptonflow.data.dataset import dataset_contents, dataset_state, identities, known_examples
from leptonflow.data.ingest import batch_state
from leptonflow.registry import champion_log, intact_champions, packages
from leptonflow.runs import approvals, champion_metrics, recording, rejections, summaries, unfinished
from leptonflow.storage.commit_log import Log
from leptonflow.storage.objects import BACK, location
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import exists
from leptonflow.training import fit_status
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound
from schemas.fit_status import FitStatus
from schemas.records import ModelManifest
from schemas.text import counted

MODEL = ("version", "run_id", "snapshot", "bytes", "created_at", "champion", "cv", "classes", "libraries", "damage",
         "verdict", "key_metric")  # fmt: skip


def status(store: Store, config: Pipeline) -> dict[str, Any]:
    """The champion, its holdout metrics, the newest version, the last run, the dataset, pending batches.

    damage: null, or a line. In this order: records of the promotions log that are gone, what is wrong with
    the champion's package and which is the newest whole one, a run's or another version's manifest that
    cannot be read (then nothing is told of the runs, or of that version).
    """
    log = dataset_state.snapshots(store, config.name, complete=True)
    damage: Damaged | None = None
    finished: list[dict[str, Any]] = []
    try:
        # Before the log is read: what a run had left by then is in it.
        finished = recording.runs(store, config.name)
    except Damaged as error:  # the rest of the document is still true
        damage = error
    promotions = champion_log.promotions(store, config.name, complete=True)
    champion = champion_log.champion(promotions)
    waited = approvals.every(store, config.name, clock.now(), promotions)
    versions, damaged = packages.readable(store, config.name)
    damage = (
        shortened(promotions, finished)
        or intact_champions.champion_damage(store, config.name, promotions)
        or damage
        or next(iter(damaged.values()), None)
    )
    metrics = None
    if champion is not None:
        try:
            metrics = champion_metrics.newest(store, config.name, champion.version, finished)
        except Damaged as error:
            damage = damage or error
    head = log.head.body if log.head else None
    stands = batch_state.document(store, config, log)
    return {
        "champion": champion.version if champion else None,
        "since": champion.since if champion else None,
        "metrics": metrics,
        "damage": damage.line() if damage else None,
        "newest": versions[-1].version if versions else None,
        "snapshot": head["snapshot"] if head else None,
        "examples": head["examples"] if head else 0,
        "classes": head["classes"] if head else None,
        "batches": dataset_contents.accepted_batches(log.entries),
        "examples_per_class": head["labels"] if head else None,
        **stands,
        "warnings": [*stands["warnings"], *known_examples.left_behind(store, config, log)],
        "conflicts": identities.conflicts(store, log),
        "last_run": _told(finished[-1], waited) if finished else None,
        "approval": next((a.document() for a in waited.values() if a.state in approvals.UNDECIDED), None),
        "rejected": rejected(store, config, finished),
        **_unfinished(store, config.name),
        "store": {"uri": store.uri, "exists": exists(store)},
    }


def rejected(store: Store, config: Pipeline, finished: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """{snapshot, batches, sentence, at} of the last `retrain` that trained nothing, if no run has finished since."""
    found = None
    with suppress(Damaged):  # `verify` names it, and no run depends on it
        found = rejections.standing(store, config.name, len(finished))
    return None if found is None else found.model_dump(mode="json", exclude={"pipeline"})


def _unfinished(store: Store, pipeline: str) -> dict[str, Any]:
    running, lost = unfinished.runs(store, pipeline)
    told = None
    if running is not None:
        at = fit_status.newest(store, pipeline, running.version) if running.version else None
        told = {**running.document(), "progress": None if at is None else _fit(at)}
    return {"running": told, "lost": [run.document() for run in lost]}


def _fit(at: FitStatus) -> dict[str, Any]:
    stage = "final fit" if at.fold is None else f"fold {at.fold + 1}"
    elsewhere = {"pipeline", "version", "run_id", "values"}  # beside it, and in the table `epochs`
    return {**at.model_dump(exclude=elsewhere), "sentence": f"{stage}, {fit_status.words(at)}"}


def _told(run: dict[str, Any], waited: Mapping[str, approvals.Approval]) -> dict[str, Any]:
    run = approvals.today(run, waited)
    return {**run, "key_metric": summaries.key_metric(run), "reason": summaries.reason(run)}


def shortened(log: Log, finished: Sequence[dict[str, Any]]) -> Damaged | None:
    """Records that the log has lost at its end, where no gap shows it: a run ended with a champion that none names."""
    named = set(intact_champions.champions(log))
    for run in reversed(finished):
        if run["champion"] is not None and run["champion"] not in named:
            return Damaged(
                f"{log.prefix} is shorter than it was",
                expected=f"a record that makes {run['champion']} the champion, as it was after run {run['run_id']}",
                received=f"{counted(log.number, 'record')}, none of them that",
                hint="Put the missing records back from a backup or the bucket's versions before anything is promoted",
            )
    return None


def runs(store: Store, config: Pipeline) -> list[dict[str, Any]]:
    """One record for each finished run, newest last; with its key metric and what decided."""
    waited = approvals.every(store, config.name, clock.now())
    return [_told(run, waited) for run in recording.runs(store, config.name)]


def models(store: Store, config: Pipeline) -> list[dict[str, Any]]:
    """One record for each model version, newest last, with the verdict and the key metric of the newest run about it.

    damage is null, or the line that says why a version's manifest cannot be read: such versions come
    first, and nothing else is told of them.
    """
    now = champion_log.current_version(store, config.name)
    told: dict[str, dict[str, Any]] = {}
    found, damaged = packages.readable(store, config.name)
    with suppress(Damaged):  # told by `status`; the versions are there all the same
        waited = approvals.every(store, config.name, clock.now())
        told = {run["version"]: _told(run, waited) for run in recording.runs(store, config.name)}
    rows = [_model(manifest, manifest.version == now, told.get(manifest.version)) for manifest in found]
    lost = [
        {**dict.fromkeys(MODEL), "version": v, "champion": v == now, "damage": e.line()} for v, e in damaged.items()
    ]
    return [*lost, *rows]


def _model(manifest: ModelManifest, champion: bool, run: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "run_id": manifest.run_id,
        "snapshot": manifest.snapshot,
        "bytes": sum(f.bytes for f in manifest.files),
        "created_at": manifest.created_at,
        "champion": champion,
        "cv": manifest.cv,
        "classes": list(manifest.classes),
        "libraries": manifest.libraries,
        "damage": None,
        "verdict": run["verdict"] if run else None,
        "key_metric": run["key_metric"] if run else None,
    }


def history(store: Store, config: Pipeline) -> list[dict[str, Any]]:
    """The promotions log, oldest first."""
    return champion_log.history(champion_log.promotions(store, config.name, complete=True))


def report(store: Store, run_id: str) -> str:
    """The path (or, on S3, the URI) of a run's report, of whichever pipeline.

    Raises NotFound where no run has that id, Damaged where a finished run's report is gone.
    """
    return location(store, _report_key(store, run_id))


def report_page(store: Store, run_id: str) -> bytes:
    """A run's report itself, as HTML. Raises as `report` does."""
    return store.get(_report_key(store, run_id))


def _report_key(store: Store, run_id: str) -> str:
    for pipeline in store.folders(store_keys.RUNS):
        key = store_keys.run_key(pipeline, run_id, "report.html")
        if store.size(key) is not None:
            return key
        if recording.finished(store, pipeline, run_id) is not None:
            raise Damaged(
                f"{key} is missing, though the run is finished",
                expected="the report of a finished run",
                received="no such object",
                hint=BACK,
            )
    raise NotFound(
        "no finished run has that id",
        expected="a run id of `leptonflow runs PIPELINE`",
        received=run_id,
        hint="`leptonflow report PIPELINE` takes the newest run",
    )

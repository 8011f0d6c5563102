"""Leaves a finished run behind: verdict.json, the tables, the report, and the manifest last.

Everything is created or adopted, so a crash and a re-run leave each row once, and the numbers that
were recorded first are the run's. Also writes what a batch leaves in batches/ and in the tables, from
its record in the snapshots log. What the files look like belongs to `table_files` and `html_report`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from leptonflow.core import clock, store_keys
from leptonflow.core.code_digests import code_digests
from leptonflow.core.concurrency import in_order
from leptonflow.core.hashing import canonical, sha256
from leptonflow.core.store_keys import run_key
from leptonflow.data.dataset.batch_outcomes import newest_outcome, recorded_outcomes
from leptonflow.data.ingest import batch_state
from leptonflow.runs import approvals, planning
from leptonflow.storage import commit_log
from leptonflow.storage.objects import BACK, adopt, location, parsed, steady
from leptonflow.storage.store import Store
from leptonflow.training import checkpoints, fit_cost
from schemas.config import Pipeline
from schemas.errors import Damaged, LeptonflowError
from schemas.records import (
    Evaluation,
    FitCost,
    FitResult,
    InfraResult,
    ModelManifest,
    ObjectRef,
    Outcome,
    Plan,
    Record,
    Split,
    Verdict,
)

if TYPE_CHECKING:
    from leptonflow.data.dataset.example_sets import Examples


class RunRecord(Record):
    """runs/<pipeline>/<run_id>/verdict.json: the verdict that stands, and what else is told of the run."""

    verdict: Verdict
    champion: str | None  # after the run
    batches: tuple[str, ...]  # that the run committed or refused
    started_at: str
    finished_at: str
    seconds: dict[str, float]
    number: int | None = None  # one more than there were finished runs: a clock can be set back


@dataclass(frozen=True)
class Results:
    """What the stages of a run have found out, and what else is recorded of it.

    champion_after  who is champion after the run
    batches         that the run committed or refused
    seconds         that each stage took
    holdout         the holdout's examples where the caller has them, to spare a second reading
    """

    verdict: Verdict
    evaluation: Evaluation
    fits: Sequence[FitResult]
    final: FitResult
    split: Split
    infra: InfraResult
    champion_after: str | None
    batches: Sequence[str]
    started_at: str
    seconds: dict[str, float]
    holdout: Examples | None = None


def record(store: Store, config: Pipeline, plan: Plan, results: Results) -> dict[str, Any]:
    """Write what a run leaves behind; the document of `retrain --json` with a report that can be opened.

    Safe to repeat: what an earlier, killed call wrote is adopted, its verdict and times included.
    """
    run_id, version = results.verdict.run_id, results.verdict.version
    done = finished(store, config.name, run_id)
    if done is not None:
        return done
    from leptonflow.registry import packages
    from leptonflow.tables import compaction, table_files

    mine = RunRecord(
        verdict=results.verdict, champion=results.champion_after, batches=tuple(results.batches),
        started_at=results.started_at, finished_at=clock.now(), seconds=results.seconds,
        number=len(manifests(store, config.name)) + 1,
    )  # fmt: skip
    key = run_key(config.name, run_id, "verdict.json")
    verdict_json = adopt(store, key, canonical(mine))
    told = _run_record(verdict_json, key)
    package = packages.reference(store, config.name, version)
    manifest = packages.manifest(store, config.name, version)
    spent = fit_cost.together((*results.fits, results.final))
    document = _document(config, plan, told, results.evaluation, manifest.cv, results.split, spent)
    row = run_row(plan, told, results.split)
    rows = [
        *table_files.version_files(store, manifest, package, results.fits, results.final),
        *table_files.run_files(
            store, config.name, told.verdict, results.evaluation, row, manifest.cv, told.seconds
        ),
    ]  # fmt: skip
    written = table_files.write(store, rows)
    page = document["report"]
    if store.size(page) is None:
        html = adopt(store, page, _report(store, config, plan, results, told, manifest, document))
    else:
        html = steady(store, page)
    files = [reference_to(key, verdict_json), reference_to(page, html), *written, results.evaluation.predictions]
    files += _documents(store, told.verdict, config.name, key)
    approvals.ask(store, config, plan, told.verdict, told.number, told.finished_at)
    manifest_key = run_key(config.name, run_id, "manifest.json")
    data = adopt(store, manifest_key, manifest_bytes(config, plan, told, document, files))
    checkpoints.sweep(store, config.name, version)  # the run is whole
    compaction.after_run(store)
    whole = _openable(store, _manifest(data, manifest_key)["document"])
    return {**approvals.told(store, config.name, whole), "verdict": whole["verdict"]}


def _report(
    store: Store,
    config: Pipeline,
    plan: Plan,
    results: Results,
    told: RunRecord,
    manifest: ModelManifest,
    document: dict[str, Any],
) -> bytes:
    """The run's report.html."""
    from leptonflow.gate import explanation
    from leptonflow.reports import html_report, report_contents

    evaluation, fits = results.evaluation, tuple(results.fits)
    gathered = report_contents.gather(store, config, plan, evaluation, fits, results.holdout)
    contents = html_report.Contents(
        config=config, document=document, started_at=told.started_at, finished_at=told.finished_at,
        verdict=told.verdict, evaluation=evaluation, fits=fits, final=results.final, manifest=manifest,
        split=results.split, infra=results.infra, outcomes=_outcomes(store, config, plan, told),
        code={**code_digests(config), **manifest.code},
        analysis=gathered.analysis, between=gathered.between, shown=gathered.shown, note=gathered.note,
        drift=gathered.drift, operating=gathered.operating,
        paragraph=explanation.summary(config.name, told.verdict, document["holdout"]),
        changes=explanation.would_change(told.verdict, document["holdout"]),
    )  # fmt: skip
    return html_report.render(contents)


def manifest_bytes(
    config: Pipeline, plan: Plan, told: RunRecord, document: dict[str, Any], files: Sequence[ObjectRef]
) -> bytes:
    """The run's manifest.json, in the order that a person reads, and without the NaN that JSON does not know."""
    from leptonflow.tables import formats

    whole = formats.plain({
        "document": document,
        "started_at": told.started_at,
        "finished_at": told.finished_at,
        "asked": planning.asked(config, plan.snapshot.content) if plan.snapshot is not None else None,
        "number": told.number,
        "files": [file.model_dump() for file in files],
    })  # fmt: skip
    whole["digest"] = sha256(canonical(whole))  # no record has this manifest's: it is held against itself
    return json.dumps(whole, ensure_ascii=False, allow_nan=False).encode()


def finished(store: Store, pipeline: str, run_id: str) -> dict[str, Any] | None:
    """The document of a finished run, or None. Raises Damaged where its manifest is garbage."""
    key = run_key(pipeline, run_id, "manifest.json")
    if store.size(key) is None:
        return None
    return _openable(store, read_manifest(store, key)["document"])


def reference(store: Store, pipeline: str, run_id: str, key: str) -> ObjectRef | None:
    """What a finished run's manifest says of one of its files; None where it is not finished or names no such file."""
    name = run_key(pipeline, run_id, "manifest.json")
    if store.size(name) is None:
        return None
    try:
        files = [ObjectRef.model_validate(file) for file in read_manifest(store, name).get("files", ())]
    except (ValidationError, TypeError) as error:
        raise _damaged(name, error) from None
    return next((file for file in files if file.key == key), None)


def standing(store: Store, pipeline: str, run_id: str) -> Verdict | None:
    """The verdict that a killed run had recorded already: a resumed run keeps it."""
    key = run_key(pipeline, run_id, "verdict.json")
    return None if store.size(key) is None else _run_record(steady(store, key), key).verdict


def manifests(store: Store, pipeline: str) -> list[str]:
    """The keys of the finished runs' manifests."""
    there = store.keys(store_keys.runs_folder(pipeline))
    return [key for key in there if key.count("/") == 3 and key.endswith("/manifest.json")]


def asked(data: bytes, key: str) -> str:
    """What a finished run was asked for (planning.asked), or its snapshot's id where it did not record that.

    data: the manifest. Raises Damaged where it is garbage.
    """
    manifest = _manifest(data, key)
    return str(manifest.get("asked") or manifest["document"]["snapshot"])


def runs(store: Store, pipeline: str) -> list[dict[str, Any]]:
    """The document of each finished run, with started_at and finished_at, newest last.

    The order is that of the runs' numbers. Runs of releases that gave none are before them, in the order of their
    snapshots' numbers; time decides only between what these leave equal.
    """
    keys = manifests(store, pipeline)
    found = []
    order: dict[str, tuple[int, int, str, str]] = {}
    snapshots: dict[str, int] | None = None
    for key, data in zip(keys, store.get_many(keys), strict=True):
        try:
            manifest = _manifest(data, key)
        except Damaged:
            manifest = read_manifest(store, key)
        times = {name: manifest[name] for name in ("started_at", "finished_at")}
        run = {**_openable(store, manifest["document"]), **times}
        number, snapshot = manifest.get("number") or 0, 0
        if not number:
            snapshots = _snapshot_numbers(store, pipeline) if snapshots is None else snapshots
            snapshot = snapshots.get(run["snapshot"], 0)
        order[run["run_id"]] = (number, snapshot, run["finished_at"], run["run_id"])
        found.append(run)
    return sorted(found, key=lambda run: order[run["run_id"]])


def _snapshot_numbers(store: Store, pipeline: str) -> dict[str, int]:
    """The number of the record that first made each snapshot; none where the log cannot be read."""
    try:
        entries = commit_log.read(store, store_keys.dataset_log(pipeline)).entries
    except Damaged:  # whoever asks about the dataset is told
        return {}
    return {str(entry.body.get("snapshot")): entry.number for entry in reversed(entries)}


def _outcomes(store: Store, config: Pipeline, plan: Plan, told: RunRecord) -> tuple[Outcome, ...]:
    """Of the batches that make up the snapshot, then of those that this run refused."""
    number = plan.snapshot.number if plan.snapshot else 0
    accepted = [Outcome.model_validate(o) for o in recorded_outcomes(store, config.name, number)]
    names = {outcome.batch for outcome in accepted}
    refused = []
    for batch in told.batches:
        if batch not in names:
            keys = [key for key in store.keys(store_keys.outcomes_folder(config.name, batch)) if key.endswith(".json")]
            refused += newest_outcome(batch_state.outcomes(store, keys))
    return (*accepted, *refused)


def _document(
    config: Pipeline,
    plan: Plan,
    told: RunRecord,
    evaluation: Evaluation,
    cv: dict[str, Any],
    split: Split,
    spent: FitCost | None,
) -> dict[str, Any]:
    """The document as it is recorded: its report is a key, which still holds after the store has moved."""
    return {
        **common(plan, told, split),
        "cv": cv,
        "holdout": evaluation.candidate_scores.metrics,
        "report": run_key(config.name, told.verdict.run_id, "report.html"),
        "cost": None if spent is None else spent.model_dump(),
    }


def common(plan: Plan, told: RunRecord, split: Split) -> dict[str, Any]:
    """What the document says of every run that has a verdict."""
    verdict = told.verdict
    keys = ("cv", "holdout", "gate", "report", "seconds", "cost")
    return {
        "run_id": verdict.run_id,
        "verdict": verdict.verdict,
        "version": verdict.version,
        "champion": told.champion,
        "snapshot": plan.snapshot.snapshot if plan.snapshot else None,
        "batches": list(told.batches),
        "examples": {"train": split.train, "holdout": split.holdout},
        **split.groups,
        "warnings": list(split.warnings),
        **dict.fromkeys(keys),  # in their order
        "gate": [rule.model_dump() for rule in verdict.rules],
        "seconds": told.seconds,
        "sentence": verdict.sentence,
    }


def run_row(plan: Plan, told: RunRecord, split: Split) -> dict[str, Any]:
    started, ended = (datetime.fromisoformat(text) for text in (told.started_at, told.finished_at))
    return {
        "verdict": told.verdict.verdict,
        "snapshot": plan.snapshot.snapshot if plan.snapshot else None,
        "started_at": told.started_at,
        "finished_at": told.finished_at,
        "seconds": (ended - started).total_seconds(),
        "champion": told.champion,
        "champion_before": told.verdict.champion,
        "attempt": plan.attempt,
        "train": split.train,
        "holdout": split.holdout,
        "sentence": told.verdict.sentence,
    }


def reference_to(key: str, data: bytes) -> ObjectRef:
    return ObjectRef(key=key, sha256=sha256(data), bytes=len(data))


def _openable(store: Store, document: dict[str, Any]) -> dict[str, Any]:
    """The document with a report that the caller can open: a local path, or the object's URI."""
    return {**document, "report": location(store, document["report"])}


def _run_record(data: bytes, key: str) -> RunRecord:
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        raise _damaged(key, error) from None


def _documents(store: Store, verdict: Verdict, pipeline: str, besides: str) -> list[ObjectRef]:
    """What the run's stages left as JSON: its beginning, evaluations and decisions, and the manifests of its fits."""
    folders = (store_keys.run_folder(pipeline, verdict.run_id), store_keys.fits_folder(pipeline, verdict.version))
    there = [key for folder in folders for key in store.keys(folder)]
    wanted = [key for key in there if key.endswith(".json") and key != besides]
    return [reference_to(key, data) for key, data in zip(wanted, in_order(partial(steady, store), wanted), strict=True)]


def read_manifest(store: Store, key: str) -> dict[str, Any]:
    """A run's manifest under its key. Raises NotFound, Damaged."""
    return parsed(store, key, lambda data: _manifest(data, key))


def _manifest(data: bytes, key: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
        if not isinstance(found["document"]["report"], str):
            raise TypeError("document.report is not text")
        rest = {name: value for name, value in found.items() if name != "digest"}
        if "digest" in found and found["digest"] != sha256(canonical(rest)):
            raise ValueError(f"a document with sha256 {sha256(canonical(rest))} and the digest {found['digest']}")
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(key, error) from None
    return dict(found)


def _damaged(key: str, error: Exception) -> LeptonflowError:
    return Damaged(
        f"{key} is not what leptonflow writes there", expected="the JSON that a run or a batch leaves",
        received=str(error).splitlines()[0], hint=BACK,
    )  # fmt: skip

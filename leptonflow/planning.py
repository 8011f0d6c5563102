"""What is new, and the ids of DESIGN section 4. Decides `unchanged` with no heavy import.

Reading the pipeline's YAML, the dataset's state and the ids belongs here; doing any of it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leptonflow import contracts, datasets, discards, landing
from leptonflow.core.code_digests import code_digests
from leptonflow.core.hashing import digest, short
from leptonflow.core.store_keys import outcome_key, run_key
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import ConfigurationError
from schemas.records import PartRef, Plan, SnapshotRef
from schemas.text import nfc


def snapshots(store: Store, pipeline: str, complete: bool = False) -> commit_log.Log:
    """The commit log of the pipeline's dataset; complete: held against a listing too."""
    return (commit_log.complete if complete else commit_log.read)(store, f"snapshots/{pipeline}/log")


def preprocessing(config: Pipeline, shape: tuple[int, int, int] | None = None) -> str:
    """The digest of how examples are encoded: the workload, its preprocessing version, the input shape."""
    workload = catalog.load(config.workload)
    return short(digest(workload.name, workload.preprocessing_version, shape or config.input))


def state(config: Pipeline, history: commit_log.Log) -> SnapshotRef | None:
    """The dataset after the last record of its log, or None while it is empty.

    Raises ConfigurationError where the YAML contradicts what the dataset has fixed.
    """
    if history.head is None:
        return None
    body = history.head.body
    fraction = float(body["holdout"])
    if config.holdout.fraction != fraction:
        raise ConfigurationError(
            "holdout.fraction cannot change once a dataset exists",
            expected=f"{fraction}, fixed by the first snapshot",
            received=str(config.holdout.fraction),
            hint=f"Set holdout.fraction to {fraction}, or start a pipeline of another name",
        )
    classes = config.classes or tuple(dict.fromkeys(map(nfc, body["classes"])))
    strangers = sorted(set(map(nfc, body["labels"])) - set(classes))
    if strangers:
        raise ConfigurationError(
            "classes leaves out classes that the dataset holds",
            expected=f"all of {', '.join(sorted(body['labels']))}",
            received=f"classes without {', '.join(strangers)}",
            hint="Add them to classes, or start a pipeline of another name",
        )
    parts: list[PartRef] = []
    batches: list[str] = []
    for entry in history.entries:
        if entry.kind == "preprocessing":
            parts = []
        elif entry.kind == "batch":
            batches.append(entry.body["batch"])
        parts += [PartRef.model_validate(p) for p in entry.body["parts"]]
    return SnapshotRef(
        pipeline=config.name,
        number=history.number,
        snapshot=short(body["content"]),
        content=body["content"],
        classes=classes,
        preprocessing=body["preprocessing"],
        holdout=fraction,
        parts=tuple(parts),
        batches=tuple(batches),
        examples=int(body["examples"]),
        changes=datasets.changes(history.entries),
    )


@dataclass(frozen=True)
class Pending:
    """Closed batches that are not in the dataset and that nobody discarded.

    refused are those with an outcome under today's contract; waiting are the others.
    """

    waiting: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def pending(store: Store, config: Pipeline, history: commit_log.Log) -> Pending:
    """What lies in landing and is not in the dataset."""
    accepted = {entry.body["batch"] for entry in history.entries if entry.kind == "batch"}
    closed = [b for b in landing.closed_batches(store, config.name) if b not in accepted]
    if not closed:
        return Pending()
    discarded = discards.names(store, config.name)
    left = [batch for batch in closed if batch not in discarded]
    contract = contracts.digest(config)
    refused = tuple(b for b in left if store.size(outcome_key(config.name, b, contract)) is not None)
    return Pending(tuple(b for b in left if b not in refused), refused)


def waiting(store: Store, config: Pipeline, history: commit_log.Log) -> tuple[str, ...]:
    """Closed batches that neither the log, a refusal under today's contract nor a discard names."""
    return pending(store, config, history).waiting


def ids(config: Pipeline, snapshot: SnapshotRef, code: dict[str, str], attempt: int) -> tuple[str, str]:
    """(version, run_id) of DESIGN section 4, 12 hex digits each."""
    values: list[Any] = [
        snapshot.content,
        snapshot.holdout,
        config.workload,
        snapshot.classes,
        config.input,
        config.model,
        config.training,
        code["train"],
    ]
    version = short(digest("version", *values, *([attempt] if attempt else [])))
    rules = [rule.model_dump(mode="json") for rule in config.gate]
    return version, short(digest("run", version, rules, code["gate"]))


def asked(config: Pipeline, content: str) -> str:
    """The digest of the data and the configuration that a run is asked for, code and what is at its default apart."""
    parts = {"workload", "input", "classes", "model", "training", "gate"}
    return short(digest("asked", content, config.model_dump(mode="json", include=parts, exclude_defaults=True)))


def plan(store: Store, config: Pipeline, force: bool = False) -> Plan:
    """What `retrain` would do now.

    With `force`: the newest attempt that is unfinished, or else a new one. An attempt whose package
    exists although this run never began was trained for another gate, and is passed over.
    """
    history = snapshots(store, config.name, complete=True)
    snapshot = state(config, history)
    new = waiting(store, config, history)
    empty = Plan(
        pipeline=config.name, attempt=0, version=None, run_id=None, snapshot=snapshot, waiting=new,
        trained=False, finished=False,
    )  # fmt: skip
    if snapshot is None or snapshot.preprocessing != preprocessing(config):
        return empty
    code = code_digests(config)
    attempt = 0
    while True:
        version, run_id = ids(config, snapshot, code, attempt)
        finished = store.size(run_key(config.name, run_id, "manifest.json")) is not None
        trained = store.size(f"models/{config.name}/{version}/manifest.json") is not None
        begun = store.size(run_key(config.name, run_id, "started.json")) is not None
        if force and (finished or (trained and not begun)):
            attempt += 1
            continue
        return empty.model_copy(
            update={"attempt": attempt, "version": version, "run_id": run_id, "trained": trained, "finished": finished}
        )

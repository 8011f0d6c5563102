"""What is new, and the ids of snapshot, version and run. Decides `unchanged` with no heavy import.

Reading the pipeline's YAML, the dataset's state and the ids belongs here; doing any of it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leptonflow.core import accelerators, declared_files
from leptonflow.core.code_digests import code_digests
from leptonflow.core.hashing import digest, short
from leptonflow.core.store_keys import package_key, run_key
from leptonflow.data.dataset.dataset_state import preprocessing, snapshots, state
from leptonflow.data.ingest.pending_batches import waiting
from leptonflow.registry import ancestry
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.records import Plan, SnapshotRef
from schemas.starting import Start


def ids(
    config: Pipeline,
    snapshot: SnapshotRef,
    code: dict[str, str],
    attempt: int,
    files: Mapping[str, str] | None = None,
    start: Start | None = None,
) -> tuple[str, str]:
    """(version, run_id), 12 hex digits each. files: the sha256 of those that the YAML declares."""
    resolved = [accelerators.precision(config.training)] if config.training.precision == "auto" else []
    values: list[Any] = [
        snapshot.content,
        snapshot.holdout,
        config.workload,
        snapshot.classes,
        config.input,
        config.model,
        config.training,
        *resolved,
        code["train"],
    ]
    begun = [] if start is None or start.version is None else [{"start": start.version}]  # a file is one of `files`
    also = [*([dict(files)] if files else []), *begun, *([attempt] if attempt else [])]
    version = short(digest("version", *values, *also))
    rules = [rule.model_dump(mode="json") for rule in config.gate]
    if config.stop_early_if is not None:
        rules.append({"stop_early_if": config.stop_early_if.model_dump(mode="json")})
    return version, short(digest("run", version, rules, code["gate"]))


def asked(config: Pipeline, content: str) -> str:
    """The digest of the data and the configuration that a run is asked for, code and what is at its default apart."""
    parts = {"workload", "input", "classes", "model", "training", "gate", "stop_early_if"}
    values = config.model_dump(mode="json", include=parts, exclude_defaults=True)
    files = declared_files.digests(config)
    given = {name: value for name, value in values.items() if value != {}}
    return short(digest("asked", content, given, *([files] if files else [])))


def plan(store: Store, config: Pipeline, force: bool = False) -> Plan:
    """What `retrain` would do now.

    With `force`: the newest attempt that is unfinished, or else a new one. An attempt whose package
    exists although this run never began was trained for another gate, and is passed over.
    Raises ConfigurationError where this backend cannot train as the YAML wants, or where what it starts from is gone.
    """
    accelerators.check(config.training)
    history = snapshots(store, config.name, complete=True)
    snapshot = state(config, history)
    new = waiting(store, config, history)
    empty = Plan(
        pipeline=config.name, attempt=0, version=None, run_id=None, snapshot=snapshot, waiting=new,
        trained=False, finished=False,
    )  # fmt: skip
    if snapshot is None or snapshot.preprocessing != preprocessing(config):
        return empty
    code, files = code_digests(config), declared_files.digests(config)
    start = ancestry.start(store, config, snapshot)
    empty, attempt = empty.model_copy(update={"start": start}), 0
    while True:
        version, run_id = ids(config, snapshot, code, attempt, files, start)
        finished = store.size(run_key(config.name, run_id, "manifest.json")) is not None
        trained = store.size(package_key(config.name, version, "manifest.json")) is not None
        begun = store.size(run_key(config.name, run_id, "started.json")) is not None
        if force and (finished or (trained and not begun)):
            attempt += 1
            continue
        return empty.model_copy(
            update={"attempt": attempt, "version": version, "run_id": run_id, "trained": trained, "finished": finished}
        )

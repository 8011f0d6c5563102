"""The dataset after the last record of its log."""

from __future__ import annotations

import json
from typing import Any

from leptonflow.core import store_keys
from leptonflow.core.hashing import digest, short
from leptonflow.data.dataset import dataset_contents
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import ConfigurationError
from schemas.records import PartRef, SnapshotRef
from schemas.text import nfc


def snapshots(store: Store, pipeline: str, complete: bool = False) -> commit_log.Log:
    """The commit log of the pipeline's dataset; complete: held against a listing too."""
    return (commit_log.complete if complete else commit_log.read)(store, store_keys.dataset_log(pipeline))


def preprocessing(config: Pipeline) -> str:
    """The digest of how examples are encoded: the workload, its preprocessing version, and what of `input` matters."""
    workload = catalog.load(config.workload)
    return short(digest(workload.name, workload.preprocessing_version, workload.encoding(config.input)))


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
    check_group(config, history)
    classes = config.classes or tuple(dict.fromkeys(map(nfc, body["classes"])))
    strangers = sorted(set(map(nfc, body["labels"])) - set(classes))
    if strangers:
        raise ConfigurationError(
            "classes leaves out classes that the dataset holds",
            expected=f"all of {', '.join(sorted(body['labels']))}",
            received=f"classes without {', '.join(strangers)}",
            hint="Add them to classes; where they are mistakes, leave them there until `ingest --correct` or `retract` "
            "has taken their examples away",
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
        changes=dataset_contents.changes(history.entries),
        group=config.group,
    )


def fixed(config: Pipeline) -> dict[str, Any]:
    """What the first snapshot fixes besides the holdout's fraction, as a record has it: the group, if there is one."""
    return {"group": config.group.model_dump(mode="json")} if config.group else {}


def check_group(config: Pipeline, history: commit_log.Log) -> None:
    """Raise ConfigurationError where the YAML's group is not the one that the dataset has fixed."""
    if history.head is None:
        return
    before, now = history.head.body.get("group"), fixed(config).get("group")
    if before == now:
        return
    way = "Remove group" if before is None else f"Set group to {_shown(before)}"
    raise ConfigurationError(
        "group cannot change once a dataset exists: it decides which examples are in the holdout",
        expected=f"{_shown(before)}, fixed by the first snapshot",
        received=_shown(now),
        hint=f"{way}, or start a pipeline of another name and ingest the data there",
    )


def _shown(group: dict[str, str] | None) -> str:
    """As it stands in a YAML."""
    return "{" + ", ".join(f"{k}: {json.dumps(v)}" for k, v in group.items()) + "}" if group else "no group"

"""Encodes accepted examples again from landing/ when the preprocessing changes.

The examples, their ids and labels stay; only what is encoded of them is made anew, each landed file held
against its recorded sha256. What does not belong here: judging (an accepted example stays accepted).
"""

from __future__ import annotations

from collections.abc import Collection

from leptonflow.core import progress, store_keys
from leptonflow.core.hashing import digest, sha256, short
from leptonflow.core.person import person
from leptonflow.data.dataset import dataset_contents, dataset_state, identities, part_files
from leptonflow.data.ingest import landing
from leptonflow.data.ingest.label_columns import of_pipeline
from leptonflow.data.validation import examination
from leptonflow.data.validation.examined_rows import Row
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.constants import ATTEMPTS
from schemas.errors import LandingChanged, UsageError
from schemas.records import PartRef, SnapshotRef
from schemas.text import counted, nfc

RECORDED = ("id", "sha256", "label", "source", "key", "row", "facts")


def preprocess(store: Store, config: Pipeline) -> SnapshotRef:
    """The dataset's state with the pipeline's preprocessing, encoded again and committed where it differs.

    Raises LandingChanged, before any commit, where a landed file is missing or was changed. First of all it records
    the canonical digests of a dataset from before there were any.
    """
    identities.upgrade(store, config)
    return commit_log.retried(ATTEMPTS, lambda: _preprocessed(store, config))


def _preprocessed(store: Store, config: Pipeline) -> SnapshotRef:
    history = dataset_state.snapshots(store, config.name)
    snapshot = dataset_state.state(config, history)
    if snapshot is None or history.head is None:
        raise UsageError("there is no dataset to preprocess", hint=f"leptonflow ingest {config.name} SOURCE")
    target = dataset_state.preprocessing(config)
    if snapshot.preprocessing == target:
        return snapshot
    parts = _parts(store, config, history)
    pairs = dataset_contents.pairs(store, history.entries)
    groups = dataset_contents.groups(store, dataset_contents.accepted_parts(history.entries), config.group)
    content = dataset_contents.content_digest(pairs, target, groups)
    told = catalog.load(config.workload).told(config.input).how
    why = f"input is {told} now: {counted(len(pairs), 'example')} encoded again from landing/"
    body = {
        **{k: history.head.body[k] for k in ("classes", "labels", "holdout", "examples")},
        **dataset_state.fixed(config),
        "batch": None,
        "parts": [p.model_dump(mode="json") for p in parts],
        "snapshot": short(content),
        "content": content,
        "preprocessing": target,
    }
    identity = digest("preprocessing", config.name, target, history.number)
    history = commit_log.commit(store, history, id=identity, kind="preprocessing", body=body, who=person(), why=why)
    return dataset_state.state(config, history) or snapshot


def reencoded(store: Store, config: Pipeline, snapshot: SnapshotRef) -> SnapshotRef:
    """The same examples encoded for the input of `config`, with no record: how an old champion is scored."""
    history = dataset_state.snapshots(store, config.name)
    parts = tuple(p for p in _parts(store, config, history) if p.batch in snapshot.batches)
    return snapshot.model_copy(update={"parts": parts, "preprocessing": dataset_state.preprocessing(config)})


def _parts(store: Store, config: Pipeline, history: commit_log.Log) -> list[PartRef]:
    """A part encoded for the input of `config` for each batch: one that some record names already, else a new one."""
    target = dataset_state.preprocessing(config)
    named = [PartRef.model_validate(p) for entry in history.entries for p in entry.body["parts"]]
    there = {p.batch: p for p in named if p.preprocessing == target and store.size(p.key) is not None}
    changed = dataset_contents.read_changes(store, dataset_contents.changes(history.entries))
    retracted = {example for example, label in changed.items() if label is None}
    parts: list[PartRef] = []
    for recorded in dataset_contents.accepted_parts(history.entries):
        part = there.get(recorded.batch) or _encode_again(store, config, recorded, target, retracted)
        parts += [part] if part else []
    return parts


def _encode_again(
    store: Store,
    config: Pipeline,
    recorded: PartRef,
    target: str,
    retracted: Collection[str],
) -> PartRef | None:
    """None where all of it was retracted and is no longer there."""
    table = part_files.read_part(store, recorded, (*RECORDED, "group") if config.group else RECORDED)
    held = config.classes or sorted(set(table["label"].to_pylist()))
    workload = catalog.load(config.workload)
    columns = of_pipeline(workload, config.input).grouped(config.group)
    landed = landing.open_batch(store, config.name, recorded.batch, held, workload.suffixes, columns)
    classes = config.classes
    rows = examination.examine(store, config, landed, workload, classes=classes, progress=progress.report)
    found = identities.by_place(rows)
    examples: list[part_files.Accepted] = []
    changed: list[str] = []
    for old in table.to_pylist():
        row = found.get((nfc(old["source"]), old["key"]))
        if row is not None and row.encoded is None:
            row = row._replace(encoded=_as_accepted(store, config, recorded.batch, row, old["sha256"]))
        if row is None or row.sha256 != old["sha256"] or row.encoded is None:
            if old["id"] in retracted:
                continue
            changed.append(store_keys.landed_key(config.name, recorded.batch, old["key"]))
            continue
        examples.append(part_files.Accepted(**old, encoded=row.encoded))
    if changed:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise LandingChanged(
            f"{len(changed)} landed files are not those that were accepted",
            expected="each accepted file under landing/ as it arrived",
            received=f"changed or missing: {shown}",
            hint="Put the original files back under these keys, then run the same command again",
        )
    return part_files.write_part(store, config, recorded.batch, target, examples)


def _as_accepted(store: Store, config: Pipeline, batch: str, row: Row, recorded: str) -> bytes | None:
    """The encoded bytes of an accepted file that the current checks would refuse: an accepted example stays accepted.

    None where the file is not the one that was recorded, or an array.
    """
    if row.key is None or row.sha256 != recorded:
        return None
    data = store.get(store_keys.landed_key(config.name, batch, row.key))
    return catalog.load(config.workload).encode_accepted(data, config.input) if sha256(data) == recorded else None

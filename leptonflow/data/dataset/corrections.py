"""What a person changes about accepted examples: newer labels (`ingest --correct`), and what leaves (`retract`).

What does not belong here: the records themselves (change_records), and judging new rows (acceptance).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from leptonflow.core import progress
from leptonflow.data.dataset import dataset_contents, dataset_state, identities, known_examples
from leptonflow.data.dataset.change_records import Change, commit, rows, with_id
from leptonflow.data.dataset.dataset_contents import RELABELLED, RETRACTED
from leptonflow.data.dataset.holdout_split import in_holdout
from leptonflow.data.ingest import discards, landing
from leptonflow.data.ingest.label_columns import of_pipeline
from leptonflow.data.validation import examination, faults
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound, UsageError

ATTEMPTS = 3


def correct(store: Store, config: Pipeline, batch: str, reason: str | None) -> list[Change]:
    """Record the labels of a landed batch where the dataset holds its examples under others; what was changed.

    An example that was retracted comes back. Where the batch itself has one under two labels, nothing changes.
    """
    history = dataset_state.snapshots(store, config.name)
    if history.head is None or discards.of(store, config.name, batch) is not None:
        return []
    identities.upgrade(store, config)
    classes = known_examples.classes(config, history) or ()
    workload = catalog.load(config.workload)

    def valid(label: str) -> bool:
        return label in classes if workload.target.classes else workload.target.fault(label) is None

    try:
        columns = of_pipeline(workload, config.input).grouped(config.group)
        landed = landing.open_batch(store, config.name, batch, None, workload.suffixes, columns)
        examined = examination.examine(store, config, landed, workload, classes=classes, progress=progress.report)
    except Exception as error:  # admission says it of the batch
        if not isinstance(error, Damaged) and faults.sentence(error) is None:
            raise
        return []
    newer: dict[str, set[str]] = defaultdict(set)
    for row in examined:
        if row.rule is None and row.id is not None and row.label and valid(row.label):
            newer[row.id].add(str(row.label))
    labels = {content: next(iter(found)) for content, found in newer.items() if len(found) == 1}
    why = reason or f"the batch {batch} has newer labels"
    return _recorded(store, config, RELABELLED, why, lambda history: _newer(store, config, history, labels))


def retract(store: Store, config: Pipeline, examples: Sequence[str], reason: str) -> list[Change]:
    """Take examples out of the dataset by one record, each named by its source, its id or the beginning of it.

    One that is out already is left as it is. Raises UsageError where a name is too short or fits several examples,
    NotFound where it fits none.
    """
    if not reason.strip():
        raise UsageError("a retraction needs a reason", expected="--reason TEXT", received="an empty one")
    return _recorded(store, config, RETRACTED, reason, lambda history: _named(store, history, examples))


def _recorded(
    store: Store, config: Pipeline, kind: str, why: str, decide: Callable[[commit_log.Log], list[Change]]
) -> list[Change]:
    """Commit what is decided on the newest state; decided again after a lost race. Raises Overtaken."""

    def once() -> list[Change]:
        history = dataset_state.snapshots(store, config.name)
        changes = decide(history)
        if changes:
            commit(store, config, history, kind, changes, why)
        return changes

    return commit_log.retried(ATTEMPTS, once)


def _newer(store: Store, config: Pipeline, history: commit_log.Log, labels: dict[str, str]) -> list[Change]:
    """Each example whose content has another label there. Of one that left, the copy that training held comes back."""
    snapshot = dataset_state.state(config, history)
    assert snapshot is not None
    same = identities.canonical(store, history)
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(store, history, retracted=True):
        content = same.get(row["id"], row["id"])
        if content in labels:
            groups[content].append(row)
    there = dataset_contents.tables(store, snapshot.parts, (), ("id",))
    encoded = {example for table in there for example in table["id"].to_pylist()}
    changes = []
    for content, group in groups.items():
        alive = [row for row in group if row["label"] is not None]
        if not alive:
            trained = [row for row in group if not in_holdout(row["id"], snapshot.holdout)]
            alive = [row for row in trained or group if row["id"] in encoded]
        changes += [Change(row, labels[content]) for row in alive if row["label"] != labels[content]]
    return changes


def _named(store: Store, history: commit_log.Log, examples: Sequence[str]) -> list[Change]:
    found: dict[str, dict[str, Any]] = {}
    every = rows(store, history, retracted=True)
    for name in examples:
        row = _of_source(every, name) or with_id(every, name)
        if row is None:
            raise NotFound(
                "no example has that id or source",
                expected="a file as it lies in the folder that was ingested, such as cat/1.png, a row, such as "
                "table.csv[3], or an id or its beginning, such as `query` shows as predictions.example_id",
                received=name,
            )
        found[row["id"]] = row
    return [Change(row, None) for row in found.values() if row["label"] is not None]


def _of_source(every: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The example that came from this file or row: of those that are there, or else of those that left."""
    same = [row for row in every if row["source"] == name]
    there = [row for row in same if row["label"] is not None]
    if len(there) > 1:
        ids = ", ".join(f"{row['id'][:12]} (batch {row['batch']})" for row in there)
        raise UsageError("several examples have that source", expected=f"one of the ids {ids}", received=name)
    return next(iter(there or same), None)

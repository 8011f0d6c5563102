"""Canonical digests of examples whose ids are older than the canonical form: recorded once, by an upgrade.

Such an example keeps its id and its side of the split. Intake and holdout compare by the canonical digest, which is
the id itself for every example that arrived since. What does not belong here: the canonical form (the workload).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from leptonflow.core import parquet, progress
from leptonflow.core.hashing import digest
from leptonflow.core.person import person
from leptonflow.data.dataset import change_records, dataset_contents, dataset_state, part_files
from leptonflow.data.dataset.dataset_contents import RETRACTED
from leptonflow.data.dataset.holdout_split import in_holdout
from leptonflow.data.ingest import landing, layouts
from leptonflow.data.validation import examination, faults
from leptonflow.data.validation.examined_rows import Row
from leptonflow.storage import commit_log
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound
from schemas.records import ChangesRef
from schemas.text import counted, nfc, noun

KIND = "identities"
CANONICAL = "canonical"  # of a batch's record: its examples' ids are canonical digests
ATTEMPTS = 3


def canonical(store: Store, history: commit_log.Log) -> dict[str, str]:
    """Example id -> canonical digest, of the examples for which the two differ. Raises Damaged."""
    found: dict[str, str] = {}
    for entry in history.entries:
        if entry.kind == KIND:
            ref = ChangesRef.model_validate(entry.body["identities"])
            table = parquet.read(recorded(store, ref.key, ref.sha256), ("id", "canonical"))
            found.update((i, c) for i, c in zip(*(t.to_pylist() for t in table.columns), strict=True) if i != c)
    return found


def upgrade(store: Store, config: Pipeline) -> None:
    """Record the canonical digests that are missing; a holdout example that is in training too is retracted first.

    Each landed file is held against its recorded sha256; an example whose file is gone or was changed goes on by its
    id alone. Safe to repeat: a dataset whose digests are recorded is left as it is.
    """
    done: dict[int, tuple[dict[str, str], int]] = {}

    def once() -> None:
        history = dataset_state.snapshots(store, config.name)
        entries = pending(history)
        if not entries:
            return
        for entry in entries:
            if entry.number not in done:
                done[entry.number] = _examined(store, config, entry)
        found = {example: same for entry in entries for example, same in done[entry.number][0].items()}
        lost = sum(done[entry.number][1] for entry in entries)
        history = _retract_copies(store, config, history, canonical(store, history) | found)
        _record(store, config, history, found, lost)

    commit_log.retried(ATTEMPTS, once)


def straddling(
    entries: Sequence[commit_log.Entry], store: Store, same: dict[str, str], fraction: float
) -> list[tuple[str, str]]:
    """(holdout example, the training example of the same content), for each that the dataset holds."""
    training = {}
    for part in dataset_contents.accepted_parts(entries):  # retracted ones too: some version has learned from them
        for example in part_files.read_columns(store, part, ("id",))["id"].to_pylist():
            if not in_holdout(example, fraction):
                training[same.get(example, example)] = example
    held = (example for example, _ in dataset_contents.pairs(store, entries) if in_holdout(example, fraction))
    return [(example, training[c]) for example in held if (c := same.get(example, example)) in training]


def conflicts(store: Store, history: commit_log.Log) -> list[list[dict[str, str]]]:
    """Contents that the dataset holds under several labels, each as its examples: id, label, batch, source."""
    same = canonical(store, history)
    if not same:  # intake lets no content in twice
        return []
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in change_records.rows(store, history):
        groups[same.get(row["id"], row["id"])].append(row)
    return [group for group in groups.values() if len({row["label"] for row in group}) > 1]


def by_place(rows: Sequence[Row]) -> dict[tuple[str, str | None], Row]:
    """Examined rows by source and landed key: names of other bytes can be shown alike, their keys differ."""
    return {(row.source, layouts.shown(row.key) if row.key else None): row for row in rows}


def pending(history: commit_log.Log) -> list[commit_log.Entry]:
    """The batches whose examples have ids of before and no recorded canonical digest."""
    last = max((entry.number for entry in history.entries if entry.kind == KIND), default=0)
    batches = (entry for entry in history.entries[last:] if entry.kind == "batch" and entry.body["parts"])
    return [entry for entry in batches if not entry.body.get(CANONICAL)]


def _examined(store: Store, config: Pipeline, entry: commit_log.Entry) -> tuple[dict[str, str], int]:
    """(id -> canonical digest, how many are lost) of a batch's examples, from landing/."""
    parts = dataset_contents.accepted_parts([entry])
    tables = dataset_contents.tables(store, parts, (), ("id", "sha256", "source", "key"))
    recorded_rows = [row for table in tables for row in table.to_pylist()]
    small = config.model_copy(update={"input": (2, 2, 1)})  # what is encoded is not needed
    workload = catalog.load(config.workload)
    try:
        landed = landing.open_batch(store, config.name, entry.body["batch"], suffixes=workload.suffixes)
        rows = examination.examine(
            store, small, landed, workload, classes=entry.body["classes"],
            progress=progress.report,
        )  # fmt: skip
    except Exception as error:  # as where a batch is admitted: what comes from outside may raise anything
        if not isinstance(error, NotFound | Damaged) and faults.sentence(error) is None:
            raise
        rows = []
    places = by_place(rows)
    found = {}
    for old in recorded_rows:
        row = places.get((nfc(old["source"]), old["key"]))
        if row is not None and row.id is not None and row.sha256 == old["sha256"]:
            found[old["id"]] = row.id
    return found, len(recorded_rows) - len(found)


def _retract_copies(store: Store, config: Pipeline, history: commit_log.Log, same: dict[str, str]) -> commit_log.Log:
    assert history.head is not None
    copies = dict(straddling(history.entries, store, same, float(history.head.body["holdout"])))
    if not copies:
        return history
    gone = [change_records.Change(row, None) for row in change_records.rows(store, history) if row["id"] in copies]
    what = noun(len(gone), "holdout example is a training example", "holdout examples are training examples")
    why = f"{len(gone)} {what} in other files"
    progress.note(f"{why}: {noun(len(gone), 'it is', 'they are')} retracted")
    return change_records.commit(store, config, history, RETRACTED, gone, why)


def _record(store: Store, config: Pipeline, history: commit_log.Log, found: dict[str, str], lost: int) -> None:
    import pyarrow as pa

    assert history.head is not None
    ids = sorted(found)
    ref = change_records.write(
        store, config.name, pa.table({"id": pa.array(ids, pa.string()), "canonical": [found[i] for i in ids]})
    )
    why = f"canonical digests of {counted(len(found), 'example')} from before"
    if lost:
        why += f"; {lost} have no landed file any more and are compared by id alone"
    progress.note(f"{config.name}: {why}")
    kept = ("classes", "labels", "holdout", "examples", "snapshot", "content", "preprocessing")
    body = {
        **{name: history.head.body[name] for name in kept},
        "batch": None,
        "parts": [],
        "identities": ref.model_dump(mode="json"),
        "lost": lost,
    }
    identity = digest(KIND, config.name, ref.sha256, history.number)
    commit_log.commit(store, history, id=identity, kind=KIND, body=body, who=person(), why=why)

"""What a dataset holds, gathered from its log for intake: files, contents and what was quarantined before.

What does not belong here: what a row's verdict is (acceptance), and walking a source (folder_walk).
"""

from __future__ import annotations

from collections.abc import Iterator

from leptonflow.core import parquet, store_keys
from leptonflow.data.dataset import dataset_contents, dataset_state, identities, part_files
from leptonflow.data.ingest import layouts
from leptonflow.data.validation import contracts
from leptonflow.data.validation.acceptance import CORRECTABLE, UNKNOWN_LABEL, Knowledge, stands
from leptonflow.storage import commit_log
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.records import ChangesRef, Listing
from schemas.text import counted, nfc

OUT_OF_RANGE = "label-out-of-range"  # a number of a `.npy` for which there was no class
Row = tuple[str, str]  # file sha256, label


def knowledge(store: Store, config: Pipeline, history: commit_log.Log) -> Knowledge:
    """What the dataset holds, and what accepted batches had quarantined under the current contract.

    A refused batch teaches nothing: sent again with more files, it must meet the limit again.
    """
    files: dict[str, tuple[str, str]] = {}
    examples: dict[str, tuple[str, str]] = {}
    retracted: dict[str, str] = {}
    changed = dataset_contents.read_changes(store, dataset_contents.changes(history.entries))
    same = identities.canonical(store, history)
    reasons = _retractions(store, history)
    groups: dict[str, str] = {}
    columns = (*part_files.IDENTITY, *(("group",) if config.group else ()))
    for part in dataset_contents.accepted_parts(history.entries):
        table = part_files.read_columns(store, part, columns)
        if config.group:
            groups.update(zip(table["id"].to_pylist(), table["group"].to_pylist(), strict=True))
        for example, file, first, batch in zip(*(table[c].to_pylist() for c in part_files.IDENTITY), strict=True):
            label = changed.get(example, first)
            if label is None:
                retracted[same.get(example, example)] = reasons[example]
            else:
                files[file] = examples[same.get(example, example)] = (nfc(label), batch)
    recalled: dict[Row, tuple[str, str]] = {}
    quarantined: set[Row] = set()
    valid = classes(config, history) or ()
    for number, row, rule, reason in _quarantined(store, config, history):
        quarantined.add(row)
        if stands(rule, row[1], valid, labels_changed=bool(dataset_contents.changes(history.entries[number:]))):
            recalled.setdefault(row, (rule, reason))
    return Knowledge(files, examples, recalled, retracted, frozenset(quarantined), groups)


def index(store: Store, config: Pipeline, correct: bool = False) -> layouts.Index:
    """What `ingest` need not land again. To correct labels, the whole source is examined: it may contradict itself."""
    history = dataset_state.snapshots(store, config.name)
    dataset_state.check_group(config, history)  # before anything is landed
    found = knowledge(store, config, history)
    recalled = {row: why for row, why in found.recalled.items() if not correct or why[0] not in CORRECTABLE}
    return layouts.Index(
        known={} if correct else {file: label for file, (label, _) in found.files.items()},
        recalled=recalled,
        classes=classes(config, history),
        group=config.group,
        groups=_groups_of_files(store, history) if config.group else {},
    )


def _groups_of_files(store: Store, history: commit_log.Log) -> dict[str, str]:
    """The sha256 of each accepted file, or of a row's bytes -> the group of its example."""
    found: dict[str, str] = {}
    for table in dataset_contents.tables(
        store, dataset_contents.accepted_parts(history.entries), (), ("id", "sha256", "group")
    ):
        found.update(zip(table["sha256"].to_pylist(), table["group"].to_pylist(), strict=True))
    return found


def judged_anew(store: Store, config: Pipeline, batch: str, listing: Listing, correct: bool) -> str | None:
    """What to add to the name of a closed batch, where its source has rows in quarantine that have another verdict now.

    That is so where their label is a class by now; and, to correct labels, where some of it was not landed, or the
    batch was refused whole.
    """
    history = dataset_state.snapshots(store, config.name)
    entry = next((e for e in history.entries if e.kind == "batch" and e.body["batch"] == batch), None)
    contract = contracts.digest(config)
    if correct:
        stood = entry is None and store.size(store_keys.outcome_key(config.name, batch, contract)) is not None
        if stood or listing.known or any(row.rule in CORRECTABLE for row in listing.refused):
            return "correct"
    if entry is None or not entry.body["quarantine"] or entry.body["contract"] == contract:
        return None
    valid = classes(config, history) or ()
    rows = _parted(store, entry)
    if any(rule == OUT_OF_RANGE or (rule == UNKNOWN_LABEL and label in valid) for _, label, rule, _ in rows):
        return contract[:6]
    return None


def left_behind(store: Store, config: Pipeline, history: commit_log.Log) -> list[str]:
    """A sentence for each accepted batch with rows in quarantine for a label that is a class by now."""
    valid = set(classes(config, history) or ())
    contract = contracts.digest(config)
    waiting: dict[str, set[str]] = {}
    judged: set[str] = set()
    for entry in history.entries:
        if entry.body.get("quarantine") and entry.body["contract"] == contract:
            judged.update(file for file, *_ in _parted(store, entry) if file)
        elif entry.body.get("quarantine"):
            rows = ((file, label, rule) for file, label, rule, _ in _parted(store, entry))
            found = {file for file, label, rule in rows if file and rule == UNKNOWN_LABEL and label in valid}
            waiting |= {entry.body["batch"]: found} if found else {}
    if waiting:
        parts = dataset_contents.accepted_parts(history.entries)
        for table in dataset_contents.tables(store, parts, (), ("id", "sha256")):
            judged.update(table["sha256"].to_pylist())
    return [
        f"batch {batch}: {counted(len(files - judged), 'quarantined row has', 'quarantined rows have')} a label that "
        "is now a class; ingest their source again, or land those files as a batch of their own"
        for batch, files in waiting.items()
        if files - judged
    ]


def classes(config: Pipeline, history: commit_log.Log) -> tuple[str, ...] | None:
    """The YAML's, else those that the first batch fixed; None where there are none (yet)."""
    if config.classes is not None:
        return config.classes
    return tuple(dict.fromkeys(map(nfc, history.head.body["classes"]))) or None if history.head else None


def _retractions(store: Store, history: commit_log.Log) -> dict[str, str]:
    """Retracted example id -> the sentence that says so."""
    found: dict[str, str] = {}
    for entry in history.entries:
        if entry.kind == dataset_contents.RETRACTED:
            ref = ChangesRef.model_validate(entry.body["changes"])
            said = f"record {entry.number} retracted this example ({entry.why}); --correct adds it again"
            found |= dict.fromkeys(dataset_contents.read_changes(store, [ref]), said)
    return found


def _quarantined(store: Store, config: Pipeline, history: commit_log.Log) -> Iterator[tuple[int, Row, str, str]]:
    """(record's number, row, rule, reason) of what accepted batches had quarantined under the current contract."""
    contract = contracts.digest(config)
    for entry in history.entries:
        if entry.body.get("quarantine") and entry.body["contract"] == contract:
            for file, label, rule, reason in _parted(store, entry):
                if file and label:
                    yield entry.number, (file, label), rule, reason


def _parted(store: Store, entry: commit_log.Entry) -> Iterator[tuple[str | None, str | None, str, str]]:
    """(file's sha256, label, rule, reason) of each row that a batch had quarantined."""
    refused = entry.body["quarantine"]
    data = recorded(store, refused["key"], refused["sha256"])
    table = parquet.read(data, ["sha256", "label", "rule", "reason"])
    for file, label, rule, reason in zip(*(c.to_pylist() for c in table.columns), strict=True):
        yield file, nfc(label) if label else label, rule, reason

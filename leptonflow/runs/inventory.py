"""What the records of a store name: every object that must lie there, with its sha256 where one is on record.

A key is named by a record of a commit log, or by a manifest, a listing or an outcome. An object that no record names is
not looked at: a lost race or a kill leaves such. What does not belong here: reading what is named (`integrity`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from leptonflow.core import parquet, store_keys
from leptonflow.core.hashing import canonical, sha256
from leptonflow.data.ingest import landed_changes
from leptonflow.evaluation import load_check
from leptonflow.registry import champion_log, packages
from leptonflow.runs import pipeline_status, recording
from leptonflow.storage import commit_log
from leptonflow.storage.objects import parsed
from leptonflow.storage.store import Store
from leptonflow.tables import table_sources
from schemas.errors import Damaged, NotFound
from schemas.records import Outcome, PartRef

GONE = "no such object"
DOCUMENTS = (
    store_keys.RUNS, store_keys.FITS, store_keys.MODELS, store_keys.DISCARDED, store_keys.STUDIES, store_keys.APPROVALS,
    store_keys.SCORES, store_keys.MONITORING,
)  # fmt: skip


class Named(NamedTuple):
    """An object that a record names. Without a sha256 on record, `problem` says what is wrong with its bytes."""

    key: str
    sha256: str | None = None
    problem: Callable[[bytes], str | None] = lambda data: None
    expected: str = "an object"


@dataclass
class Verified:
    """What was found. damaged: the key, what was expected and what was received."""

    objects: int = 0
    bytes: int = 0
    damaged: dict[str, tuple[str, str]] = field(default_factory=dict)

    def wrong(self, key: str, expected: str | None, received: str | None) -> None:
        self.damaged.setdefault(key, (expected or "what was recorded", received or "something else"))

    def document(self) -> dict[str, Any]:
        rows = [{"key": key, "expected": e, "received": r} for key, (e, r) in sorted(self.damaged.items())]
        return {"objects": self.objects, "bytes": self.bytes, "damaged": rows}


def everything(store: Store, names: Sequence[str], found: Verified) -> Iterator[Named]:
    """Records first: what they name with a sha256 is known before it is met as a file."""
    for name in names:
        yield from _dataset(store, name, found)
        yield from _runs(store, name, found)
        yield from _promotions(store, name, found)
        _log(store, store_keys.pins_log(name), found)
        yield from _packages(store, name, found)
        for folder in DOCUMENTS:
            yield from _documents(store, f"{folder}/{name}")
    yield from _compactions(store, found)


def _log(store: Store, prefix: str, found: Verified) -> list[commit_log.Entry]:
    """The records that can be read, each verified by itself, and then as a chain."""
    there: dict[int, commit_log.Entry | None] = {}
    for key, size in store.list(prefix):
        name = commit_log.RECORD.fullmatch(key, len(prefix) + 1)
        if name is None:
            continue
        found.objects += 1
        found.bytes += size
        number = int(name[1])
        try:
            (there[number],) = commit_log.records(store, prefix, [number])
        except Damaged as error:
            found.wrong(key, error.expected, error.received or GONE)
            there[number] = None
    for number in range(1, max(there, default=0)):
        entry, after = there.get(number), there.get(number + 1)
        key = store_keys.record_key(prefix, number)
        if number not in there:
            found.wrong(key, "a record, as later ones are there", GONE)
        elif entry is not None and after is not None and after.previous != entry.sha256:
            # The later one is verified by its own digest, or by those after it.
            found.wrong(key, f"sha256 {after.previous}", f"sha256 {entry.sha256}")
    return [entry for entry in there.values() if entry is not None]


def _dataset(store: Store, pipeline: str, found: Verified) -> Iterator[Named]:
    """Parts, quarantine parts, outcomes with their rows in the tables, and the landed files of accepted batches."""
    recorded: set[str] = set()
    prefix = store_keys.dataset_log(pipeline)
    entries = _log(store, prefix, found)
    after = store_keys.record_key(prefix, entries[-1].number + 1 if entries else 1)
    for entry in entries:
        yield from _references(entry.body)
        if not entry.body.get("outcome"):
            continue
        try:
            outcome = Outcome.model_validate(entry.body["outcome"])
        except ValueError as error:
            found.wrong(store_keys.record_key(prefix, entry.number), "a batch's outcome", str(error).splitlines()[0])
            continue
        key = store_keys.outcome_key(outcome.pipeline, outcome.batch, outcome.contract)
        recorded.add(key)
        yield Named(key, sha256(canonical(entry.body["outcome"])))
        yield from _rows(outcome)
        yield from _landed(store, pipeline, outcome.batch, entry.body["parts"], found)
    for key in store.keys(store_keys.outcomes_folder(pipeline)):
        if not key.endswith(".json") or key in recorded:
            continue
        recorded.add(key)
        try:
            refused = parsed(store, key, Outcome.model_validate_json)
        except ValueError as error:
            found.wrong(key, "a batch's outcome", str(error).splitlines()[0])
            continue
        if refused.outcome == "accepted":
            found.wrong(after, f"the record of the batch {refused.batch}, which was accepted", GONE)
        yield Named(key)
        yield from _references(refused.model_dump(mode="json"))
        yield from _rows(refused)
        yield from _landed(store, pipeline, refused.batch, (), found)
    yield from _told_in_tables(store, pipeline, recorded)


def _rows(outcome: Outcome) -> Iterator[Named]:
    """A batch's files in the tables: no record has their sha256, and the outcome tells what is in them."""
    from leptonflow.tables import table_files

    for key, rows in table_files.batch_files(outcome):
        yield Named(key, None, partial(_other_rows, key, rows), "the rows of the batch's outcome")


def _other_rows(key: str, rows: Any, data: bytes) -> str | None:
    """What is wrong with a file of these rows. Another release may have written other bytes for the same rows."""
    from leptonflow.tables import table_files

    ours = (table_files.encode(rows), table_files.encode_as_text(rows))
    if data in ours:
        return None
    try:
        there = table_files.decode(data, key)
        if parquet.layout(data) in map(parquet.layout, ours):
            return f"sha256 {sha256(data)}"
    except Damaged as error:
        return error.received
    same = [name for name in there.column_names if name in rows.column_names]
    return None if there.select(same).equals(rows.select(same)) else "other rows"


def _told_in_tables(store: Store, pipeline: str, recorded: set[str]) -> Iterator[Named]:
    """The outcomes that rows of the table `batches` tell of and that are not there."""
    from leptonflow.tables import table_files

    names = {table_files.batch_id(*key.removesuffix(".json").split("/")[2:]) for key in recorded}
    for key in store.keys(store_keys.table_folder("batches", pipeline)):
        if key.rsplit("/", 1)[1].removesuffix(".parquet") not in names:
            yield Named(key)
            with suppress(Damaged, NotFound, KeyError):
                for row in parsed(store, key, partial(table_files.decode, where=key)).to_pylist():
                    yield Named(store_keys.outcome_key(pipeline, row["batch"], row["contract"]))


def _landed(
    store: Store, pipeline: str, batch: str, parts: Sequence[dict[str, Any]], found: Verified
) -> Iterator[Named]:
    prefix = store_keys.batch_folder(pipeline, batch)
    begun, ready = (store_keys.landed_key(pipeline, batch, name) for name in (store_keys.INGEST, store_keys.READY))
    with suppress(NotFound):
        both = store.get(begun), store.get(ready)
        yield Named(begun, sha256(both[1]))  # `ingest` begins and closes a batch with the same bytes
        yield Named(ready, sha256(both[0]))
    try:
        expected, _ = landed_changes.landed(store, pipeline, batch, [PartRef.model_validate(part) for part in parts])
    except (Damaged, NotFound) as error:
        if prefix in error.message:  # else it is a part, which is told by its own name
            found.wrong(ready, error.expected, error.received or GONE)
        return
    except (ValueError, OSError):  # a part that is no Parquet
        return
    there = landed_changes.keys(store, pipeline, batch)
    for key, digest in expected.items():
        yield Named(there.get(key, store_keys.landed_key(pipeline, batch, key)), digest)


def _promotions(store: Store, pipeline: str, found: Verified) -> Iterator[Named]:
    """The manifests of champions, and the decisions of runs: each is written before its record."""
    prefix = store_keys.promotions_log(pipeline)
    entries = _log(store, prefix, found)
    with suppress(Damaged):  # each is told by its own name
        gone = pipeline_status.shortened(commit_log.Log(prefix, tuple(entries)), recording.runs(store, pipeline))
        if gone is not None:
            found.wrong(store_keys.record_key(prefix, len(entries) + 1), gone.expected, GONE)
    for entry in entries:
        try:
            body = champion_log.promotion(commit_log.Log(prefix, ()), entry)
        except Damaged as error:
            found.wrong(store_keys.record_key(prefix, entry.number), error.expected, error.received)
            continue
        yield Named(store_keys.package_key(pipeline, body.version, "manifest.json"), body.manifest_sha256)
        if body.run_id is not None:
            yield _json(store_keys.decision_key(pipeline, body.run_id, entry.number - 1))


def _packages(store: Store, pipeline: str, found: Verified) -> Iterator[Named]:
    dataset = store_keys.dataset_log(pipeline)
    last = commit_log.last_number(store, dataset)
    for version in store.folders(store_keys.packages_folder(pipeline)):
        key = store_keys.package_key(pipeline, version, "manifest.json")
        try:
            manifest = packages.manifest(store, pipeline, version)
        except NotFound:  # not finished; a champion's is named by its record
            continue
        except Damaged as error:
            found.wrong(key, error.expected, error.received)
            continue
        yield Named(key)
        if manifest.snapshot_number > last:  # records lost at a log's end leave no gap
            found.wrong(
                store_keys.record_key(dataset, manifest.snapshot_number), f"what {version} was trained on", GONE
            )
        for file in manifest.files:
            yield Named(store_keys.package_key(pipeline, version, file.key), file.sha256)
        for fold in range(manifest.config.get("training", {}).get("folds", 0)):
            yield _json(store_keys.fit_key(pipeline, version, fold, "manifest.json"))
        yield _json(store_keys.fit_key(pipeline, version, None, "manifest.json"))


def _runs(store: Store, pipeline: str, found: Verified) -> Iterator[Named]:
    """Finished runs: their manifest, what it names, and the package that the run is about."""
    for run in store.folders(store_keys.runs_folder(pipeline)):
        key = store_keys.run_key(pipeline, run, "manifest.json")
        if store.size(key) is None:
            if store.size(store_keys.table_key("runs", pipeline, run)) is not None:
                found.wrong(key, "the manifest of a run that the table `runs` tells of", GONE)
            continue
        try:
            manifest = recording.read_manifest(store, key)
        except Damaged as error:
            found.wrong(key, error.expected, error.received)
            continue
        yield Named(key)
        yield from _references(manifest)
        version = manifest["document"].get("version")
        row = store_keys.table_key("models", pipeline, version)
        if version is not None:
            yield Named(store_keys.package_key(pipeline, version, "manifest.json"), _told_digest(store, row))


def _told_digest(store: Store, key: str) -> str | None:
    """The sha256 of a version's manifest, as its row in the table `models` has it."""
    from leptonflow.tables import table_files

    with suppress(Damaged, NotFound, KeyError, IndexError):
        return str(parsed(store, key, partial(table_files.decode, where=key))["manifest_sha256"][0].as_py())
    return None


def _documents(store: Store, prefix: str) -> Iterator[Named]:
    """Every JSON document below the prefix, of models their load checks alone, and what it names."""
    for key in store.keys(prefix):
        if key.endswith(".json") and (not prefix.startswith(f"{store_keys.MODELS}/") or store_keys.is_load_check(key)):
            yield _json(key)
            with suppress(NotFound, ValueError):  # told as `_json` is looked at
                yield from _references(parsed(store, key, json.loads))


def _json(key: str) -> Named:
    read: Callable[[bytes], Any] = load_check.read if store_keys.is_load_check(key) else json.loads

    def problem(data: bytes) -> str | None:
        try:
            read(data)
        except ValueError as error:
            return str(error).splitlines()[0]
        return None

    return Named(key, None, problem, "a JSON document")


def _compactions(store: Store, found: Verified) -> Iterator[Named]:
    for table in table_sources.with_files():
        for entry in _log(store, store_keys.compaction_log(table), found):
            for made in entry.body.get("made", ()):
                yield Named(made["key"], made["key"].rsplit("/", 1)[1].removesuffix(".parquet"))
                yield from (Named(key) for key in made["replaces"])


def _references(value: Any) -> Iterator[Named]:
    """Every {key, sha256} in a document; a key is relative to the store's root."""
    if isinstance(value, dict):
        if isinstance(value.get("key"), str) and isinstance(value.get("sha256"), str):
            yield Named(value["key"], value["sha256"])
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _references(inner)

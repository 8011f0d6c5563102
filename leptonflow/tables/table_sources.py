"""Where the rows of each table come from: its own files, their compactions, quarantine parts, a log or records.

What lies on the store already has one source and no second truth. Of a table with files a reader takes those that the
newest record of its compaction log names, and those that they do not replace; whichever of both it lists first, and
whatever is written meanwhile, it has each row once, because no file is ever changed or deleted. What does not belong
here: SQL (`queries`), writing rows (`table_files`) and compacting them (`compaction`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from leptonflow.core import parquet, store_keys
from leptonflow.core.store_keys import PROMOTIONS, SNAPSHOTS
from leptonflow.storage import commit_log
from leptonflow.storage.objects import BACK, parsed, read_model, read_models, recorded
from leptonflow.storage.store import Store
from leptonflow.tables import fits_under_way, table_files
from schemas.errors import Damaged, NotFound

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Source:
    """A file of rows, and its size in bytes. Of a compaction's: the record that made it, and the files it replaces."""

    key: str
    bytes: int
    record: int | None = None
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sources:
    """What a table is read from: files that no compaction has replaced, and those that compactions made."""

    loose: tuple[Source, ...]
    compacted: tuple[Source, ...]


def files(store: Store, table: str) -> list[str]:
    """The keys of a table's files: an explicit list, never a glob. Empty for a table that comes from a log."""
    return _files(store, table)[0]


def files_and_under_way(store: Store, table: str) -> tuple[list[str], pa.Table | None]:
    """As `files`, and the rows of what is under way and has no file yet; None where there are none."""
    under_way = fits_under_way.epochs(store) if table == "epochs" else {}  # first: what ends meanwhile has its file
    keys, replaced = _files(store, table)
    written = replaced.union(keys)
    rows = [row for either, own in under_way.items() if written.isdisjoint(either) for row in own]
    return keys, table_files.arrow(table, rows) if rows else None


def _files(store: Store, table: str) -> tuple[list[str], set[str]]:
    """(what to read, what compactions have replaced)."""
    if table in _LOGS:
        return [], set()
    if table in _NEVER_COMPACTED:
        return [key for key in store.keys(_NEVER_COMPACTED[table]) if key.endswith(".parquet")], set()
    compacted = _in_force(store, table, None)
    replaced = {key for source in compacted for key in source.replaces}
    if table == "quarantine":
        there = [key for key, _ in _quarantine_parts(store)]
    else:
        there = [key for key in store.keys(store_keys.table_folder(table)) if key.endswith(".parquet")]
    return [*(source.key for source in compacted), *(key for key in there if key not in replaced)], replaced


def sources(store: Store, table: str, history: commit_log.Log | None = None) -> Sources:
    """The files of a table as its compaction log leaves them: `history`, or its newest record, read now."""
    compacted = _in_force(store, table, history)
    replaced = {key for source in compacted for key in source.replaces}
    loose = tuple(Source(key, size) for key, size in _there(store, table) if key not in replaced)
    return Sources(loose, compacted)


def with_files() -> tuple[str, ...]:
    """The tables whose files a compaction may merge."""
    from schemas.tables import COLUMNS

    return tuple(table for table in COLUMNS if table not in _LOGS and table not in _NEVER_COMPACTED)


def in_memory_alone(table: str) -> bool:
    """Whether the table has no files of its own: its rows come from a log or from records."""
    return table in _LOGS


def _in_force(store: Store, table: str, history: commit_log.Log | None) -> tuple[Source, ...]:
    """The files that the table's compaction log has in force."""
    if history is not None:
        return _compacted(history.head, lambda numbers: [history.entries[number - 1] for number in numbers])
    prefix = store_keys.compaction_log(table)
    return _compacted(commit_log.newest(store, prefix), lambda numbers: commit_log.records(store, prefix, numbers))


def _compacted(
    newest: commit_log.Entry | None, records: Callable[[Sequence[int]], Sequence[commit_log.Entry]]
) -> tuple[Source, ...]:
    """The files that compactions made and none has replaced. The newest record names them all.

    What it made itself is in it, with the files that it replaces; of the others it names the record that made them.
    """
    if newest is None:
        return ()
    try:
        numbers = sorted({kept["record"] for kept in newest.body["keeps"]})
        earlier = records(numbers) if numbers else ()
        kept = {each["key"] for each in newest.body["keeps"]}
        return tuple(
            Source(made["key"], made["bytes"], entry.number, tuple(made["replaces"]))
            for entry in (*earlier, newest)
            for made in entry.body["made"]
            if entry is newest or made["key"] in kept
        )
    except (KeyError, TypeError):
        raise Damaged(
            f"record {newest.number} of a compaction log is not one that this leptonflow can read",
            expected="made and keeps", received=", ".join(newest.body), hint="Use the leptonflow that wrote it",
        ) from None  # fmt: skip


def _there(store: Store, table: str) -> list[tuple[str, int]]:
    if table == "quarantine":
        return _quarantine_parts(store)
    return [found for found in store.list(store_keys.table_folder(table)) if found[0].endswith(".parquet")]


def from_log(store: Store, table: str) -> pa.Table | None:
    """The rows of a table that a commit log holds, or None where the table has files."""
    return table_files.arrow(table, _LOGS[table](store)) if table in _LOGS else None


def in_memory(store: Store, table: str, keys: Sequence[str], rows: pa.Table | None = None) -> pa.Table:
    """The rows of a table's files, and others, for a store whose files have no path that DuckDB could open."""
    import pyarrow as pa

    from schemas.tables import schema

    found = [table_files.decode(data, key) for key, data in zip(keys, store.get_many(keys), strict=True)]
    empty = schema(table).empty_table()
    found += [] if rows is None else [rows]
    return pa.concat_tables([empty, *found], promote_options="default").select(empty.column_names)


def broken(store: Store, keys: Sequence[str]) -> Damaged | None:
    """What is wrong with the first of a table's files that cannot be read whole; None where each can."""
    for key in keys:
        try:
            parsed(store, key, partial(table_files.decode, where=key))
        except NotFound:
            return Damaged(f"{key} is missing", expected="every file of the table", hint=BACK)
        except Damaged as error:
            return error
    return None


def _quarantine_parts(store: Store) -> list[tuple[str, int]]:
    """(key, size) of the parts that an outcome names: one that a lost race left behind belongs to no outcome."""
    outcomes = [entry.body["outcome"] for _, entry in _entries(store, SNAPSHOTS) if entry.body.get("outcome")]
    known = {store_keys.outcome_key(o["pipeline"], o["batch"], o["contract"]) for o in outcomes}
    others = [key for key in store.keys(store_keys.BATCHES) if key.endswith(".json") and key not in known]
    named = {o["quarantine"]["key"] for o in outcomes if o.get("quarantine")}
    if others:
        from schemas.records import Outcome  # pydantic, which a query need not wait for

        refused = read_models(store, Outcome, others, "a batch's outcome")
        named |= {outcome.quarantine.key for outcome in refused if outcome.quarantine}
    there = dict(store.list(store_keys.QUARANTINE))
    if missing := sorted(named - there.keys()):
        raise Damaged(
            f"{missing[0]} is missing", expected="every quarantine part that an outcome names",
            hint="Put the object back from a copy of the store",
        )  # fmt: skip
    return [(key, there[key]) for key in sorted(named)]


def _entries(store: Store, root: str) -> Iterator[tuple[str, commit_log.Entry]]:
    """(pipeline, record) of each pipeline's log under this root."""
    for pipeline in store.folders(root):
        for entry in commit_log.read(store, store_keys.log_folder(root, pipeline)).entries:
            yield pipeline, entry


def _snapshots(store: Store) -> list[table_files.Row]:
    counts = ("arrived", "accepted", "quarantined", "known", "ignored")
    return [
        {
            "pipeline": pipeline,
            "number": entry.number,
            "kind": entry.kind,
            "who": entry.who,
            "why": entry.why,
            "at": entry.at,
            **{name: entry.body.get(name) for name in ("snapshot", "batch", "examples")},
            **{name: (entry.body.get("counts") or {}).get(name) for name in counts},
        }
        for pipeline, entry in _entries(store, SNAPSHOTS)
    ]


def _promotions(store: Store) -> list[table_files.Row]:
    body = ("version", "previous", "run_id", "manifest_sha256", "snapshot", "snapshot_number")
    return [
        {
            "pipeline": pipeline,
            "number": entry.number,
            "against": entry.number - 1,
            "kind": entry.kind,
            "who": entry.who,
            "reason": entry.why,
            "at": entry.at,
            **{name: entry.body.get(name) for name in body},
        }
        for pipeline, entry in _entries(store, PROMOTIONS)
    ]


def _discards(store: Store) -> list[table_files.Row]:
    from schemas.records import Discard  # pydantic, which a query need not wait for

    found = read_models(store, Discard, store.keys(store_keys.DISCARDED), "the record of a discarded batch")
    return [record.model_dump() for record in found]


def _approvals(store: Store) -> list[table_files.Row]:
    from schemas.approvals import ApprovalDecision, ApprovalRequest

    keys = [key for key in store.keys(store_keys.APPROVALS) if key.endswith(("/request.json", "/decision.json"))]
    data = dict(zip(keys, store.get_many(keys), strict=True))
    found: list[table_files.Row] = []
    for key in (key for key in keys if key.endswith("/request.json")):
        request, own = read_model(ApprovalRequest, key, data[key], "a request for approval"), None
        at = store_keys.approval_key(request.pipeline, request.run_id, "decision.json")
        if at in data:
            own = read_model(ApprovalDecision, at, data[at], "a decision about a run")
        found.append({
            "pipeline": request.pipeline, "run_id": request.run_id, "version": request.version,
            "outcome": own and own.outcome, "who": own and own.who, "reason": own and own.reason,
            "requested_at": request.at, "expires_at": request.expires_at, "decided_at": own and own.at,
            "sentence": own.sentence if own else request.sentence,
        })  # fmt: skip
    return found


def _corrections(store: Store) -> list[table_files.Row]:
    return [
        {
            "pipeline": pipeline,
            "number": entry.number,
            "kind": entry.kind,
            "example_id": change["id"],
            "old_label": change["before"],
            **{name: change[name] for name in ("label", "batch", "source")},
            "who": entry.who,
            "why": entry.why,
            "at": entry.at,
        }
        for pipeline, entry in _entries(store, SNAPSHOTS)
        if (named := entry.body.get("changes"))
        for change in parquet.read(recorded(store, named["key"], named["sha256"])).to_pylist()
    ]


def _trials(store: Store) -> list[table_files.Row]:
    from schemas.trials import Study, Trial

    there = sorted(key for key in store.keys(store_keys.STUDIES) if key.endswith(".json"))
    own = [key for key in there if store_keys.is_trial(key)]
    others = [key for key in there if not store_keys.is_trial(key)]
    studies = {each.study: each for each in read_models(store, Study, others, "the record of a study")}
    trials = read_models(store, Trial, own, "the record of a trial")
    same = ("pipeline", "study", "version", "state", "value", "std", "sentence", "started_at", "finished_at", "seconds")
    return [
        {
            **{name: getattr(trial, name) for name in same},
            "trial": trial.number,
            "folds": len(trial.values),
            "parameters": json.dumps(trial.parameters, ensure_ascii=False),
            "metric": studies[trial.study].metric if trial.study in studies else None,
            "snapshot": studies[trial.study].snapshot if trial.study in studies else None,
        }
        for trial in trials
    ]


def _drift(store: Store) -> list[table_files.Row]:
    from schemas.drift import DriftRecord

    keys = [key for key in store.keys(store_keys.MONITORING) if store_keys.is_drift_record(key)]
    records = read_models(store, DriftRecord, keys, "the record of a look for drift")
    same = ("pipeline", "number", "version", "verdict", "triggers", "at")
    return [
        {
            **test.model_dump(exclude={"values", "spreads"}),
            **dict(zip(("reference_value", "served_value"), test.values or (None, None), strict=True)),
            **dict(zip(("reference_spread", "served_spread"), test.spreads or (None, None), strict=True)),
            **{name: getattr(record, name) for name in same},
        }
        for record in records
        for test in record.tests
    ]


# By the folder of their files, which the bucket's lifecycle may delete when they are old.
_NEVER_COMPACTED = {"served": store_keys.SERVED, "shadow": store_keys.SHADOW}

_LOGS: dict[str, Callable[[Store], list[table_files.Row]]] = {
    "snapshots": _snapshots,
    "corrections": _corrections,
    "promotions": _promotions,
    "approvals": _approvals,
    "discards": _discards,
    "trials": _trials,
    "drift": _drift,
}

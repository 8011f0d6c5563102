"""Where the rows of each table come from: its own files, quarantine parts or a commit log.

What lies on the store already has one source and no second truth. What does not belong here: SQL
(`analytics`) and writing rows (`tables`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from leptonflow import log, tables
from leptonflow.store import Store
from schemas.errors import Damaged

if TYPE_CHECKING:
    import pyarrow as pa


def files(store: Store, table: str) -> list[str]:
    """The keys of a table's files: an explicit list, never a glob, so that a later compaction can replace some.

    Empty for a table that comes from a log.
    """
    if table in _LOGS:
        return []
    if table == "quarantine":
        return _quarantine_parts(store)
    return [key for key, _ in store.list(f"tables/{table}") if key.endswith(".parquet")]


def from_log(store: Store, table: str) -> pa.Table | None:
    """The rows of a table that a commit log holds, or None where the table has files."""
    return tables.arrow(table, _LOGS[table](store)) if table in _LOGS else None


def in_memory(store: Store, table: str, keys: Sequence[str]) -> pa.Table:
    """The rows of a table's files, for a store whose files have no path that DuckDB could open."""
    import pyarrow as pa

    from schemas.tables import TABLES

    found = [tables.decode(data, key) for key, data in zip(keys, store.get_many(keys), strict=True)]
    empty = TABLES[table].empty_table()
    return pa.concat_tables([empty, *found], promote_options="default").select(empty.column_names)


def _quarantine_parts(store: Store) -> list[str]:
    """The parts that an outcome names: one that a lost race left behind belongs to no outcome."""
    outcomes: list[dict[str, Any]] = []
    for pipeline in store.folders("snapshots"):
        outcomes += [e.body["outcome"] for e in _entries(store, "snapshots", pipeline) if e.body.get("outcome")]
    known = {f"batches/{o['pipeline']}/{o['batch']}/{o['contract']}.json" for o in outcomes}
    others = [key for key, _ in store.list("batches") if key.endswith(".json") and key not in known]
    outcomes += [json.loads(data) for data in store.get_many(others)]
    named = {o["quarantine"]["key"] for o in outcomes if o.get("quarantine")}
    there = {key for key, _ in store.list("quarantine")}
    if missing := sorted(named - there):
        raise Damaged(
            f"{missing[0]} is missing", expected="every quarantine part that an outcome names",
            hint="Put the object back from a copy of the store",
        )  # fmt: skip
    return sorted(named)


def _entries(store: Store, name: str, pipeline: str) -> Sequence[log.Entry]:
    found: Sequence[log.Entry] = log.read(store, f"{name}/{pipeline}/log").entries
    return found


def _snapshots(store: Store) -> list[tables.Row]:
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
        for pipeline in store.folders("snapshots")
        for entry in _entries(store, "snapshots", pipeline)
    ]


def _promotions(store: Store) -> list[tables.Row]:
    body = ("version", "previous", "run_id", "manifest_sha256", "snapshot", "snapshot_number")
    return [
        {
            "pipeline": pipeline,
            "number": entry.number,
            "kind": entry.kind,
            "who": entry.who,
            "reason": entry.why,
            "at": entry.at,
            **{name: entry.body.get(name) for name in body},
        }
        for pipeline in store.folders("promotions")
        for entry in _entries(store, "promotions", pipeline)
    ]


_LOGS: dict[str, Callable[[Store], list[tables.Row]]] = {"snapshots": _snapshots, "promotions": _promotions}

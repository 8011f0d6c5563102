"""What became of each batch: its outcome in batches/, and its rows in the tables `batches` and `validations`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from leptonflow.core import parquet, store_keys
from leptonflow.core.hashing import canonical
from leptonflow.data.validation.acceptance import NEWER
from leptonflow.storage import commit_log
from leptonflow.storage.objects import read_model, recorded, steady
from leptonflow.storage.store import Store
from schemas.records import Outcome


def repair_batches(store: Store, pipeline: str) -> None:
    """Write what is missing of batches/ and the tables `batches` and `validations`, from the log's records.

    A refused batch has no record: there its outcome object is the source. Costs one reading of the log
    and three listings where nothing is missing.
    """
    from_log = {_outcome_key(o): o for o in recorded_outcomes(store, pipeline)}
    objects = {key for key in store.keys(store_keys.outcomes_folder(pipeline)) if key.endswith(".json")}
    missing = [(key, canonical(o)) for key, o in from_log.items() if key not in objects]
    if missing:
        store.create_many(missing)

    rows = {name: _table_files(store, name, pipeline) for name in ("batches", "validations")}
    refused = [key for key in sorted(objects - set(from_log)) if not all(_file_of(key) in rows[name] for name in rows)]
    lacking = [o for key, o in from_log.items() if not all(_file_of(key) in rows[name] for name in rows)]
    if not lacking and not refused:
        return
    from leptonflow.tables import table_files

    wanted = [Outcome.model_validate(o) for o in lacking]
    wanted += [read_outcome(steady(store, key), key) for key in refused]  # they become rows for good
    table_files.write(store, [file for outcome in wanted for file in table_files.batch_files(outcome)])


def recorded_outcomes(store: Store, pipeline: str, until: int | None = None) -> list[dict[str, Any]]:
    """The outcomes in the first `until` records of the dataset's log (None: in all)."""
    entries = commit_log.read(store, store_keys.dataset_log(pipeline)).entries[:until]
    return [entry.body["outcome"] for entry in entries if entry.body.get("outcome")]


def _outcome_key(outcome: dict[str, Any]) -> str:
    return store_keys.outcome_key(outcome["pipeline"], outcome["batch"], outcome["contract"])


def _file_of(key: str) -> str:
    """The name of the table files that belong to batches/<pipeline>/<batch>/<contract>.json."""
    from leptonflow.tables.table_files import batch_id

    _, _, batch, contract = key.removesuffix(".json").split("/")
    return f"{batch_id(batch, contract)}.parquet"


def _table_files(store: Store, table: str, pipeline: str) -> set[str]:
    return {key.rsplit("/", 1)[1] for key in store.keys(store_keys.table_folder(table, pipeline))}


def read_outcome(data: bytes, key: str) -> Outcome:
    """The outcome in an object's bytes. Raises Damaged."""
    return read_model(Outcome, key, data, "the outcome of a batch")


def examples(store: Store, outcome: Outcome) -> list[dict[str, Any]]:
    """{rule, rows, source, reason, newer} of each rule that quarantined rows of a batch: how many, and the first.

    newer: of how many the dataset has another label. In the order of `reasons`. Raises Damaged where the quarantine
    part is not what was recorded.
    """
    if outcome.quarantine is None:
        return []
    data = recorded(store, outcome.quarantine.key, outcome.quarantine.sha256)
    table = parquet.read(data, ["rule", "source", "reason"])
    first: dict[str, tuple[str, str]] = {}
    newer: Counter[str] = Counter()
    for rule, source, reason in zip(*(column.to_pylist() for column in table.columns), strict=True):
        first.setdefault(rule, (source, reason))
        newer[rule] += reason.endswith(NEWER)
    return [
        {"rule": rule, "rows": rows, "source": first[rule][0], "reason": first[rule][1], "newer": newer[rule]}
        for rule, rows in outcome.reasons.items()
        if rule in first
    ]


def newest_outcome(found: Sequence[Outcome]) -> list[Outcome]:
    """The last one of a batch's outcomes under several contracts; none of none."""
    return sorted(found, key=lambda outcome: (outcome.number or 0, outcome.at))[-1:]

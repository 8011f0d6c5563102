"""What became of a pipeline's batches: each batch's outcome, and what was quarantined, row by row.

What does not belong here: the bytes of quarantined files (landed_pictures), and how anything looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from leptonflow.core import parquet, store_keys
from leptonflow.data.ingest import batch_state
from leptonflow.storage.commit_log import Entry
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from schemas.errors import Damaged, NotFound
from schemas.records import Outcome


@dataclass(frozen=True)
class Row:
    """A quarantined row. sha256: of its file, where it was landed."""

    batch: str
    source: str
    label: str | None
    rule: str
    reason: str
    sha256: str | None


def outcomes(store: Store, pipeline: str, entries: Sequence[Entry], most: int | None = None) -> list[Outcome]:
    """The newest outcome of each batch, the newest batch first; of `most` accepted ones at most. Raises Damaged.

    entries: of the dataset's log.
    """
    accepted = [entry.body["outcome"] for entry in entries if entry.body.get("outcome")]
    found = [Outcome.model_validate(each) for each in accepted[-most if most else 0 :]]
    found += batch_state.refused(store, pipeline, {each["batch"] for each in accepted})
    return sorted(found, key=lambda outcome: outcome.at, reverse=True)


def of_batch(store: Store, pipeline: str, batch: str) -> list[Outcome]:
    """A batch's outcomes, one for each contract that judged it, the newest first. Raises NotFound, Damaged."""
    keys = [key for key in store.keys(store_keys.outcomes_folder(pipeline, batch)) if key.endswith(".json")]
    if not keys:
        raise NotFound("no batch of that name has been validated", received=batch)
    found = batch_state.outcomes(store, keys)
    return sorted(found, key=lambda outcome: (outcome.number or 0, outcome.at), reverse=True)


def rules(found: Sequence[Outcome]) -> Counter[str]:
    """How many rows each rule quarantined in these batches."""
    counts: Counter[str] = Counter()
    for outcome in found:
        if outcome.quarantine is not None:
            counts.update(outcome.reasons)
    return counts


def quarantined(
    store: Store, found: Sequence[Outcome], rule: str | None, start: int, count: int
) -> tuple[list[Row], list[str]]:
    """(`count` of the rows that these batches quarantined, from `start` on; a line for each part that is damaged).

    rule: of this rule alone. Only the parts that hold some of them are read.
    """
    rows: list[Row] = []
    damage: list[str] = []
    for outcome in found:
        if outcome.quarantine is None:
            continue
        holds = outcome.quarantine.rows if rule is None else outcome.reasons.get(rule, 0)
        if start >= holds:
            start -= holds
            continue
        if count <= len(rows):
            break
        try:
            data = recorded(store, outcome.quarantine.key, outcome.quarantine.sha256)
            table = parquet.read(data, ["source", "label", "rule", "reason", "sha256"])
        except Damaged as error:
            damage.append(error.line())
            continue
        own = [Row(batch=outcome.batch, **row) for row in table.to_pylist() if rule in (None, row["rule"])]
        rows += own[start : start + count - len(rows)]
        start = 0
    return rows, damage

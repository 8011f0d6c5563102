"""What became of a pipeline's batches: each batch's outcome, and what was quarantined, row by row.

What does not belong here: the bytes of quarantined files (landed_pictures), and how anything looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leptonflow.core import parquet, store_keys
from leptonflow.data.ingest import batch_state
from leptonflow.storage import commit_log
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


def outcomes(store: Store, pipeline: str) -> list[Outcome]:
    """The newest outcome of each batch, the newest batch first. Raises Damaged."""
    entries = commit_log.read(store, store_keys.dataset_log(pipeline)).entries
    found = [Outcome.model_validate(entry.body["outcome"]) for entry in entries if entry.body.get("outcome")]
    found += batch_state.refused(store, pipeline, {outcome.batch for outcome in found})
    return sorted(found, key=lambda outcome: outcome.at, reverse=True)


def of_batch(store: Store, pipeline: str, batch: str) -> list[Outcome]:
    """A batch's outcomes, one for each contract that judged it, the newest first. Raises NotFound, Damaged."""
    keys = [key for key in store.keys(store_keys.outcomes_folder(pipeline, batch)) if key.endswith(".json")]
    if not keys:
        raise NotFound("no batch of that name has been validated", received=batch)
    found = batch_state.outcomes(store, keys)
    return sorted(found, key=lambda outcome: (outcome.number or 0, outcome.at), reverse=True)


def quarantined(store: Store, found: Sequence[Outcome]) -> tuple[list[Row], list[str]]:
    """(the rows that these outcomes quarantined, in their order; a line for each part that cannot be read)."""
    rows: list[Row] = []
    damage: list[str] = []
    for outcome in found:
        if outcome.quarantine is None:
            continue
        try:
            data = recorded(store, outcome.quarantine.key, outcome.quarantine.sha256)
            table = parquet.read(data, ["source", "label", "rule", "reason", "sha256"])
        except Damaged as error:
            damage.append(error.line())
            continue
        rows += [Row(batch=outcome.batch, **row) for row in table.to_pylist()]
    return rows, damage

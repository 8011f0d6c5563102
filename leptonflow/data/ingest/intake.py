"""`ingest`: land a source as a closed batch, then admit it. The same command again continues or returns `reused`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leptonflow.core import progress, store_keys
from leptonflow.data.dataset import admission, batch_outcomes, corrections, dataset_state, identities, known_examples
from leptonflow.data.dataset.change_records import Change
from leptonflow.data.ingest import discards, landing
from leptonflow.data.ingest.label_columns import DEFAULT, Columns
from leptonflow.storage import leftovers
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.records import Outcome


def ingest(
    store: Store,
    config: Pipeline,
    source: Path,
    batch: str | None,
    columns: Columns = DEFAULT,
    root: Path | None = None,
    *,
    correct: bool = False,
    reason: str | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The `--json` document of `ingest`, and the warnings for a person. columns, root: of a table (sources).

    correct: where the dataset holds an example of the source under another label, it takes the source's by a record.
    Raises UsageError where a person has discarded that batch.
    """
    landing.check_name(batch)
    if batch is not None and (discarded := discards.of(store, config.name, batch)) is not None:
        raise discards.refused(discarded)  # before anything is landed there
    leftovers.remove(store)
    ready = store_keys.landed_key(config.name, batch or "", store_keys.READY)
    if batch is not None and not correct and store.size(ready) is not None:
        # It is there already: hardly anything is left to do, so nothing is started for it.
        landed = _land(store, config, source, batch, columns, root, correct)
        before = admission.earlier(store, config, landed.batch)
        outcome = admission.admit(store, config, landed.batch)
        return _document(store, outcome, [], reused=before is not None), _warnings(store, config, outcome)
    with admission.tools():
        landed = _land(store, config, source, batch, columns, root, correct)
        reused = landed.already and admission.earlier(store, config, landed.batch) is not None
        changes = corrections.correct(store, config, landed.batch, reason) if correct else []
        outcome = admission.admit(store, config, landed.batch)
    document = _document(store, outcome, changes, reused=reused)
    if changes:  # also where the batch was admitted before
        head = dataset_state.snapshots(store, config.name).head
        document["snapshot"] = head.body["snapshot"] if head else None
    return document, _warnings(store, config, outcome)


def _land(
    store: Store,
    config: Pipeline,
    source: Path,
    batch: str | None,
    columns: Columns,
    root: Path | None,
    correct: bool,
) -> landing.Landed:
    """The source as a closed batch; under another name where some of it was left in quarantine and is judged anew."""
    index = known_examples.index(store, config, correct)
    landed = landing.land(store, config, source, batch, index, progress.report, columns, root)
    if not landed.already:
        return landed
    again = known_examples.judged_anew(store, config, landed.batch, landed.listing, correct)
    if again is None:
        return landed
    name = f"{landed.batch[:48]}-{landed.listing.digest[:6]}-{again}"
    return landing.land(store, config, source, name, index, progress.report, columns, root)


def _document(store: Store, outcome: Outcome, changes: Sequence[Change], *, reused: bool) -> dict[str, Any]:
    """Accepted before is `reused`; refused under this contract stays `refused`."""
    return {
        "batch": outcome.batch,
        "outcome": "reused" if reused and outcome.outcome == "accepted" else outcome.outcome,
        "arrived": outcome.arrived,
        "accepted": outcome.accepted,
        "quarantined": outcome.quarantined,
        "known": outcome.known,
        "ignored": outcome.ignored,
        "snapshot": outcome.snapshot,
        "reasons": outcome.reasons,
        "quarantine": batch_outcomes.examples(store, outcome),
        "sentence": outcome.sentence,
        "corrected": [
            {"id": change.row["id"], "old": change.row["label"], "new": change.label, "source": change.row["source"]}
            for change in changes
        ],
    }


def _warnings(store: Store, config: Pipeline, outcome: Outcome) -> list[str]:
    history = dataset_state.snapshots(store, config.name)
    several = len(identities.conflicts(store, history))
    ways = "`leptonflow status` names them, `ingest --correct` or `retract` corrects them"
    told = [f"examples of the dataset have several labels ({several}): {ways}"] if several else []
    return [*outcome.warnings, *known_examples.left_behind(store, config, history), *told]

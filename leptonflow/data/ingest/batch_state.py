"""What a person should know of a pipeline's batches that are not in the dataset. Looks and writes nothing.

What does not belong here: which batches a run takes (pending_batches), and what lies in a single folder
(landing_state).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from leptonflow.core import store_keys
from leptonflow.core.store_keys import READY
from leptonflow.data.dataset import batch_outcomes
from leptonflow.data.ingest import discards, landed_changes, landing, landing_state, pending_batches
from leptonflow.data.validation import contracts
from leptonflow.storage import commit_log
from leptonflow.storage.commit_log import Log
from leptonflow.storage.objects import read_models
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound
from schemas.records import Outcome
from schemas.text import counted


def document(store: Store, config: Pipeline, history: Log) -> dict[str, Any]:
    """waiting, refused, open, late, discarded, misnamed and warnings of `status --json`."""
    pending = pending_batches.pending(store, config, history)
    contract = contracts.digest(config) if pending.refused else ""
    refused = outcomes(store, [store_keys.outcome_key(config.name, batch, contract) for batch in pending.refused])
    late = landing_state.late(store, config.name, [*accepted(history), *refused], MOST_FILES)
    return {
        "waiting": list(pending.waiting),
        "refused": [_refusal(store, each) for each in refused],
        "open": [
            {
                "batch": each.batch,
                "files": each.files,
                "newest": each.newest.isoformat(timespec="seconds") if each.newest else None,
                "note": each.note,
            }
            for each in landing_state.open_batches(store, config.name)
        ],
        "late": [{"batch": each.batch, "files": each.files, "sentence": each.sentence} for each in late],
        "discarded": [
            each.model_dump(include={"batch", "reason", "who", "at"}) for each in discards.every(store, config.name)
        ],
        "misnamed": misnamed(store, config.name),
        "warnings": stray(store, config.name),
    }


def _refusal(store: Store, outcome: Outcome) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    with suppress(Damaged, NotFound):  # `verify` names it; the batch is refused all the same
        found = batch_outcomes.examples(store, outcome)
    return {**outcome.model_dump(include={"batch", "sentence", "reasons", "at"}), "quarantine": found}


MOST_FILES = 100_000  # of the newest batches, which `status` lists again; `doctor` does all


@dataclass(frozen=True)
class Lying:
    """Of one pipeline, for `doctor`, which has no YAML: what is never read, and what else lies there."""

    never_read: tuple[str, ...]
    told: tuple[str, ...]


def lying(store: Store, pipeline: str) -> Lying:
    """Lines that begin with the pipeline's name. A refused batch is named whatever contract refused it."""
    history = commit_log.read(store, store_keys.dataset_log(pipeline))
    there = accepted(history)
    turned_away = refused(store, pipeline, {each.batch for each in there})
    opened = landing_state.open_batches(store, pipeline)
    # What `ingest` landed and was accepted is held against its listing below, file by file.
    late = landing_state.late(store, pipeline, [*(each for each in there if each.listing is None), *turned_away])
    never = [
        *stray(store, pipeline),
        *(f"{pipeline}/{name} (not a valid batch name)" for name in misnamed(store, pipeline)),
        *(f"{pipeline}/{each.batch} ({each.note})" for each in opened if each.note and each.wrong),
        *(f"{pipeline}/{each.batch}: {each.sentence}" for each in late),
        *(f"{pipeline}/{name}" for name in landed_changes.changed(store, pipeline)),
    ]
    told = [
        *(f"refused: {pipeline}/{each.batch}" for each in turned_away),
        *(f"open: {pipeline}/{each.batch} ({counted(each.files, 'file')})" for each in opened if not each.wrong),
    ]
    return Lying(tuple(never), tuple(told))


def refused(store: Store, pipeline: str, besides: Collection[str]) -> list[Outcome]:
    """The newest outcome of each closed batch that was neither accepted nor discarded."""
    gone = discards.names(store, pipeline)
    left = [b for b in landing.closed_batches(store, pipeline, besides) if b not in gone]
    newest: list[Outcome] = []
    for batch in left:
        keys = [key for key in store.keys(store_keys.outcomes_folder(pipeline, batch)) if key.endswith(".json")]
        newest += batch_outcomes.newest_outcome(outcomes(store, keys))
    return newest


def misnamed(store: Store, pipeline: str) -> list[str]:
    """Closed batches under names that are none, which nobody has discarded."""
    discarded = {each.batch for each in discards.every(store, pipeline)}
    return [name for name in landing.misnamed_batches(store, pipeline) if name not in discarded]


def stray(store: Store, pipeline: str) -> list[str]:
    """A sentence about a `_READY` that closes nothing."""
    folder = store_keys.landing_folder(pipeline)
    if store.size(f"{folder}/{READY}") is None:
        return []
    return [f"{folder}/{READY} is not in a batch: a batch is a folder below {folder}/"]


def accepted(history: Log) -> list[Outcome]:
    """The outcomes that the dataset's log holds."""
    found = (entry.body.get("outcome") for entry in history.entries if entry.kind == "batch")
    return [Outcome.model_validate(each) for each in found if each]


def outcomes(store: Store, keys: Sequence[str]) -> list[Outcome]:
    """The outcomes under these keys. Raises Damaged, naming the key."""
    return read_models(store, Outcome, keys, "the outcome of a batch")

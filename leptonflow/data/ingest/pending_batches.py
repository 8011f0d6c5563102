"""Closed batches that are not in the dataset yet."""

from __future__ import annotations

from dataclasses import dataclass

from leptonflow.core.store_keys import outcome_key
from leptonflow.data.dataset import dataset_contents
from leptonflow.data.ingest import discards, landing
from leptonflow.data.validation import contracts
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store
from schemas.config import Pipeline


@dataclass(frozen=True)
class Pending:
    """Closed batches that are not in the dataset and that nobody discarded.

    refused are those with an outcome under the current contract; waiting are the others.
    """

    waiting: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def pending(store: Store, config: Pipeline, history: commit_log.Log) -> Pending:
    """What lies in landing and is not in the dataset."""
    accepted = set(dataset_contents.accepted_batches(history.entries))
    closed = [b for b in landing.closed_batches(store, config.name) if b not in accepted]
    if not closed:
        return Pending()
    discarded = discards.names(store, config.name)
    left = [batch for batch in closed if batch not in discarded]
    contract = contracts.digest(config)
    refused = tuple(b for b in left if store.size(outcome_key(config.name, b, contract)) is not None)
    return Pending(tuple(b for b in left if b not in refused), refused)


def waiting(store: Store, config: Pipeline, history: commit_log.Log) -> tuple[str, ...]:
    """Closed batches that neither the log, a refusal under the current contract, nor a discard names."""
    return pending(store, config, history).waiting

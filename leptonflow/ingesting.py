"""`ingest`: land a source as a closed batch, then admit it. The same command again goes on or answers `reused`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leptonflow import admission, landing, leftovers, progress
from leptonflow.label_tables import DEFAULT, Columns
from leptonflow.store import Store
from schemas.config import Pipeline
from schemas.records import Outcome


def ingest(
    store: Store,
    config: Pipeline,
    source: Path,
    batch: str | None,
    columns: Columns = DEFAULT,
    root: Path | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The `--json` document of `ingest`, and the warnings for a person. columns, root: of a table (sources)."""
    landing.check_name(batch)
    leftovers.remove(store)
    if batch is not None and store.size(f"landing/{config.name}/{batch}/_READY") is not None:
        # It is there already: hardly anything is left to do, so nothing is started for it.
        landed = _land(store, config, source, batch, columns, root)
        before = admission.earlier(store, config, landed.batch)
        if before is not None:
            return _document(admission.admit(store, config, landed.batch), reused=True), _warnings(before)
        outcome = admission.admit(store, config, landed.batch)
        return _document(outcome, reused=False), _warnings(outcome)
    with admission.tools():
        landed = _land(store, config, source, batch, columns, root)
        reused = landed.already and admission.earlier(store, config, landed.batch) is not None
        outcome = admission.admit(store, config, landed.batch)
    return _document(outcome, reused=reused), _warnings(outcome)


def _land(
    store: Store, config: Pipeline, source: Path, batch: str | None, columns: Columns, root: Path | None
) -> landing.Landed:
    known = admission.index(store, config)
    return landing.land(store, config, source, batch, known, progress.report, columns, root)


def _document(outcome: Outcome, *, reused: bool) -> dict[str, Any]:
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
        "sentence": outcome.sentence,
    }


def _warnings(outcome: Outcome) -> list[str]:
    return list(outcome.warnings)

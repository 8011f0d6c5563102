"""What a judged batch leaves: its quarantine part, the part of its accepted rows, and the record that commits it.

A refused batch leaves an outcome alone. What does not belong here: whether a batch is accepted (admission).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from leptonflow.core import clock, store_keys
from leptonflow.core.hashing import canonical, digest, sha256, short
from leptonflow.core.person import person
from leptonflow.data.dataset import dataset_contents, dataset_state, holdout_split, identities, part_files
from leptonflow.data.ingest import landing
from leptonflow.data.validation import contracts, examined_rows
from leptonflow.data.validation.acceptance import Judgement
from leptonflow.storage import commit_log
from leptonflow.storage.objects import adopt, place
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.records import Expectation, Outcome, QuarantineRef


def refuse(
    store: Store,
    config: Pipeline,
    landed: landing.Batch,
    judgement: Judgement,
    expectations: tuple[Expectation, ...],
    sentence: str,
) -> Outcome:
    """A refused batch has only its outcome object: the dataset's log does not know it."""
    contract = contracts.digest(config)
    quarantine = _write_quarantine(store, config, landed.name, contract, judgement)
    outcome = _outcome(
        config, landed, judgement, expectations,
        outcome="refused", snapshot=None, quarantine=quarantine, sentence=sentence,
    )  # fmt: skip
    others = len(store.keys(store_keys.outcomes_folder(config.name, landed.name)))
    outcome = outcome.model_copy(update={"number": others + 1})
    key = store_keys.outcome_key(config.name, landed.name, contract)
    return Outcome.model_validate_json(adopt(store, key, canonical(outcome)))


def commit(
    store: Store,
    config: Pipeline,
    history: commit_log.Log,
    landed: landing.Batch,
    judgement: Judgement,
    expectations: tuple[Expectation, ...],
    classes: Sequence[str],
    encoded: part_files.EncodedPart | None,
) -> Outcome:
    """Data first: the parts, then the one record that makes them the dataset. Raises Overtaken."""
    contract = contracts.digest(config)
    preprocessing = dataset_state.preprocessing(config)
    rows = judgement.accepted
    with ThreadPoolExecutor(1) as beside:  # the part is large: the snapshot's digest is ready before it is on the disk
        writing = encoded and beside.submit(
            part_files.create_part, store, config.name, landed.name, preprocessing, encoded
        )
        quarantine = _write_quarantine(store, config, landed.name, contract, judgement)
        pairs = dataset_contents.pairs(store, history.entries)
        pairs += [(str(row.id), str(row.label)) for row in rows]
        groups = dataset_contents.groups(store, dataset_contents.accepted_parts(history.entries), config.group)
        groups |= {str(row.id): row.group for row in rows if row.group is not None}
        content = dataset_contents.content_digest(pairs, preprocessing, groups)
        part = writing and writing.result()
    holdout = history.head.body["holdout"] if history.head else config.holdout.fraction
    judgement = _warned(judgement, holdout_split.few_groups(config, set(groups.values()), holdout))
    counts = f"{len(rows)} accepted, {len(judgement.refused)} quarantined, {judgement.known} already ingested"
    outcome = _outcome(
        config, landed, judgement, expectations,
        outcome="accepted", snapshot=short(content), quarantine=quarantine, sentence=counts,
    )  # fmt: skip
    body: dict[str, Any] = {
        "batch": landed.name,
        identities.CANONICAL: True,
        "contract": contract,
        "outcome": outcome.model_dump(mode="json"),
        "counts": {n: getattr(outcome, n) for n in ("arrived", "accepted", "quarantined", "known", "ignored")},
        "reasons": outcome.reasons,
        "quarantine": quarantine.model_dump(mode="json") if quarantine else None,
        "parts": [part.model_dump(mode="json")] if part else [],
        "snapshot": short(content),
        "content": content,
        "classes": list(classes),
        "labels": dict(Counter(label for _, label in pairs)) if classes else {},
        "preprocessing": preprocessing,
        "holdout": holdout,
        "examples": len(pairs),
        **dataset_state.fixed(config),
    }
    commit_log.commit(
        store,
        history,
        id=digest("batch", config.name, landed.name, contract, history.number),
        kind="batch",
        body=body,
        who=person(),
        why=f"batch {landed.name}: {counts}",
    )
    return outcome


def _warned(judgement: Judgement, warnings: Sequence[str]) -> Judgement:
    return replace(judgement, warnings=(*judgement.warnings, *warnings))


def _write_quarantine(
    store: Store, config: Pipeline, batch: str, contract: str, judgement: Judgement
) -> QuarantineRef | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from schemas.tables import schema

    if not judgement.refused:
        return None
    rows = [
        {"pipeline": config.name, "batch": batch, "contract": contract, "source": r.row.source, "label": r.row.label,
         "sha256": r.row.sha256, "rule": r.rule, "reason": r.reason}
        for r in judgement.refused
    ]  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema("quarantine")), sink, compression="zstd")
    data = bytes(sink.getvalue())
    key = store_keys.quarantine_key(config.name, batch, sha256(data))
    place(store, key, data)
    return QuarantineRef(key=key, sha256=sha256(data), rows=len(rows))


def _outcome(
    config: Pipeline,
    landed: landing.Batch,
    judgement: Judgement,
    expectations: tuple[Expectation, ...],
    *,
    outcome: str,
    snapshot: str | None,
    quarantine: QuarantineRef | None,
    sentence: str,
) -> Outcome:
    facts = [row.facts or {} for row in judgement.accepted]
    remarks = catalog.load(config.workload).remarks(facts, config.input)
    return Outcome(
        pipeline=config.name,
        batch=landed.name,
        contract=contracts.digest(config),
        outcome=outcome,
        arrived=len(judgement.accepted) + len(judgement.refused) + judgement.known,
        accepted=len(judgement.accepted),
        quarantined=len(judgement.refused),
        known=judgement.known,
        ignored=landed.ignored,
        snapshot=snapshot,
        reasons=judgement.reasons(),
        quarantine=quarantine,
        expectations=expectations,
        warnings=(*landed.warnings, *examined_rows.notes(judgement.accepted), *judgement.warnings, *remarks),
        sentence=sentence,
        listing=landed.listing.digest if landed.listing else None,
        seen=landed.seen,
        at=clock.now(),
    )

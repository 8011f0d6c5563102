"""The `retrain` documents of runs that train nothing: `unchanged` and `rejected-data`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.registry import champion_log
from leptonflow.runs import approvals, recording, rejections
from leptonflow.storage.store import Store
from schemas.errors import Damaged
from schemas.records import Outcome, Plan, Split


def unchanged(store: Store, plan: Plan) -> dict[str, Any]:
    """The finished run's document again, with the current champion: `unchanged`, or still `waiting` for approval."""
    assert plan.run_id is not None
    earlier = recording.finished(store, plan.pipeline, plan.run_id)
    if earlier is None:
        raise Damaged(f"the manifest of the run {plan.run_id} is gone", hint="Put it back from a copy of the store")
    found = approvals.again(store, plan.pipeline, earlier)
    return {**found, "champion": champion_log.current_version(store, plan.pipeline)}


def rejected_data(
    store: Store, plan: Plan, split: Split | None, outcomes: Sequence[Outcome], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Data that cannot be trained, or batches that were all refused: never a finished run. Recorded for `status`."""
    refused = [f"{o.batch}: {o.sentence}" for o in outcomes if o.outcome == "refused"]
    empty = f"there is no data yet: leptonflow ingest {plan.pipeline} SOURCE adds some"
    why = split.rejected if split is not None and split.rejected else "; ".join(refused) or empty
    if outcomes or split is not None:
        snapshot = plan.snapshot.snapshot if plan.snapshot else None
        rejections.record(store, plan.pipeline, snapshot, [o.batch for o in outcomes], why)
    return {
        "run_id": None,
        "verdict": "rejected-data",
        "version": None,
        "champion": champion_log.current_version(store, plan.pipeline),
        "snapshot": plan.snapshot.snapshot if plan.snapshot else None,
        "batches": [o.batch for o in outcomes],
        "examples": {"train": split.train if split else None, "holdout": split.holdout if split else None},
        **(split.groups if split else {}),
        "cv": None,
        "holdout": None,
        "gate": None,
        "report": None,
        "seconds": dict(seconds),
        "cost": None,
        "sentence": why,
    }

"""The document `unchanged` of `retrain`, decided with neither Prefect, a server, TensorFlow nor Great Expectations."""

from __future__ import annotations

from typing import Any

from leptonflow.data.dataset import batch_outcomes
from leptonflow.gate.rules.words import promote_command
from leptonflow.registry import champion_log
from leptonflow.runs import approvals, planning, recording
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import Damaged
from schemas.records import Plan


def document(store: Store, config: Pipeline) -> dict[str, Any] | None:
    """The earlier run's document with the verdict `unchanged`, or None where there is something to do.

    Where it waits for approval its verdict stays `waiting`. Only what a crash left out is written, and that a run
    waits for approval no more; where nothing is missing, nothing is.
    """
    plan = planning.plan(store, config)
    if plan.waiting or not plan.finished or plan.run_id is None:
        return None
    earlier = recording.finished(store, config.name, plan.run_id)
    if earlier is None:
        return None
    batch_outcomes.repair_batches(store, config.name)
    return _again(store, config.name, earlier)


def of_finished(store: Store, plan: Plan) -> dict[str, Any]:
    """The same of a plan whose run is finished already. Raises Damaged where its manifest is gone meanwhile."""
    assert plan.run_id is not None
    earlier = recording.finished(store, plan.pipeline, plan.run_id)
    if earlier is None:
        raise Damaged(f"the manifest of the run {plan.run_id} is gone", hint="Put it back from a copy of the store")
    return _again(store, plan.pipeline, earlier)


def _again(store: Store, pipeline: str, earlier: dict[str, Any]) -> dict[str, Any]:
    return {**approvals.again(store, pipeline, earlier), "champion": champion_log.current_version(store, pipeline)}


def why_not_champion(pipeline: str, document: dict[str, Any]) -> str | None:
    """What to do about a run that is unchanged although its version is not the champion. The document says why."""
    if document["version"] is None:
        return (
            "nothing new: the same run was stopped early before. Other data, another configuration or "
            "`leptonflow retrain` with --force is another attempt"
        )
    if document["version"] == document["champion"] or document.get("approval"):
        return None
    held = f"the champion is {document['champion']}" if document["champion"] else "there is no champion"
    return (
        f"nothing new, and {held}: version {document['version']} was evaluated before and is not it. "
        "To make it the champion anyway: "
        f"{promote_command(pipeline, document['version'])}"
    )

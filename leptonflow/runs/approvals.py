"""Runs whose candidate passed its gate and waits for a person: what is recorded of each, and where it stands now.

A run waits from the record of its verdict until one decision is created: a person's, or that its time is over, or that
a newer run waits. The last two follow from what is recorded, so a reader need not write them. What does not belong
here: approving and rejecting (approval).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from leptonflow.core import clock, store_keys
from leptonflow.core.hashing import canonical, digest, short
from leptonflow.gate.rules.words import approve_command
from leptonflow.registry import champion_log
from leptonflow.reports.wording import when
from leptonflow.storage.commit_log import Log
from leptonflow.storage.objects import adopt, read_model
from leptonflow.storage.store import Store
from schemas import promotion
from schemas.approvals import ApprovalDecision, ApprovalRequest
from schemas.config import Pipeline
from schemas.constants import PROMOTED, REFUSED, WAITING
from schemas.records import Plan, Record, Verdict

UNDECIDED = (WAITING, "approved")  # for a person to decide, or to complete
REQUEST, DECISION, REFUSAL = "request.json", "decision.json", "refusal.json"
APPROVED, REJECTED, EXPIRED, SUPERSEDED = "approved", "rejected", "expired", "superseded"


class Approval(Record):
    """Where a run that waited for approval stands.

    state  waiting, promoted, rejected, refused, expired, superseded; approved: by a person, and the promotion was
           not completed
    """

    request: ApprovalRequest
    state: str
    who: str | None
    reason: str | None
    decided_at: str | None
    sentence: str

    def document(self) -> dict[str, Any]:
        """`approval` of the documents of `retrain`, `runs` and `status`."""
        asked = self.request
        return {
            "run_id": asked.run_id, "version": asked.version, "state": self.state, "requested_at": asked.at,
            "expires_at": asked.expires_at, "who": self.who, "reason": self.reason, "decided_at": self.decided_at,
            "sentence": self.sentence,
        }  # fmt: skip


def ask(store: Store, config: Pipeline, plan: Plan, verdict: Verdict, number: int | None, at: str) -> None:
    """Record that a run waits, if its verdict says so; and close what waited before it. Safe to repeat."""
    if verdict.verdict != WAITING:
        return
    assert plan.snapshot is not None
    canary = config.serving.canary
    # A killed run may go on under a YAML that asks nobody any more.
    waits = config.waits or promotion.Approval(approve=()).timeout
    request = ApprovalRequest(
        pipeline=config.name, run_id=verdict.run_id, version=verdict.version, number=number or 0,
        snapshot_number=plan.snapshot.number, against=verdict.against, champion=verdict.champion,
        configuration=configuration(config, plan.snapshot.content),
        sentence=verdict.sentence, at=at, expires_at=clock.after(at, waits),
        labels=canary.promote_after if canary is not None else None,
    )  # fmt: skip
    adopt(store, store_keys.approval_key(config.name, verdict.run_id, REQUEST), canonical(request))
    close(store, config.name, clock.now())


def configuration(config: Pipeline, content: str) -> str:
    """The digest of what the YAML says of the gate, and of what it evaluates on the dataset with that content."""
    parts = {"workload", "input", "classes", "model", "gate"}
    return short(digest(content, config.model_dump(mode="json", include=parts, exclude_defaults=True)))


def every(store: Store, pipeline: str, now: str, log: Log | None = None) -> dict[str, Approval]:
    """Each run that waits or waited, by its id, the oldest first. Raises Damaged, naming the key."""
    keys = [key for key in store.keys(store_keys.approvals_folder(pipeline)) if key.endswith(".json")]
    data = dict(zip(keys, store.get_many(keys), strict=True))
    requests = [read_model(ApprovalRequest, k, each, "a request") for k, each in data.items() if k.endswith(REQUEST)]
    requests.sort(key=lambda each: (each.number, each.at, each.run_id))
    if not requests:
        return {}
    log = champion_log.promotions(store, pipeline) if log is None else log
    made = {(body.version, entry.number) for entry in log.entries for body in [champion_log.promotion(log, entry)]}
    found = {}
    for request, newer in zip(requests, [*requests[1:], None], strict=True):
        key = store_keys.approval_key(pipeline, request.run_id, DECISION)
        decision = read_model(ApprovalDecision, key, data[key], "a decision") if key in data else None
        champion = any(version == request.version and number > request.against for version, number in made)
        refused = store_keys.approval_key(pipeline, request.run_id, REFUSAL) in data
        found[request.run_id] = standing(request, decision, newer, champion, refused, now)
    return found


def standing(
    request: ApprovalRequest,
    decision: ApprovalDecision | None,
    newer: ApprovalRequest | None,
    champion: bool,
    refused: bool,
    now: str,
) -> Approval:
    """Where a run stands. Pure.

    newer     the next run that waited; champion: whether the version became champion since
    refused   whether the gate refused it after it was approved, because another champion came between
    """

    def told(state: str, sentence: str) -> Approval:
        who, reason, at = (decision.who, decision.reason, decision.at) if decision else (None, None, None)
        return Approval(request=request, state=state, who=who, reason=reason, decided_at=at, sentence=sentence)

    if decision is not None and decision.outcome != APPROVED:
        return told(decision.outcome, decision.sentence)
    if champion:
        sentence = decision.sentence if decision else f"{request.version} was made the champion by hand"
        return told(PROMOTED, sentence)
    if decision is None:
        if newer is not None:
            return told(SUPERSEDED, f"superseded by run {newer.run_id}, which passed the gate later")
        if passed(request.expires_at, now):
            why = "nobody approved it in time" if request.labels is None else "too few labels came in time"
            return told(EXPIRED, f"expired at {when(request.expires_at)}: {why}")
        what = "approval" if request.labels is None else f"{request.labels} labelled predictions"
        commands = approve_command(request.pipeline, request.run_id)
        return told(WAITING, f"waiting for {what} until {when(request.expires_at)}: {commands}")
    if refused:
        return told(REFUSED, f"{decision.sentence}; then another champion came, and the gate refused it")
    again = f"`leptonflow approve {request.pipeline} {request.run_id}` completes it"
    return told(APPROVED, f"{decision.sentence}, and the promotion was interrupted: {again}")


def passed(until: str, now: str) -> bool:
    """Whether that time is over."""
    return datetime.fromisoformat(now) >= datetime.fromisoformat(until)


def pending(store: Store, pipeline: str, now: str) -> Approval | None:
    """The run that waits for a person now (or for an interrupted approval to be completed), None where none does."""
    return next((a for a in every(store, pipeline, now).values() if a.state in UNDECIDED), None)


def close(store: Store, pipeline: str, now: str) -> None:
    """Record of each run that waits no more, because of time or a newer run, that it does not. Safe to repeat."""
    for approval in every(store, pipeline, now).values():
        if approval.state in (EXPIRED, SUPERSEDED) and approval.decided_at is None:
            decide(store, approval.request, approval.state, None, None, now, approval.sentence)


def decide(
    store: Store,
    request: ApprovalRequest,
    outcome: Any,
    who: str | None,
    reason: str | None,
    now: str,
    sentence: str,
    verdict: Verdict | None = None,
) -> ApprovalDecision:
    """Create the decision about a run; the one that stands, which is another's where that was first."""
    mine = ApprovalDecision(
        pipeline=request.pipeline, run_id=request.run_id, version=request.version, outcome=outcome, who=who,
        reason=reason, at=now, sentence=sentence, verdict=verdict,
    )  # fmt: skip
    key = store_keys.approval_key(request.pipeline, request.run_id, DECISION)
    return read_model(ApprovalDecision, key, adopt(store, key, canonical(mine)), "a decision")


def today(run: Mapping[str, Any], found: Mapping[str, Approval]) -> dict[str, Any]:
    """A run's document with the verdict that it has now: what was recorded stays `waiting` for ever."""
    approval = found.get(run["run_id"])
    if run["verdict"] != WAITING or approval is None:
        return dict(run)
    told = {} if approval.state == WAITING else {"sentence": approval.sentence}
    return {**run, "verdict": approval.state, **told, "approval": approval.document()}


def told(store: Store, pipeline: str, run: dict[str, Any]) -> dict[str, Any]:
    """As `today`, now; nothing is read where the run never waited."""
    return today(run, every(store, pipeline, clock.now())) if run["verdict"] == WAITING else run


def again(store: Store, pipeline: str, earlier: dict[str, Any]) -> dict[str, Any]:
    """The document of a `retrain` that finds this run finished: `unchanged`, or still waiting."""
    if earlier["verdict"] != WAITING:
        return {**earlier, "verdict": "unchanged"}
    close(store, pipeline, clock.now())
    found = told(store, pipeline, earlier)
    return {**found, "verdict": WAITING if found["verdict"] in UNDECIDED else "unchanged"}

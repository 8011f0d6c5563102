"""What lies under approvals/ on a store: that a run waits for approval, and what was decided about it."""

from __future__ import annotations

from typing import Literal

from schemas.records import Record, Verdict


class ApprovalRequest(Record):
    """approvals/<pipeline>/<run_id>/request.json: a run whose candidate passed its gate and waits for a person."""

    pipeline: str
    run_id: str
    version: str
    number: int  # of the run: the newest one waits, and those before it no more
    snapshot_number: int  # that the run was made on
    against: int  # the record of the promotions log that the gate decided against
    champion: str | None  # that record's
    configuration: str  # digest of what the YAML said of the gate and of what is evaluated
    sentence: str
    at: str
    expires_at: str
    labels: int | None = None  # that decide about it, where it is a canary; None: a person does


class ApprovalDecision(Record):
    """approvals/<pipeline>/<run_id>/decision.json: how the wait ended. Created once, hence by one of several.

    who, reason  of the person; null where time or a newer run decided
    verdict      the gate's, decided again as the person approved; null where it was not
    """

    pipeline: str
    run_id: str
    version: str
    outcome: Literal["approved", "rejected", "refused", "expired", "superseded"]
    who: str | None
    reason: str | None
    at: str
    sentence: str
    verdict: Verdict | None

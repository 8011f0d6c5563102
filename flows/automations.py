"""What a Prefect server does by itself for our runs: retrain when a batch arrives, and run again what did not end.

Automations as documents of Prefect's API, with what they rely on (docs/decisions/0008-arrivals-and-heartbeats.md).
What does not belong here: how they are registered (deployments).
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from schemas.arrivals import DRIFT, EVENT, PIPELINE_LABEL, TAG
from schemas.config import Pipeline

HEARTBEAT_SECONDS = 30  # Prefect sends none more often
SILENT_SECONDS = 90  # without a sign of life: two heartbeats may be lost
UNSTARTED_SECONDS = 300  # from a slot to the run's start: as long as Prefect keeps the slot
SETTLED_SECONDS = 30  # after a process ended: until then Prefect's worker runs hooks, and may say Crashed once more
MOST_LOSSES = 6  # of one run: whatever ends it each time would do so for ever
LOST = "WorkerLost"
AGAIN = "AwaitingRetry"
LIVING = ("prefect.flow-run.heartbeat", "prefect.flow-run.Running")
TAKEN = ("prefect.flow-run.Pending", "prefect.flow-run.Submitting", "prefect.flow-run.InfrastructurePending")
WATCH = {"RUNNING": "leptonflow.run.running", "PENDING": "leptonflow.run.pending"}  # begins the watch over a run anew

Document = dict[str, Any]


def on_arrival(config: Pipeline, deployment_id: str) -> Document:
    """A retraining after a batch's arrival, which lists the store itself: one for all that arrive within `debounce`.

    The first event starts the window and schedules the run at its end; a later event of the window does nothing, since
    its batch is closed before the run begins; one after it starts the next window. Drift that the pipeline monitors is
    such an event too.
    """
    return _automation(
        f"{config.name}: retrain when a batch arrives",
        f"Batches that arrive within {config.debounce:g} s (debounce) are one retraining",
        {
            "type": "event",
            "posture": "Reactive",
            "match": {PIPELINE_LABEL: config.name},
            "expect": [EVENT, DRIFT] if config.serving.monitor and config.serving.monitor.retrain else [EVENT],
            "threshold": 1,
            "within": config.debounce,
        },
        {
            "type": "run-deployment",
            "source": "selected",
            "deployment_id": deployment_id,
            "schedule_after": config.debounce,
        },
    )


def for_lost_runs() -> list[Document]:
    """A run that gives no sign of life is marked as lost; what is marked so, and what crashed, is run again.

    Two steps, because Prefect takes no run out of a final state into Crashed, but would take one into Scheduled: a
    heartbeat that arrives after the run's end must not begin it again.
    """
    lost = {"type": "change-flow-run-state", "state": "CRASHED", "name": LOST}
    again = {"type": "change-flow-run-state", "state": "SCHEDULED", "name": AGAIN}
    return [
        _automation(
            "leptonflow: runs whose worker is gone",
            f"A running retraining that gives no sign of life for {SILENT_SECONDS} s is marked {LOST}",
            _silence([*LIVING, WATCH["RUNNING"]], SILENT_SECONDS),
            {**lost, "message": f"No sign of life for {SILENT_SECONDS} s: its worker is gone"},
        ),
        _automation(
            "leptonflow: runs that never began",
            f"A retraining that a worker took and that does not run {UNSTARTED_SECONDS} s later is marked {LOST}",
            _silence([*TAKEN, WATCH["PENDING"], *LIVING, f"prefect.flow-run.{LOST}"], UNSTARTED_SECONDS),
            {**lost, "message": f"Taken by a worker {UNSTARTED_SECONDS} s ago, and never started"},
        ),
        _automation(
            "leptonflow: run again what lost its worker",
            f"A retraining marked {LOST} is scheduled again: the same run, which resumes from what is on the store",
            {"type": "event", "posture": "Reactive", "expect": [f"prefect.flow-run.{LOST}"], "threshold": 1,
             "within": 0.0, **_our_runs()},
            {**again, "message": "Its worker was lost: the run resumes from what is on the store"},
        ),
        _automation(
            "leptonflow: run again what crashed",
            f"A retraining whose process was killed is scheduled again after {SETTLED_SECONDS} s, unless cancelled",
            _silence(["prefect.flow-run.Crashed"], SETTLED_SECONDS),
            {**again, "message": "Its process was killed: the run resumes from what is on the store"},
        ),
        _automation(
            "leptonflow: runs that are lost again and again",
            f"A retraining that was scheduled again more than {MOST_LOSSES} times in a day has failed",
            {"type": "event", "posture": "Reactive", "expect": [f"prefect.flow-run.{AGAIN}"],
             "for_each": ["prefect.resource.id"], "threshold": MOST_LOSSES + 1, "within": 86400.0, **_our_runs()},
            {"type": "change-flow-run-state", "state": "FAILED",
             "message": f"Lost more than {MOST_LOSSES} times, not started again: see the run's and the worker's log"},
        ),
    ]  # fmt: skip


def watched(run: Document) -> Document | None:
    """The event that begins the watch over a deployed run anew, or None for a state that is not watched.

    A server that was down for long has forgotten whom it watched. A run that lives is heard of in time.
    """
    if run["state_type"] not in WATCH:
        return None
    deployment = f"prefect.deployment.{run['deployment_id']}"
    return {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now().astimezone().isoformat(),
        "event": WATCH[run["state_type"]],
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run['id']}", "prefect.resource.name": run["name"]},
        "related": [
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
            {"prefect.resource.role": "deployment", "prefect.resource.id": deployment},
        ],
    }


def same(wanted: Document, there: Document) -> bool:
    """Whether the server's automation says what is wanted, ids and a person's switch for it apart."""
    return bool(_plain(wanted, there) == _plain(wanted, wanted))


def _plain(like: Any, value: Any) -> Any:
    """`value` with the keys of `like` alone, and lists of words as sets: the server keeps them so."""
    if isinstance(like, dict) and isinstance(value, dict):
        return {key: _plain(each, value.get(key)) for key, each in like.items() if key != "enabled"}
    if isinstance(like, list) and isinstance(value, list):
        if all(isinstance(each, str) for each in value):
            return frozenset(value)
        return [_plain(each, other) for each, other in zip(like, value, strict=False)] + value[len(like) :]
    return value


def _silence(after: list[str], seconds: int) -> Document:
    """After one of these, nothing more of the same run.

    Whatever must not be missed is among `after`, although the silence that matters may have begun before: for an event
    of `after` Prefect writes first, for another it reads and then writes, which a server on SQLite may refuse
    (server_database).
    """
    return {
        "type": "event",
        "posture": "Proactive",
        "after": after,
        "expect": ["prefect.flow-run.*"],  # a heartbeat or any state: final ones are named by verdicts
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": float(seconds),
        **_our_runs(),
    }


def _our_runs() -> Document:
    """Deployed runs: one in a terminal has no worker, and ends with its command."""
    return {
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": [
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
            {"prefect.resource.role": "deployment"},
        ],
    }


def _automation(name: str, description: str, trigger: Document, action: Document) -> Document:
    return {"name": name, "description": description, "enabled": True, "trigger": trigger, "actions": [action]}

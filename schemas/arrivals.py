"""The event that a closed batch raises, and the names by which deployments and watchers meet on a Prefect server.

What does not belong here: who raises it, and what happens then.
"""

from __future__ import annotations

import uuid
from typing import Any

EVENT = "leptonflow.batch.arrived"
DRIFT = "leptonflow.drift.found"
FLOW = "retrain"
SCORE = "score"
MONITOR = "monitor"
FLOWS = (FLOW, SCORE, MONITOR)  # of a pipeline's deployments, each of its name
POOL = "default"
TAG = "leptonflow"
PIPELINE_LABEL = "leptonflow.pipeline"
STORE_LABEL = "leptonflow.storage.store"

_NAMESPACE = uuid.UUID("5f0d3f9e-6f2d-5d7e-9a51-2f8a6c1f7b30")


def event_id(store_id: str, pipeline: str, batch: str) -> uuid.UUID:
    """The one id of a batch's arrival, whoever raises it and however often."""
    return uuid.uuid5(_NAMESPACE, f"{store_id}/{pipeline}/{batch}")


def head_event(store_id: str, pipeline: str, snapshot: str, asked: str, attempt: int) -> dict[str, Any]:
    """The event of a dataset that a run is due for. asked: planning.asked; attempt: from 0, each another event."""
    id = uuid.uuid5(_NAMESPACE, f"{store_id}/{pipeline}/{asked}/{attempt}/head")
    payload = {"snapshot": snapshot, "batch": None, "count": None, "bytes": None}
    return _event(id, EVENT, store_id, pipeline, f"snapshot.{pipeline}.{snapshot}", snapshot, payload)


def batch_event(store_id: str, pipeline: str, batch: str, count: int | None, size: int | None) -> dict[str, Any]:
    """The event's document, without `occurred`. count: files or rows; size: bytes; None where it is not known."""
    payload = {"batch": batch, "count": count, "bytes": size}
    id = event_id(store_id, pipeline, batch)
    return _event(id, EVENT, store_id, pipeline, f"batch.{pipeline}.{batch}", batch, payload)


def drift_event(store_id: str, pipeline: str, version: str, number: int, sentence: str) -> dict[str, Any]:
    """The event of a drift that asks for a retraining, found by look `number` in what `version` is served."""
    id = uuid.uuid5(_NAMESPACE, f"{store_id}/{pipeline}/{version}/{number}/drift")
    payload = {"version": version, "number": number, "sentence": sentence}
    return _event(id, DRIFT, store_id, pipeline, f"drift.{pipeline}.{number}", f"look {number}", payload)


def _event(
    id: uuid.UUID, kind: str, store_id: str, pipeline: str, resource: str, name: str, payload: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": str(id),
        "event": kind,
        "resource": {
            "prefect.resource.id": f"leptonflow.{resource}",
            "prefect.resource.name": name,
            PIPELINE_LABEL: pipeline,
            STORE_LABEL: store_id,
        },
        "related": [{"prefect.resource.id": f"leptonflow.pipeline.{pipeline}", "prefect.resource.role": "pipeline"}],
        "payload": {"pipeline": pipeline, **payload},
    }

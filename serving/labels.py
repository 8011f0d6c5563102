"""`POST /v1/<pipeline>/labels`: labels that come after the prediction, by the id of the request."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from leptonflow.monitoring import labels
from schemas.errors import LeptonflowError

MOST = 10_000  # labels in one request

router = APIRouter()


class Label(BaseModel):
    """A label for one served request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: Annotated[str, Field(max_length=100)]
    label: Annotated[str, Field(max_length=labels.LONGEST)]


class Labels(BaseModel):
    """Labels for served requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: Annotated[list[Label], Field(min_length=1, max_length=MOST)]


@router.post("/v1/{pipeline}/labels", summary="Labels for served requests, by their ids")
def give(pipeline: str, given: Labels, request: Request) -> dict[str, Any]:
    """Record each label that belongs to a served request; the others are refused, each with the reason."""
    if pipeline not in request.app.state.pipelines:
        raise HTTPException(404, "no such pipeline is served here")
    who = getattr(request.state, "who", None) or "http"  # the name of the key
    rows = [labels.Given(each.request_id, each.label) for each in given.labels]
    try:
        return labels.record(request.app.state.store, pipeline, rows, who)
    except LeptonflowError:  # its line names keys of the store
        raise HTTPException(503, "the store cannot be read or written now", {"Retry-After": "10"}) from None

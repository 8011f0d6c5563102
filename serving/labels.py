"""`POST /v1/<pipeline>/labels`: labels that come after the prediction, by the id of the request."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from leptonflow.monitoring import labels
from schemas.errors import LeptonflowError
from schemas.text import printable
from serving.predictions import service_of
from serving.problems import told
from serving.request_bodies import document, read

MOST, MOST_BYTES = 10_000, 16_000_000  # labels in one request, and bytes of it


class Label(BaseModel):
    """A label for one served request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: Annotated[str, Field(max_length=100)]
    label: Annotated[str, Field(max_length=labels.LONGEST)]


class Labels(BaseModel):
    """Labels for served requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: Annotated[list[Label], Field(min_length=1, max_length=MOST)]


async def give(request: Request) -> Response:
    """Record each label that belongs to a served request; the others are refused, each with the reason."""
    name = service_of(request).name
    try:
        given = Labels.model_validate(document(await read(request, MOST_BYTES)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("body", *map(str, first["loc"])))
        raise told(422, printable(f"{where} is not valid"[:200]), expected=printable(str(first["msg"])[:200])) from None
    who = getattr(request.state, "who", None) or "http"  # the name of the key
    rows = [labels.Given(each.request_id, each.label) for each in given.labels]
    try:
        found = await run_in_threadpool(labels.record, request.app.state.store, name, rows, who)
    except LeptonflowError:  # its line names keys of the store
        raise told(503, "the store cannot be read or written now", hint="Try again later", retry_after=10) from None
    return Response(json.dumps(found), media_type="application/json")

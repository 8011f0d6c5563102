"""`POST /v1/<pipeline>/labels`: labels that come after the prediction, by the id of the request."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
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


def recorder() -> ThreadPoolExecutor:
    """Threads of their own: while the store hangs, they hang, and nothing else waits for them."""
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="labels")


async def give(request: Request) -> Response:
    """Record each label that belongs to a served request; the others are refused, each with the reason.

    503 where the store does not answer in time. What has begun is still recorded when it does; to give the same labels
    again changes nothing.
    """
    service = service_of(request)
    try:
        given = Labels.model_validate(document(await read(request, MOST_BYTES)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("body", *map(str, first["loc"])))
        raise told(422, printable(f"{where} is not valid"[:200]), expected=printable(str(first["msg"])[:200])) from None
    who = getattr(request.state, "who", None) or "http"  # the name of the key
    rows = [labels.Given(each.request_id, each.label) for each in given.labels]
    state, loop = request.app.state, asyncio.get_running_loop()
    try:
        async with asyncio.timeout(service.config.serving.seconds):
            found = await loop.run_in_executor(state.recorder, labels.record, state.store, service.name, rows, who)
    except (LeptonflowError, TimeoutError):  # the error's line names keys of the store
        raise told(503, "the store cannot be read or written now", hint="Try again later", retry_after=10) from None
    return Response(json.dumps(found), media_type="application/json")

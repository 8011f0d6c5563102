"""Whether the process runs, whether it can predict, and its metrics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from schemas.errors import LeptonflowError
from schemas.text import printable
from serving.batching import QueueFull
from serving.metrics import TYPE
from serving.predictions import state
from serving.service import Service

SECONDS = 5.0  # a canary that takes longer is no answer


async def healthz(request: Request) -> Response:
    """`GET /healthz`: the process answers."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """`GET /readyz`: every pipeline has predicted a reference row of its package just now, as recorded there.

    However many ask, one prediction is made at a time: who has no key must not fill the queue. Where there are keys,
    who has none learns only whether it is ready.
    """
    state = request.app.state
    if state.probe is None or state.probe.done():
        state.probe = asyncio.create_task(_rows(state.services))
    rows = await asyncio.shield(state.probe)
    ready = all(row["ready"] for row in rows)
    told = {} if state.keys and request.state.who is None else {"pipelines": rows}
    return Response(json.dumps({"ready": ready, **told}), 200 if ready else 503, media_type="application/json")


async def _rows(services: Mapping[str, Service]) -> list[dict[str, Any]]:
    return await asyncio.gather(*(_row(service) for service in services.values()))


async def _row(service: Service) -> dict[str, Any]:
    error = service.why_not() or await _canary(service)
    return {**state(service), "ready": error is None, "error": error}


async def _canary(service: Service) -> str | None:
    """Why the canary is not predicted as recorded; None where it is, or where the queue is full of other examples."""
    try:
        async with asyncio.timeout(SECONDS):
            (answer,) = await service.batcher.submit([service.canary()], time.monotonic() + SECONDS)
        if answer.outputs is None:
            return answer.error
        answer.live.check(answer.outputs[None])
    except QueueFull:
        return None
    except TimeoutError:
        return f"no prediction within {SECONDS:g} seconds"
    except LeptonflowError as error:
        return error.line()
    except Exception as error:  # noqa: BLE001 - whatever the model says is why it is not ready
        return printable(f"{type(error).__name__}: {error}"[:300])
    return None


async def metrics(request: Request) -> Response:
    """`GET /metrics`. Not in a thread: those may all wait for a slow store, which this page is to tell of."""
    return Response(request.app.state.metrics.page(), media_type=TYPE)

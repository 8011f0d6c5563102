"""Whether the process runs, whether it can predict, and its metrics."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from starlette.concurrency import run_in_threadpool
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
    """`GET /readyz`: every pipeline has predicted a reference row of its package just now, as recorded there."""
    services: dict[str, Service] = request.app.state.services
    rows = list(await asyncio.gather(*(_row(service) for service in services.values())))
    ready = all(row["ready"] for row in rows)
    document = {"ready": ready, "pipelines": rows}
    return Response(json.dumps(document), 200 if ready else 503, media_type="application/json")


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
    """`GET /metrics`."""
    page = await run_in_threadpool(request.app.state.metrics.page)
    return Response(page, media_type=TYPE)

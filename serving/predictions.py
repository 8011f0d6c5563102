"""`POST /v1/P/predict` and what tells of a pipeline: predictions in the columns and words of `predict --json`."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from leptonflow.workloads import catalog
from schemas.text import printable
from serving import explaining, problems, request_bodies
from serving.predicting import Arrival, arrived, predicted
from serving.problems import Problem, told
from serving.request_bodies import read
from serving.service import Prediction, Service

CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
MEGABYTE = 1_000_000
Endpoint = Callable[[Request, Service, Arrival], Awaitable[Response]]


def service_of(request: Request) -> Service:
    """The service that the path names. Raises Problem 404 with those that there are."""
    services: dict[str, Service] = request.app.state.services
    name = str(request.path_params["pipeline"])
    if name not in services:
        raise told(
            404, "no such pipeline is served here", expected=f"one of {', '.join(services)}",
            received=printable(name[:100]),
        )  # fmt: skip
    return services[name]


def measured(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a pipeline: its problems as responses, an id for each request, its time and status counted."""

    async def wrapped(request: Request) -> Response:
        try:
            service = service_of(request)
        except Problem as problem:
            return problems.response(problem, path=request.url.path)
        arrival = arrived(service.config.serving.seconds)
        try:
            response = await endpoint(request, service, arrival)
        except Problem as problem:
            response = problems.response(problem, arrival.request_id, request.url.path)
        given = request.headers.get("x-request-id")
        if given is not None and CLIENT_ID.fullmatch(given):
            response.headers["x-client-request-id"] = given
        request.app.state.metrics.request(service, response, arrival)
        return response

    return wrapped


async def body_of(request: Request, service: Service) -> bytes:
    """The request's body, within the limits of the pipeline's YAML. Raises what `read` raises."""
    limits = service.config.serving
    hint = "Send fewer or smaller examples; `serving: {body_mb: N}` in the pipeline's YAML is the limit"
    return await read(request, int(limits.body_mb * MEGABYTE), limits.seconds, hint)


@measured
async def predict(request: Request, service: Service, arrival: Arrival) -> Response:
    """A row for each example of the request, in its order."""
    body = await body_of(request, service)
    typed = catalog.load(service.config.workload).typed is not None
    examples = await request_bodies.examples(request, body, service.config.serving, typed)
    explain = explaining.wanted(request, service, examples)
    found = await predicted(service, request.app.state.decoders, arrival, examples, "predict")
    if len(found) == 1 and found[0][2].error is not None:
        raise told(422, f"the example cannot be read: {found[0][2].error}", hint="Send another one")
    document: dict[str, Any] = {
        "request_id": arrival.request_id,
        "pipeline": service.name,
        "version": found[0][2].live.version,
        "predictions": [row(id, name, answer) for id, name, answer in found],
    }
    if explain:
        pool, answers = request.app.state.explainer, [answer for _, _, answer in found]
        why = await explaining.explained(pool, service, arrival, examples, answers)
        for each, explanation in zip(document["predictions"], why, strict=True):
            each["explanation"] = explanation
    headers = {"x-request-id": arrival.request_id, "x-model-version": found[0][2].live.version}
    return Response(to_json(document), 200, headers, "application/json")  # in a fifth of json.dumps' time


def row(request_id: str, name: str, answer: Prediction) -> dict[str, Any]:
    """The columns of `predict --json`, with the example's own id and all outputs: by class, where there are any."""
    outputs = None if answer.outputs is None else answer.outputs.tolist()
    classes = answer.live.served.classes
    by_class = None if outputs is None or not classes else dict(zip(classes, outputs, strict=True))
    return {
        "file": name,
        "label": answer.label,
        "probability": answer.probability,
        "version": answer.live.version,
        "error": answer.error,
        "request_id": request_id,
        **({"probabilities": by_class} if classes else {"outputs": outputs}),
    }


def state(service: Service) -> dict[str, Any]:
    """What is served, and whether that is the champion."""
    live, champion, beside = service.live, service.champion, service.beside
    return {
        "pipeline": service.name,
        "version": live.version if live else None,
        "runtime": live.served.runtime if live else None,
        "why_keras": live.served.why_keras if live else None,
        "classes": list(live.served.classes) if live else None,
        "champion": champion.version if champion else None,
        "since": champion.since if champion else None,
        "pinned": service.pin,
        "candidate": beside.live.version if beside else None,
        "share": beside.share if beside else None,
        "problem": service.problem or service.problem_beside,
        "store": service.store_problem,
    }


async def show(request: Request) -> Response:
    """`GET /v1/P`."""
    try:
        return Response(json.dumps(state(service_of(request))), 200, media_type="application/json")
    except Problem as problem:
        return problems.response(problem)


async def listing(request: Request) -> Response:
    """`GET /v1`: every pipeline that is served here."""
    services: dict[str, Service] = request.app.state.services
    document = {"pipelines": [state(each) for each in services.values()]}
    return Response(json.dumps(document), 200, media_type="application/json")

"""The OpenAPI document at /openapi.json, and a page of it at /docs that needs no script and no other server."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from schemas.errors import LeptonflowError
from serving.inference_protocol import NUMBERS
from serving.labels import Labels

Json = dict[str, Any]
WORDS = LeptonflowError("").document()["error"].keys()
TEXT: Json = {"type": "string"}
NULLABLE_TEXT: Json = {"type": ["string", "null"]}
NULLABLE_NUMBER: Json = {"type": ["number", "null"]}
WHY: Json = {"type": "object", "properties": dict.fromkeys(WORDS, NULLABLE_TEXT)}
SCHEMAS: Json = {
    "Error": {
        "type": "object",
        "required": ["error", "line"],
        "properties": {
            "error": {"oneOf": [WHY, {**TEXT, "description": "of /v2, where the object is in `details`"}]},
            "details": WHY,
            "line": {**TEXT, "description": "the same as one line"},
            "request_id": NULLABLE_TEXT,
        },
    },
    "Example": {
        "description": "a text, of other models a file's bytes as base64; or an object that says what it is",
        "oneOf": [
            TEXT,
            *({"type": "object", "required": [key], "properties": {key: kind}, "additionalProperties": False}
              for key, kind in (("text", TEXT), ("base64", TEXT), ("array", {"type": "array", "items": {}}))),
        ],
    },
    "Prediction": {
        "type": "object",
        "required": ["file", "label", "probability", "version", "error", "request_id"],
        "properties": {
            "file": {**TEXT, "description": "the name of the example in the request"},
            "label": NULLABLE_TEXT,
            "probability": NULLABLE_NUMBER,
            "version": TEXT,
            "error": {**NULLABLE_TEXT, "description": "why there is no prediction, in the words of `predict`"},
            "request_id": {**TEXT, "description": "of this example: the id for a label that comes later"},
            "probabilities": {"type": ["object", "null"], "additionalProperties": {"type": "number"}},
            "outputs": {"type": ["array", "null"], "items": {"type": "number"}},
            "explanation": {"type": ["object", "null"], "description": "with ?explain=1: the parts that mattered"},
        },
    },
    "Predictions": {
        "type": "object",
        "required": ["request_id", "pipeline", "version", "predictions"],
        "properties": {
            "request_id": TEXT, "pipeline": TEXT, "version": TEXT,
            "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
        },
    },
    "Tensors": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": TEXT,
            "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": {
                "type": "object",
                "required": ["name", "shape", "datatype", "data"],
                "properties": {
                    "name": TEXT,
                    "shape": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
                    "datatype": {"enum": ["BYTES", *NUMBERS]},
                    "data": {"type": "array", "items": {}},
                },
            }},
            "outputs": {"type": "array", "items": {
                "type": "object", "required": ["name"],
                "properties": {"name": {"enum": ["outputs", "label", "probability"]}},
            }},
        },
    },
}  # fmt: skip
FILES: Json = {
    "type": "object",
    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
}
ERRORS = {
    400: "the request does not hold together", 401: "no key, or an unknown one",
    403: "a page of another server", 404: "no such pipeline",
    408: "the body did not come in time", 413: "more bytes or examples than allowed", 415: "no example in such a body",
    422: "the only example, or one of a tensor, cannot be read", 429: "the queue is full: Retry-After says when",
    500: "the model failed", 503: "no version is loaded: the reason is in the error", 504: "it took too long",
}  # fmt: skip
NAMED = {"name": "pipeline", "in": "path", "required": True, "schema": TEXT}
VERSION = {"name": "version", "in": "path", "required": True, "schema": TEXT}
EXPLAIN = {"name": "explain", "in": "query", "schema": TEXT, "description": "1: which parts of each example mattered"}


def _body(schema: Json, kind: str = "application/json") -> Json:
    return {kind: {"schema": schema}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _errors(*statuses: int) -> Json:
    return {str(each): {"description": ERRORS[each], "content": _body(_ref("Error"))} for each in statuses}


def _operation(summary: str, answer: Mapping[str, Any], *errors: int, body: Json | None = None, path: str = "") -> Json:
    return {
        "summary": summary,
        "parameters": [each for each in (NAMED, VERSION) if f"{{{each['name']}}}" in path],
        **({"requestBody": {"required": True, "content": body}} if body else {}),
        "responses": {
            "200": {"description": "OK", "content": dict(answer)},
            **_errors(*errors),
        },
    }


def paths() -> Json:
    """What the routes of serving.app take and give."""
    anything, text = _body({"type": "object"}), _body(TEXT, "text/plain")
    posted = (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504)
    examples = {
        **_body({"type": "string", "format": "binary"}, "application/octet-stream"),
        **_body(FILES, "multipart/form-data"),
        **_body({
            "type": "object", "required": ["examples"], "additionalProperties": False,
            "properties": {"examples": {"type": "array", "minItems": 1, "items": _ref("Example")}},
        }),
    }  # fmt: skip
    gets = {
        "/healthz": ("The process answers", text, ()),
        "/readyz": ("Every pipeline predicts a reference example as recorded", anything, (503,)),
        "/metrics": ("Metrics for Prometheus", text, (401,)),
        "/v1": ("The pipelines that are served", anything, (401,)),
        "/v1/{pipeline}": ("What is served, and whether it is the champion", anything, (401, 404)),
        "/v2": ("The server", anything, (401,)),
        "/v2/health/live": ("The process answers", anything, ()),
        "/v2/health/ready": ("As /readyz", anything, (503,)),
        "/v2/models/{pipeline}": ("The model", anything, (401, 404)),
        "/v2/models/{pipeline}/ready": ("Whether a version is loaded", anything, (401, 404, 503)),
    }
    found = {path: {"get": _operation(words, body, *codes, path=path)} for path, (words, body, codes) in gets.items()}
    predict, infer = "/v1/{pipeline}/predict", "/v2/models/{pipeline}/infer"
    found[predict] = {"post": _operation(
        "Predict one or several examples", _body(_ref("Predictions")), *posted, body=examples, path=predict
    )}  # fmt: skip
    found[predict]["post"]["parameters"].append(EXPLAIN)
    found[infer] = {"post": _operation(
        "Predict a tensor of examples", anything, *posted, body=_body(_ref("Tensors")), path=infer
    )}  # fmt: skip
    labels = "/v1/{pipeline}/labels"
    found[labels] = {"post": _operation(
        "Labels for served requests, by their ids", anything, *(each for each in posted if each not in (429, 504)),
        body=_body(_ref("Labels")), path=labels,
    )}  # fmt: skip
    of_version = "/v2/models/{pipeline}/versions/{version}"
    for end in ("", "/ready", "/infer"):
        ((method, operation),) = found[f"/v2/models/{{pipeline}}{end}"].items()
        found[of_version + end] = {method: {**operation, "parameters": [NAMED, VERSION]}}
    return found


@cache
def described() -> Json:
    """The whole document."""
    labels = Labels.model_json_schema(ref_template="#/components/schemas/{model}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "leptonflow", "version": metadata.version("leptonflow")},
        "paths": paths(),
        "components": {
            "schemas": {**SCHEMAS, **labels.pop("$defs"), "Labels": labels},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


async def document(request: Request) -> Response:
    """`GET /openapi.json`."""
    return Response(json.dumps(described()), media_type="application/json")


async def page(request: Request) -> Response:
    """`GET /docs`."""
    document = described()
    rows = [
        f"<h2><code>{html.escape(method.upper())} {html.escape(path)}</code></h2>"
        f"<p>{html.escape(operation.get('summary', ''))}</p>"
        f"<p>{', '.join(_answers(operation))}</p>"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = html.escape(json.dumps(document["components"]["schemas"], indent=2))
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><title>leptonflow: HTTP</title>"
        "<meta name=viewport content='width=device-width'>"
        "<style>body{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
        "h2{font-size:1rem;margin:1.5rem 0 0}p{margin:0}pre{overflow:auto}</style>"
        f"<h1>HTTP interface</h1><p>As a document: <a href=/openapi.json>/openapi.json</a></p>{''.join(rows)}"
        f"<h2>Schemas</h2><pre>{schemas}</pre></html>"
    )


def _answers(operation: Json) -> list[str]:
    return [f"{status} {html.escape(each['description'])}" for status, each in operation["responses"].items()]

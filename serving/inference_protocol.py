"""The Open Inference Protocol, version 2 (KServe, Triton): the same predictions for clients that speak it.

An input is a tensor of BYTES with one example each (base64; of a text the text itself), or of numbers, N x ..., as an
`.npy` source has them. Outputs are the workload's: `outputs` (N, K), `label` and `probability` (N).
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import json
import reprlib
from math import prod
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from leptonflow.workloads import catalog
from schemas.serving import Serving
from schemas.text import printable
from serving import problems
from serving.predicting import Arrival, predicted
from serving.predictions import body_of, measured, service_of
from serving.problems import Problem, told
from serving.request_bodies import Example, array_examples, document, of_base64, of_text, too_many
from serving.service import Prediction, Service

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMBERS = {
    "BOOL": "bool", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip
MOST_AXES = 8
VERSION = "2"


async def live(request: Request) -> Response:
    """`GET /v2/health/live`."""
    return _json({"live": True})


async def server(request: Request) -> Response:
    """`GET /v2`."""
    from importlib import metadata

    return _json({"name": "leptonflow", "version": metadata.version("leptonflow"), "extensions": []})


async def model(request: Request) -> Response:
    """`GET /v2/models/P`, also of the version that is served."""
    try:
        service = _of_version(request)
    except Problem as problem:
        return problems.response(problem, path=request.url.path)
    now = service.live
    classes = list(now.served.classes) if now else []
    return _json({
        "name": service.name,
        "versions": [now.version] if now else [],
        "platform": f"leptonflow_{now.served.runtime}" if now else "leptonflow",
        "inputs": [{"name": "examples", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "outputs", "datatype": "FP64", "shape": [-1, len(classes) or -1]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probability", "datatype": "FP64", "shape": [-1]},
        ],
        "parameters": {"classes": json.dumps(classes), "workload": service.config.workload},
    })  # fmt: skip


async def model_ready(request: Request) -> Response:
    """`GET /v2/models/P/ready`."""
    try:
        service = _of_version(request)
    except Problem as problem:
        return problems.response(problem, path=request.url.path)
    why = service.why_not()
    return _json({"name": service.name, "ready": why is None, **({"error": why} if why else {})}, 503 if why else 200)


def _of_version(request: Request) -> Service:
    """The path's pipeline, whose served version is the path's where it names one. Raises Problem 404."""
    service = service_of(request)
    version = request.path_params.get("version")
    now = service.live.version if service.live else None
    if version is not None and version != now:
        raise told(
            404, "this version is not the one that is served", expected=now or "none is loaded",
            received=printable(str(version)[:100]),
        )  # fmt: skip
    return service


@measured
async def infer(request: Request, service: Service, arrival: Arrival) -> Response:
    """`POST /v2/models/P/infer`. A tensor has no place for an error: a bad example fails the request, and is named."""
    _of_version(request)
    if "inference-header-content-length" in request.headers:
        raise told(
            415, "tensors in binary are not read", expected="tensors as JSON lists", received="binary tensor data",
            hint="tritonclient sends JSON with binary_data=False, for inputs and for requested outputs", close=True,
        )  # fmt: skip
    asked = document(await body_of(request, service))
    typed = catalog.load(service.config.workload).typed is not None
    examples = _examples(asked, service.config.serving, typed)
    wanted = _wanted(asked)
    found = await predicted(service, request.app.state.decoders, arrival, examples, "infer")
    bad = [(number, answer.error) for number, (_, _, answer) in enumerate(found) if answer.error is not None]
    if bad:
        raise told(422, f"example {bad[0][0]} cannot be read: {bad[0][1]}", hint="Send another one")
    version = found[0][2].live.version
    given = asked.get("id")
    tensors = [each for each in _outputs([answer for _, _, answer in found]) if not wanted or each["name"] in wanted]
    reply = {
        "model_name": service.name,
        "model_version": version,
        **({"id": printable(given[:128])} if isinstance(given, str) else {}),
        "parameters": {"request_id": arrival.request_id, "request_ids": ",".join(id for id, _, _ in found)},
        "outputs": tensors,
    }
    return _json(reply, 200, {"x-request-id": arrival.request_id, "x-model-version": version})


def _outputs(answers: list[Prediction]) -> list[dict[str, Any]]:
    rows = [[] if each.outputs is None else each.outputs.tolist() for each in answers]
    count = len(answers)
    return [
        {"name": "outputs", "datatype": "FP64", "shape": [count, len(rows[0])],
         "data": [value for row in rows for value in row]},
        {"name": "label", "datatype": "BYTES", "shape": [count], "data": [each.label for each in answers]},
        {"name": "probability", "datatype": "FP64", "shape": [count],
         "data": [each.probability for each in answers]},
    ]  # fmt: skip


def _wanted(asked: dict[str, Any]) -> set[str]:
    """The names of `outputs`, empty for all. Raises Problem 400 for one that there is not."""
    given = asked.get("outputs", [])
    names = [each.get("name") if isinstance(each, dict) else None for each in given] if isinstance(given, list) else [0]
    known = ("outputs", "label", "probability")
    if strange := [name for name in names if name not in known]:
        raise told(
            400, "no such output", expected=f"names among {', '.join(known)}", received=printable(repr(strange)[:100])
        )
    return {str(name) for name in names}


def _examples(asked: Any, limits: Serving, typed: bool) -> list[Example]:
    """The examples of the one input tensor. Raises Problem 400 where it is none, 413."""
    inputs = asked.get("inputs") if isinstance(asked, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise told(400, "the request is no inference request", expected='one tensor in a list "inputs"')
    tensor = inputs[0]
    kind, shape, data = tensor.get("datatype"), tensor.get("shape"), tensor.get("data")
    if (
        not isinstance(shape, list) or not 0 < len(shape) <= MOST_AXES
        or not all(type(each) is int and 0 <= each < 2**31 for each in shape)
    ):  # fmt: skip
        raise _wrong("shape", "a list of whole numbers, N first", shape)
    if not isinstance(data, list):
        raise _wrong("data", "a list, and no binary data", data)
    if shape[0] > limits.examples:
        raise too_many(shape[0], limits)
    if shape[0] == 0:
        raise told(400, "the request holds no example", expected="at least one", received="none")
    if kind == "BYTES":
        flat = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in data]
        if prod(shape) != shape[0] or len(flat) != shape[0] or not all(isinstance(each, str) for each in flat):
            raise _wrong("data", f"{shape[0]} strings, as the shape says", data)
        make = of_text if typed else of_base64
        return [make(f"examples[{number}]", each) for number, each in enumerate(flat)]
    if not isinstance(kind, str) or kind not in NUMBERS:
        raise _wrong("datatype", f"BYTES, {', '.join(NUMBERS)}", kind)
    return array_examples([f"examples[{number}]" for number in range(shape[0])], _array(kind, shape, data))


def _array(kind: str, shape: list[int], data: list[Any]) -> NDArray[Any]:
    import numpy as np

    try:
        plain = np.asarray(data)
        if plain.dtype.kind not in "buif" or plain.size != prod(shape):
            raise ValueError(f"{plain.size} values of {plain.dtype}")
        with np.errstate(all="ignore"):  # what it cannot hold is seen below, or as an infinite number
            made = plain.astype(NUMBERS[kind])
        rounded = plain.dtype.kind == "f" and kind.startswith("FP")
        if not rounded and not (made == plain).all():
            raise ValueError(f"values that {kind} cannot hold")
        return made.reshape(shape)
    except (ValueError, OverflowError, TypeError, MemoryError) as error:
        received = printable(str(error)[:100])
        raise told(
            400, "the tensor is not what it says", expected=f"{prod(shape)} numbers of {kind}", received=received
        ) from None


def _wrong(key: str, expected: str, received: Any) -> Problem:
    shown = printable(reprlib.repr(received)[:100])
    return told(400, f"inputs[0].{key} is not valid", expected=expected, received=shown)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status, headers, "application/json")

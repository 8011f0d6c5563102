"""What a client is told when a request is not answered with predictions: a status, and one error in one line.

A LeptonflowError says what was expected, received, and what to do; a traceback never leaves the process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from schemas.errors import LeptonflowError

PROTOCOL = "/v2/"  # the paths of the Open Inference Protocol


class Problem(Exception):
    """An HTTP status with its error. close: the rest of the request is not read, so the connection ends."""

    def __init__(
        self, status: int, error: LeptonflowError, headers: Mapping[str, str] | None = None, close: bool = False
    ) -> None:
        super().__init__(error.line())
        self.status, self.error = status, error
        self.headers = {**(headers or {}), **({"connection": "close"} if close else {})}


def told(
    status: int, message: str, *, expected: str | None = None, received: str | None = None, hint: str | None = None,
    retry_after: float | None = None, close: bool = False,
) -> Problem:  # fmt: skip
    """A Problem from its words. retry_after: seconds until it is worth trying again."""
    headers = {} if retry_after is None else {"retry-after": str(max(1, round(retry_after)))}
    return Problem(status, LeptonflowError(message, expected=expected, received=received, hint=hint), headers, close)


def response(problem: Problem, request_id: str | None = None, path: str = "") -> Response:
    """As `--json` prints an error, and the request's id. path: of the request.

    In the Open Inference Protocol `error` is a string, as its clients need it; what it was is in `details` there.
    """
    words: dict[str, Any] = problem.error.document()
    document = {**words, "line": problem.error.line(), "request_id": request_id}
    if f"{path}/".startswith(PROTOCOL):
        document |= {"error": document["line"], "details": document["error"]}
    headers = dict(problem.headers)
    if request_id is not None:
        headers["x-request-id"] = request_id
    return Response(json.dumps(document), problem.status, headers, "application/json")

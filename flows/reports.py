"""The runs' reports over HTTP, from the server of `up`: browsers do not follow its links to a file or to s3.

They require the server's own login, and may run nothing in the browser: they are on the same origin as Prefect's API.
What does not belong here: what is in a report.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from typing import TYPE_CHECKING

from schemas.errors import LeptonflowError, NotFound

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

STORE = "LEPTONFLOW_REPORTS"  # the URI of the store, in the environment of the server's process
_PATH = re.compile(r"/leptonflow/reports/([0-9a-f]{12})")
HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",
}


def path(run_id: str) -> str:
    """The path of a run's report on a server that serves reports."""
    return f"/leptonflow/reports/{run_id}"


def served(app: ASGIApp, store: str) -> ASGIApp:
    """The application, with the reports of that store beside it."""
    from starlette.concurrency import run_in_threadpool

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        asked = _PATH.fullmatch(scope.get("path", "")) if scope["type"] == "http" else None
        if asked is None:
            await app(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        response = await run_in_threadpool(_response, scope["method"], sent, store, asked[1])
        await response(scope, receive, send)

    return choose


def _response(method: str, sent: bytes, store: str, run_id: str) -> Response:
    from starlette.responses import HTMLResponse, PlainTextResponse

    login = os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")
    if login and not hmac.compare_digest(sent, b"Basic " + base64.b64encode(login.encode())):
        return PlainTextResponse("the login of `leptonflow up --show-login` is required", 401, {
            "WWW-Authenticate": 'Basic realm="leptonflow", charset="UTF-8"'
        })  # fmt: skip
    if method not in ("GET", "HEAD"):
        return PlainTextResponse("reports are read-only", 405, {"Allow": "GET, HEAD"})
    from leptonflow.runs import pipeline_status
    from leptonflow.storage.address import open_store

    try:
        return HTMLResponse(pipeline_status.report_page(open_store(store), run_id), headers=HEADERS)
    except NotFound:
        return PlainTextResponse("no finished run has that id", 404)
    except LeptonflowError:  # its line names the store, which whoever reads this page may not know
        return PlainTextResponse("the store cannot be reached, or the report is damaged", 503)

"""The reports that the server of `up` serves: to its own login, read only, and without rights in the browser."""

from __future__ import annotations

import asyncio
import base64
import uuid
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from flows import reports
from leptonflow.storage.address import open_store

RUN = "0123456789ab"
LOGIN = "leptonflow:a pässword"


class Client:
    """Requests of an application in this process."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(ask())


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", LOGIN)
    uri = f"memory://{uuid.uuid4().hex}"
    open_store(uri).create(f"runs/p/{RUN}/report.html", b"<!doctype html>hello")
    other = Starlette(routes=[Route("/{rest:path}", lambda request: PlainTextResponse("Prefect"))])
    return Client(reports.served(other, uri))


def basic(login: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


def test_a_report_asks_for_the_login(client: Client) -> None:
    for headers in ({}, basic("leptonflow:guess"), basic(""), {"Authorization": "Bearer leptonflow"}):
        refused = client.get(reports.path(RUN), headers=headers)
        assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic ")
        assert "hello" not in refused.text
    found = client.get(reports.path(RUN), headers=basic(LOGIN))
    assert (found.status_code, found.text) == (200, "<!doctype html>hello")
    assert found.headers["content-type"] == "text/html; charset=utf-8"


def test_a_report_may_do_nothing_in_the_browser(client: Client) -> None:
    """It lies on the origin of Prefect's API, where a script could start a run."""
    policy = client.get(reports.path(RUN), headers=basic(LOGIN)).headers["content-security-policy"]
    assert "sandbox;" in policy and "default-src 'none'" in policy and "script" not in policy


def test_what_is_no_report(client: Client) -> None:
    assert client.get(reports.path("ba9876543210"), headers=basic(LOGIN)).status_code == 404
    assert client.get(reports.path(RUN), basic(LOGIN), method="POST").status_code == 405
    for other in ("/", "/api/health", "/leptonflow/reports/", f"/leptonflow/reports/{RUN}/x", "/leptonflow/reports/.."):
        assert client.get(other).text == "Prefect"


def test_a_store_that_does_not_answer_is_not_named(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").write_text("a file")
    refused = Client(reports.served(Starlette(), tmp_path.as_uri())).get(reports.path(RUN), headers=basic(LOGIN))
    assert refused.status_code in (404, 503) and str(tmp_path) not in refused.text

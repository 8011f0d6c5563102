"""The Prefect API of `up` and of a terminal's retrain: what another user, and a web page, get of it. Nothing.

The attacker reaches the port and cannot read this user's files: every request here is sent without them, except
where a test says that it logs in.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import credentials, server
from flows.arrivals.prefect_api import Api
from flows.stack import local, place
from schemas.errors import LeptonflowError, UsageError
from tests.integration.test_prefect_server import USER, line, python

FOREIGN = "http://attacker.example"
COMMAND = "touch owned"
READS = ("/admin/version", "/admin/settings", "/variables/name/x", "/work_pools/default", "/block_types/slug/secret")
ASKS = (
    "/flow_runs/filter", "/logs/filter", "/variables/filter", "/block_documents/filter", "/events/filter",
    "/artifacts/filter", "/deployments/filter", "/work_pools/filter", "/automations/filter",
)  # fmt: skip


class Served:
    """An API of ours, as somebody sees it who knows the port alone."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, document: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and headers' mapping, or the parsed answer where it is one."""
        sent = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                return response.status, dict(response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers)


@pytest.fixture(scope="module", params=["full", "embedded"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """(the API, its login): of `up`, and of a command in a terminal."""
    folder = tmp_path_factory.mktemp(request.param) / "prefect"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(folder.parent))
        if request.param == "embedded":
            handle = server.start(folder)
        else:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                launched = server.launch(folder, listener, folder.parent / "prefect.log", credentials.new())
            assert launched is not None
            handle, process = launched
            process.returncode = 0
        try:
            handle.wait()
            assert handle.login is not None
            yield Served(handle.url), handle.login
        finally:
            handle.close()


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def test_without_the_login_there_is_nothing_but_health(served: tuple[Served, str]) -> None:
    api, login = served
    wrong = (None, basic("leptonflow:guess"), basic(login[:-1]), basic(""), f"Bearer {login}", login)
    for sent in wrong:
        headers = {} if sent is None else {"Authorization": sent}
        for path in READS:
            assert api.call("GET", path, **headers)[0] == 401, path
        for path in ASKS:
            assert api.call("POST", path, {}, **headers)[0] == 401, path
        run = {"flow_id": "0" * 32, "job_variables": {"command": COMMAND}, "state": {"type": "SCHEDULED"}}
        for path in ("/flow_runs/", "/deployments/", "/work_pools/", "/events", "/logs/", "/block_documents/"):
            assert api.call("POST", path, run, **headers)[0] == 401, path
        assert api.call("POST", "/admin/database/clear", {"confirm": True}, **headers)[0] == 401
    for path in ("/health", "/ready"):
        assert api.call("GET", path)[0] == 200
        assert api.call("POST", path, {})[0] == 401
    assert api.call("POST", "/flow_runs/filter", {}, Authorization=basic(login))[0] == 200


def test_a_web_page_of_another_origin_gets_no_leave(served: tuple[Served, str]) -> None:
    api, login = served
    own = api.url.removesuffix("/api")
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    for origin in (FOREIGN, "null", own + ".attacker.example", "http://127.0.0.1", "http://127.0.0.1:1"):
        status, headers = api.call("OPTIONS", "/flow_runs/filter", Origin=origin, **asked)
        assert status == 400 and "access-control-allow-origin" not in headers, (origin, headers)
        status, headers = api.call("POST", "/flow_runs/filter", {}, Origin=origin, Authorization=basic(login))
        assert status == 400 and "access-control-allow-origin" not in headers, origin
        simple = api.call("POST", "/flow_runs/filter", {}, Origin=origin, Content_Type="text/plain")
        assert simple[0] == 400
    for origin in (own, own.replace("127.0.0.1", "localhost")):
        status, headers = api.call("OPTIONS", "/flow_runs/filter", Origin=origin, **asked)
        assert (status, headers["access-control-allow-origin"]) == (200, origin)
        status, _ = api.call("POST", "/flow_runs/filter", {}, Origin=origin, Authorization=basic(login))
        assert status == 200


def test_a_name_that_leads_here_is_refused(served: tuple[Served, str]) -> None:
    """DNS rebinding: to the browser such a page is of the API's own origin."""
    api, login = served
    port = api.url.split(":")[2].split("/")[0]
    for host in ("attacker.example", f"attacker.example:{port}", "127.0.0.1.attacker.example", "localhost.", "", "a b"):
        for path in ("/admin/version", "/flow_runs/filter", "/../ui-settings"):
            assert api.call("GET", path, Host=host, Authorization=basic(login))[0] == 400, (host, path)
    for host in (f"127.0.0.1:{port}", "localhost", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert api.call("GET", "/admin/version", Host=host, Authorization=basic(login))[0] == 200, host
    for path in ("/health", "/ready"):  # a probe says whatever name it has
        assert api.call("GET", path, Host="probe.example")[0] == 200


def test_a_websocket_asks_for_the_login_too(served: tuple[Served, str]) -> None:
    import websockets
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    api, login = served
    address = api.url.replace("http://", "ws://")

    async def answer(path: str, token: str | None, *, plain: bool = False, **headers: str) -> str:
        """What a client hears: a message's type, or how it was shut out."""
        try:
            async with connect(
                address + path,
                subprotocols=None if plain else [Subprotocol("prefect")],
                additional_headers=headers,
                proxy=None,
                open_timeout=60,
            ) as opened:
                await opened.send(json.dumps({"type": "auth", "token": token}))
                return str(json.loads(await opened.recv())["type"])
        except websockets.exceptions.ConnectionClosed as closed:
            return f"closed {closed.rcvd.code if closed.rcvd else None}"
        except websockets.exceptions.InvalidStatus as refused:
            return f"status {refused.response.status_code}"

    for path in ("/events/in", "/events/out", "/logs/out"):
        for token in (None, "leptonflow:guess", login[:-1]):
            assert asyncio.run(answer(path, token)) == "closed 1008", path
        assert asyncio.run(answer(path, None, plain=True)) == "status 403", path
        assert asyncio.run(answer(path, login, Host="attacker.example")) in ("status 400", "status 403"), path
        assert asyncio.run(answer(path, login, Origin=FOREIGN)) in ("status 400", "status 403"), path
    assert asyncio.run(answer("/events/in", login)) == "auth_success"


@pytest.mark.slow
def test_nobody_else_reads_the_login_or_the_database(tmp_path: Path) -> None:
    """The login is in no command line; what an earlier release left readable is so no more."""
    folder = tmp_path / ".leptonflow/prefect"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "prefect.db").touch(mode=0o644)
    (folder / "server.json").touch(mode=0o644)
    user = python(USER, tmp_path)
    url = line(user)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in (folder / "server.json", *folder.glob("prefect.db*")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    login = server.login(url, folder)
    assert login is not None and login.startswith("leptonflow:") and len(login) > 40
    assert server.login("http://127.0.0.1:1/api", folder) is None
    shown = subprocess.run(["ps", "-Aww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert login.partition(":")[2] not in shown
    user.communicate("")
    assert login.partition(":")[2] not in (folder / "server.log").read_text()


def test_links_lead_to_the_pages_that_come_back_after_the_login(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_UI_URL, temporary_settings
    from prefect.utilities.urls import url_for

    told = server.for_client(server.ApiHandle("http://127.0.0.1:4200/api", tmp_path, login="ada:lovelace"))
    with temporary_settings({PREFECT_UI_URL: told["PREFECT_UI_URL"]}):
        link = url_for("flow-run", obj_id="3f1b7a4e-6f0a-4d8e-9a77-0d9d2f6f1c11")
    assert link == "http://127.0.0.1:4200/v2/runs/flow-run/3f1b7a4e-6f0a-4d8e-9a77-0d9d2f6f1c11"


@pytest.mark.slow
def test_a_persons_own_login_is_the_servers(tmp_path: Path) -> None:
    user = python(USER, tmp_path, PREFECT_SERVER_API_AUTH_STRING="ada:lovelace")
    api = Served(line(user))
    assert api.call("GET", "/admin/version")[0] == 401
    assert api.call("GET", "/admin/version", Authorization=basic("ada:lovelace"))[0] == 200
    joined = python(USER, tmp_path)  # knows it by the folder
    assert line(joined) == api.url
    joined.communicate("")
    user.communicate("")


@pytest.mark.slow  # two full servers, one after the other
def test_a_client_goes_on_after_the_login_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that was started by hand, and an `up` that is started again with another login on the same port."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    client = None
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        for login in ("ada:lovelace", "ada:byron"):
            launched = server.launch(server.FOLDER.absolute(), listener, tmp_path / "prefect.log", login)
            assert launched is not None
            handle, process = launched
            handle.wait()
            client = client or Api(handle.url)
            assert client.deployment("nothing") is None
            handle.close()
            process.wait(30)


@pytest.mark.slow
def test_a_configured_server_that_is_this_folders_needs_no_more(tmp_path: Path) -> None:
    first = python(USER, tmp_path)
    url = line(first)
    second = python(USER, tmp_path, PREFECT_API_URL=url)
    assert line(second) == url
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for more in ({}, {"PREFECT_API_AUTH_STRING": "ada:wrong"}):
        third = python(USER, elsewhere, PREFECT_API_URL=url, **more)
        assert "CredentialsRefused" in third.communicate("")[1].splitlines()[-1]
    second.communicate("")
    first.communicate("")


def test_a_login_is_shown_once_and_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    with pytest.raises(LeptonflowError, match="leptonflow up"):
        local.shown_login()
    folder = place.open_folder(place.FOLDER)
    login, told = local.choose_login(folder)
    assert told.split()[1] == login == local.shown_login()
    assert stat.S_IMODE((folder / local.LOGIN).stat().st_mode) == 0o600
    again, told = local.choose_login(folder)
    assert again == login and login not in told and "--show-login" in told
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "ada:lovelace")
    own, told = local.choose_login(folder)
    assert own == "ada:lovelace" and "lovelace" not in told
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "ada:l\xf6velace")  # Prefect's server would answer 500 to it
    with pytest.raises(UsageError, match="PREFECT_SERVER_API_AUTH_STRING cannot be the login") as refused:
        local.choose_login(folder)
    assert "velace" not in refused.value.line()

"""Requests of our own to a Prefect API: proxies, redirects, certificates, addresses that are none."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows import addresses
from flows.arrivals.prefect_api import Api
from flows.stack import certificate
from schemas.errors import ServerError, UsageError


class Heard(ThreadingHTTPServer):
    """Answers each request with 200, those for /away with a redirect, and keeps what was asked for."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Heard)
        self.server.requests.append((self.path, self.headers.get("Authorization")))
        away = self.path.startswith("/away")
        self.send_response(307 if away else 200)
        if away:
            self.send_header("Location", self.path.removeprefix("/away"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def heard() -> Iterator[Heard]:
    with Heard() as server:
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_proxy_is_asked_for_other_machines_alone(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    with Heard() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        addresses.check(f"http://ada:s3cret@127.0.0.1:{heard.server_port}/api")
        assert not proxy.requests
        assert [path for path, _ in heard.requests] == ["/api/health", "/api/admin/version"]
        assert [login is not None for _, login in heard.requests] == [False, True]
        addresses.check("http://prefect.example/api")
        assert proxy.requests[0] == ("http://prefect.example/api/health", None)
        proxy.shutdown()
    for wrong in ("socks5://127.0.0.1:1", "nothing://ada:s3cret@127.0.0.1:1"):
        monkeypatch.setenv("HTTP_PROXY", wrong)
        with pytest.raises(ServerError, match="does not answer") as caught:
            addresses.check("http://prefect.example/api")
        assert "s3cret" not in caught.value.line()


def test_a_redirect_is_not_followed(heard: Heard) -> None:
    url = f"{heard.url}/away{heard.url}/api"
    for ask in (lambda: addresses.check(url), lambda: Api(url).deployment("a")):
        with pytest.raises(ServerError, match="HTTP status 307"):
            ask()
    assert all(path.startswith("/away") for path, _ in heard.requests)


@pytest.mark.parametrize("url", ["127.0.0.1:4200/api", "ftp://127.0.0.1/api", "http://", "http://[x", "http://a:b:c/"])
@pytest.mark.parametrize("ask", [addresses.check, lambda url: Api(url).deployment("a")], ids=["check", "Api"])
def test_an_address_that_is_none(url: str, ask: Callable[[str], object]) -> None:
    with pytest.raises(ServerError, match="does not answer"):
        ask(url)


def test_certificates_are_those_of_prefects_settings(
    heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "NAME", "localhost")
    made, key = tmp_path / "made.pem", tmp_path / "key.pem"
    certificate.write(made, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    heard.socket = context.wrap_socket(heard.socket, server_side=True)
    url = f"https://localhost:{heard.server_port}"
    with pytest.raises(ServerError, match="certificate verify failed"):
        addresses.check(url)
    monkeypatch.setenv("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "true")
    addresses.check(url)
    monkeypatch.delenv("PREFECT_API_TLS_INSECURE_SKIP_VERIFY")
    monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", str(made))
    addresses.check(url)
    monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="PREFECT_API_SSL_CERT_FILE cannot be read"):
        addresses.check(url)


def test_what_every_command_imports_leaves_httpx_out() -> None:
    code = "import sys, flows.server, flows.arrivals.watcher; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0

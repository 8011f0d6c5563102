"""The gate before every route: who asks, by which address, and nothing that goes wrong leaves as a traceback.

The name of the key is `request.state.who`, None without one.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api_keys import Keys, owner
from serving.problems import Problem, response, told

OPEN = frozenset(("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"))
LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]", "::1"))
READS = ("GET", "HEAD")
FOREIGN = (b"cross-site", b"same-site")  # of Sec-Fetch-Site, which no page can forge
PAGES = ("/", "/p/", "/board.css")
DECISION = re.compile(r"/p/[^/]+/runs/[^/]+/decision")
BROWSER = 'Basic realm="leptonflow", charset="UTF-8"'
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


@dataclass(frozen=True)
class Rules:
    """keys: who may ask; none: everybody may. hosts: the names in a Host header that are served; None: every one.

    readable: prefixes of pages that this machine may read without a key, under a name that is its own, so that neither
    a web page nor a proxy opens them to others; "/" is the first page by_itself.
    """

    keys: Keys
    hosts: frozenset[str] | None
    readable: tuple[str, ...] = ()


class Access:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def answered(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_missing(message["headers"])]
            await send(message)

        try:
            self._admit(scope)
            await self._app(scope, receive, answered)
        except Problem as problem:
            await response(problem, path=scope["path"])(scope, receive, answered)
        except asyncio.CancelledError:  # the server ends, and its time for the requests that have begun is over
            if started:
                raise
            stopping = told(503, "the server is stopping", hint="Try again", close=True)
            await response(stopping, path=scope["path"])(scope, receive, answered)
        except Exception:  # the last net: a client learns nothing of it, the log everything
            logging.getLogger("leptonflow.serving").exception("a request failed")
            if started:
                raise
            failed = told(500, "the server failed", hint="Its log says why", close=True)
            await response(failed, path=scope["path"])(scope, receive, answered)

    def _admit(self, scope: Scope) -> None:
        """Raises Problem: 400 without one Host or for another protocol with a body, 421 for a name that is not served,
        401 without a known key, 403 for a foreign page's post.
        """
        host = key = site = None
        hosts_given = 0
        by_itself = not self._rules.keys and self._rules.hosts is not None
        for name, value in scope["headers"]:
            if name == b"host":
                host, hosts_given = value, hosts_given + 1
            elif name == b"x-api-key":
                key = value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                key = value[7:].strip()
            elif name == b"authorization" and value[:6].lower() == b"basic ":
                key, by_itself = _password(value[6:]), True
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"upgrade" and scope["method"] not in READS:  # the parser takes no body after it
                raise told(
                    400, "a request with a body cannot ask for another protocol", expected="no header Upgrade",
                    hint="Ask for HTTP/1.1: curl without --http2, Java's HttpClient with version(HTTP_1_1)", close=True,
                )  # fmt: skip
        if hosts_given > 1 or (host is None and scope["http_version"] == "1.1"):  # RFC 9112, section 3.2
            raise told(400, "the request is for no host, or for several", expected="one Host", close=True)
        hosts = self._rules.hosts
        if hosts is not None and _name(host) not in hosts:
            raise told(
                421, "this server is not called so", expected="localhost, or the address that it listens on",
                received="another Host", close=True,
            )  # fmt: skip
        # What a browser sends by itself, an address of this machine or a login, is no proof of who asks.
        if by_itself and site in FOREIGN and scope["method"] not in READS:
            raise told(
                403, "the request came from a page of another server", expected="a program, or a page of this server",
                close=True,
            )  # fmt: skip
        who = owner(self._rules.keys, key) if key and self._rules.keys else None
        scope.setdefault("state", {})["who"] = who
        if not self._rules.keys or who is not None or scope["path"] in OPEN:
            return
        here = scope["method"] in READS and _name(host) in LOOPBACK
        if here and _among(scope["path"], self._rules.readable):
            return
        if scope["method"] == "POST" and DECISION.fullmatch(scope["path"]):  # its key is in the form
            return
        problem = told(
            401, "a key is required" if not key else "no such key",
            expected="the header Authorization: Bearer KEY, or X-API-Key", close=True,
        )  # fmt: skip
        # A browser asks a person for the key, as the password of any name.
        problem.headers["www-authenticate"] = BROWSER if _among(scope["path"], PAGES) else "Bearer"
        raise problem


def _among(path: str, prefixes: Iterable[str]) -> bool:
    return any(path == each or (each != "/" and path.startswith(each)) for each in prefixes)


def _password(encoded: bytes) -> bytes | None:
    """That of a browser's login, None of what is none."""
    with suppress(ValueError):
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    return None


def _name(host: bytes | None) -> str:
    """The name in a Host header, without its port."""
    text = (host or b"").decode("latin-1").lower()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


def _missing(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    there = {name for name, _ in headers}
    return [each for each in HEADERS if each[0] not in there]

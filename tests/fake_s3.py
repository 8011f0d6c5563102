"""A small S3 server in this process that can be told to be wrong: what no real server at hand does on demand.

It keeps objects in memory, path style, without looking at credentials. What does not belong here: anything that a real
server shows as well (`servers`).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Faults:
    """How often each fault still happens, and what was asked: (method, key)."""

    ignores_conditions: bool = False
    conflicts: int = 0  # conditional puts answered with 409 ConditionalRequestConflict
    cut: int = 0  # bodies of GET that end before their Content-Length
    short: int = 0  # bodies of GET that lack their end, in agreement with their Content-Length
    flipped: int = 0  # bodies of GET with one bit wrong
    tagged: bool = True  # objects have an ETag
    only: str = ""  # the faults are of keys that contain this
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    endpoint: str = ""

    def take(self, name: str, key: str) -> bool:
        left: int = getattr(self, name)
        if left and self.only in key:
            setattr(self, name, left - 1)
            return True
        return False


@contextmanager
def serve() -> Iterator[Faults]:
    """The server's faults, its address in `endpoint`."""
    faults = Faults()

    class Handler(_Handler):
        server_faults = faults

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        faults.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield faults
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_faults: Faults
    lock = threading.Lock()

    def do_PUT(self) -> None:
        key, faults = self._key(), self.server_faults
        body = self.rfile.read(int(self.headers["Content-Length"]))
        conditional = self.headers.get("If-None-Match") == "*"
        with self.lock:
            if conditional and faults.take("conflicts", key):
                self._error(409, "ConditionalRequestConflict")
            elif conditional and not faults.ignores_conditions and key in faults.objects:
                self._error(412, "PreconditionFailed")
            else:
                faults.objects[key] = body
                self._answer(200, b"", ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        key, faults = self._key(), self.server_faults
        if not key:
            self._list(parse_qs(urlsplit(self.path).query))
            return
        data = faults.objects.get(key)
        if data is None:
            self._error(404, "NoSuchKey")
            return
        tag = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'} if faults.tagged else {}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        partial = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if "Range" in self.headers else {}
        if self.command == "GET" and faults.take("short", key):
            data = data[: len(data) // 2]
        if self.command == "GET" and faults.take("flipped", key):
            data = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        cut = self.command == "GET" and faults.take("cut", key)
        self._answer(206 if partial else 200, data[start:], cut=cut, **tag, **partial)

    def _list(self, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        keys = sorted(key for key in self.server_faults.objects if key.startswith(prefix))
        if "delimiter" in query:
            rest = [key.removeprefix(prefix) for key in keys]
            folders = sorted({name.split("/")[0] + "/" for name in rest if "/" in name})
            keys = [prefix + name for name in rest if "/" not in name]
        else:
            folders = []
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server_faults.objects[key])}</Size><ETag>x</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        entries += "".join(f"<CommonPrefixes><Prefix>{escape(prefix + f)}</Prefix></CommonPrefixes>" for f in folders)
        head = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        page = f"{head}<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self._answer(200, page.encode(), cut=self.server_faults.take("cut", ""))

    def _key(self) -> str:
        key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]
        self.server_faults.asked.append((self.command, key))
        return key

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

    def _answer(self, status: int, body: bytes, cut: bool = False, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        return

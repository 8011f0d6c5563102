"""Receives MinIO's bucket notifications, over HTTP on this machine, and passes on which batch to look at.

A notification is a hint and proves nothing: the watcher looks at the store. Whoever does not know the token is heard
no further, keeps no place that another caller needs, and is let go after a while, however it sends. What does not
belong here: the bucket's side (leptonflow.storage.bucket) and the look.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, ValidationError

from leptonflow.core.store_keys import LANDING, READY
from schemas.config import NAME
from schemas.errors import LeptonflowError, UsageError

PATH = "/minio"
HEALTH = (PATH, "/health", "/")
LARGEST = 1 << 20  # bytes of a body; MinIO's are about a kilobyte
AT_ONCE = 32  # connections that are heard
ENDING = 32  # connections that lost their place to a newcomer and have yet to end
UNKNOWN_BYTES = 1 << 16  # from a caller that has not shown the token
REQUEST_SECONDS = 10.0  # from the wait for a request to its last byte
LINGER_SECONDS = 1.0


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)  # MinIO says more than is read here


class _Bucket(_Part):
    name: str


class _Object(_Part):
    key: str  # quoted as in a URL


class _S3(_Part):
    bucket: _Bucket
    object: _Object


class _Record(_Part):
    eventName: str
    s3: _S3


class _Notification(_Part):
    Records: tuple[_Record, ...]


class Receiver:
    """Listens from the start until `close`. `hint(pipeline, batch)` is called for each batch that a call names.

    bucket, prefix: what is watched; prefix is empty or ends in a slash. Raises UsageError without a token,
    LeptonflowError where the port is taken.
    """

    def __init__(
        self,
        port: int,
        token: str | None,
        bucket: str,
        prefix: str,
        hint: Callable[[str, str], None],
        say: Callable[[str], None],
    ) -> None:
        if not token:
            raise UsageError(
                "a webhook needs a token, or anybody could call it",
                expected="LEPTONFLOW_WEBHOOK_TOKEN, the same as in MinIO's MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_leptonflow",
                received="none",
            )
        # MinIO sends a token of two words as it is, and puts "Bearer" before any other.
        self._expected = (token if len(token.split()) == 2 else f"Bearer {token}").encode()
        self._bucket, self._landing = bucket, f"{prefix}{LANDING}/"
        self._hint, self._say = hint, say
        self._told: set[str] = set()
        self._refused: deque[str] = deque(maxlen=64)
        host = os.environ.get("LEPTONFLOW_WEBHOOK_HOST") or "127.0.0.1"
        try:
            self._server = _Server((host, port), self)
        except OSError as error:
            raise LeptonflowError(
                f"MinIO's notifications cannot be received at {host}:{port}",
                expected="a free port of this machine",
                received=error.strerror or str(error),
                hint="Choose another --webhook-port, and give MinIO the same",
            ) from None
        self.address = f"{host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="webhook", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def knows(self, authorization: str) -> bool:
        """Whether the caller has the token; compared in constant time."""
        if hmac.compare_digest(authorization.encode("utf-8", "replace"), self._expected):
            return True
        self.tell("token", "a call without the right token")
        return False

    def receive(self, body: bytes) -> int:
        """The HTTP status for a call whose token is right."""
        try:
            records = _Notification.model_validate_json(body).Records
        except ValidationError:
            self.tell("garbage", "a call that is not a bucket notification")
            return 400
        places = [self._place(record) for record in records]
        if not places or None in places:
            return self._strange(body)
        for place in places:
            if place is not None:
                self._hint(*place)
        return 204

    def _place(self, record: _Record) -> tuple[str, str] | None:
        """(pipeline, batch) of a `_READY` that was created in our landing."""
        key = unquote_plus(record.s3.object.key)
        if record.s3.bucket.name != self._bucket:
            self.tell("bucket", "a notification about another bucket")
        elif not key.startswith(self._landing):
            self.tell("prefix", f"a notification about a key outside {self._landing}")
        elif not record.eventName.removeprefix("s3:").startswith("ObjectCreated:"):
            self.tell("event", "a notification of something other than a created object")
        else:
            names = key.removeprefix(self._landing).split("/")
            if len(names) == 3 and names[2] == READY and all(NAME.fullmatch(name) for name in names[:2]):
                return names[0], names[1]
            self.tell("key", f"a notification about a key that is not a batch's {READY}")
        return None

    def _strange(self, body: bytes) -> int:
        """Refuse what is not ours, once. MinIO keeps what was refused and sends it again before anything else, so a
        notification that belongs to another store on the same server would hold up all of ours for ever."""
        digest = hashlib.sha256(body).hexdigest()
        if digest in self._refused:
            return 204
        self._refused.append(digest)
        return 422

    def tell(self, kind: str, what: str) -> None:
        """Say that something was refused: once for each kind, whoever calls how often."""
        if kind not in self._told:
            self._told.add(kind)
            self._say(f"webhook: refused {what} (reported once)")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], receiver: Receiver) -> None:
        self.receiver = receiver
        self._running = threading.BoundedSemaphore(AT_ONCE + ENDING)
        self._lock = threading.Lock()
        self._heard: dict[socket.socket, bool] = {}  # in the order of arrival; whether it has shown the token
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._running.acquire(blocking=False):
            self.shutdown_request(request)  # MinIO sends it again
        elif not self._make_place(request):
            self._running.release()
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def _make_place(self, request: socket.socket) -> bool:
        """Whether the newcomer is heard: where all places are taken, in place of the oldest without the token."""
        with self._lock:
            if len(self._heard) >= AT_ONCE:
                oldest = next((each for each, known in self._heard.items() if not known), None)
                if oldest is None:
                    return False
                del self._heard[oldest]
                with contextlib.suppress(OSError):  # it has just ended
                    oldest.shutdown(socket.SHUT_RDWR)
            self._heard[request] = False
            return True

    def trust(self, request: socket.socket) -> None:
        """The caller has shown the token, and keeps its place."""
        with self._lock:
            if request in self._heard:
                self._heard[request] = True

    def trusts(self, request: socket.socket) -> bool:
        """Whether the caller has shown the token."""
        return self._heard.get(request, False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._heard.pop(request, None)
            self._running.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that went away is no error of ours."""


class _Bounded(io.RawIOBase):
    """What a caller sends, until a deadline and, before the token, up to so many bytes. Raises OSError beyond."""

    def __init__(self, connection: socket.socket, known: Callable[[], bool]) -> None:
        self._connection, self._known = connection, known
        self._taken = 0
        self.until = 0.0  # monotonic

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request takes too long")
        self._connection.settimeout(left)
        count = self._connection.recv_into(buffer)
        self._taken += count
        if self._taken > UNKNOWN_BYTES and not self._known():
            raise ConnectionError("too much before the token")
        return count


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "leptonflow", ""
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._sent = _Bounded(self.connection, lambda: self.server.trusts(self.connection))
        self.rfile = io.BufferedReader(self._sent)

    def handle_one_request(self) -> None:
        self._sent.until = time.monotonic() + REQUEST_SECONDS
        super().handle_one_request()

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path.partition("?")[0] != PATH:
            self.server.receiver.tell("path", f"a call to another path than {PATH}")
            self._answer(404)
            return
        if not self.server.receiver.knows(self.headers.get("Authorization", "")):
            self._answer(401)
            return
        self.server.trust(self.connection)
        if not (length.isascii() and length.isdigit()):
            self.server.receiver.tell("length", "a call without a Content-Length")
            self._answer(411)
        elif len(length) > 10 or int(length) > LARGEST:
            self.server.receiver.tell("large", f"a call of more than {LARGEST >> 20} MiB")
            self._answer(413)
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                self._answer(self.server.receiver.receive(body), read=True)

    def do_GET(self) -> None:
        self._answer(200 if self.path in HEALTH else 404)

    do_HEAD = do_GET

    def _answer(self, status: int, *, read: bool = False) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if status != 204:
            self.send_header("Content-Length", "0")
        unread = not read and self.command == "POST"
        if unread:  # what was not read would be taken for the next request
            self.send_header("Connection", "close")
        self.end_headers()
        if unread:
            self._linger()

    def _linger(self) -> None:
        """Take in what is still being sent, within bounds: a caller that is cut off does not hear the answer."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            until, left = time.monotonic() + LINGER_SECONDS, 8 * LARGEST
            while left > 0 and (seconds := until - time.monotonic()) > 0:
                self.connection.settimeout(seconds)
                piece = self.connection.recv(1 << 16)
                left = left - len(piece) if piece else 0

    def log_message(self, format: str, *arguments: Any) -> None:
        """Calls are not logged: a queue may send thousands."""

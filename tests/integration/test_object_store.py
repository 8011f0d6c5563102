"""What only a store on S3 meets: other clients' keys, servers that are away, refuse, or lose a reply."""

from __future__ import annotations

import http.client
import io
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit

import minio
import pytest

from leptonflow.storage import commit_log as logs
from leptonflow.storage.address import open_store
from leptonflow.storage.bucket import ensure_bucket
from leptonflow.storage.commit_log import commit, read
from leptonflow.storage.store import Store
from schemas.errors import NotFound, StoreUnreachable, UsageError
from tests import servers

PREFIX = "promotions/digits/log"
HOSTILE = [
    "a\nb.png",
    "\x01c.png",
    "tab\tx",
    "\x7fdel",
    "cr\rx",
    "\ufffe",
    "photo#1",
    "with space",
    "ünï",
    "50%",
    "%41",
    "a+b",
]


def other_client() -> minio.Minio:
    return minio.Minio(
        urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc,
        access_key=servers.ACCESS_KEY,
        secret_key=servers.SECRET_KEY,
        region="us-east-1",
        secure=False,
    )


@pytest.fixture
def store(s3_server: servers.Server) -> Store:
    return open_store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")


def put(store: Store, key: str, data: bytes) -> None:
    parts = urlsplit(store.uri)
    other_client().put_object(parts.netloc, f"{parts.path.strip('/')}/{key}", io.BytesIO(data), len(data))


@pytest.mark.parametrize("name", HOSTILE)
def test_what_another_client_put_is_listed_and_read(store: Store, name: str) -> None:
    put(store, f"landing/{name}/{name}", b"abc")
    store.create("landing/plain/1", b"1")
    key = f"landing/{name}/{name}"
    assert sorted(store.list("landing")) == sorted([(key, 3), ("landing/plain/1", 1)])
    assert store.folders("landing") == sorted([name, "plain"])
    assert store.get(key) == b"abc"
    assert store.size(key) == 3
    assert store.size(key + "x") is None
    with pytest.raises(NotFound):
        store.get(key + "x")


def test_a_folder_mark_of_a_console_is_no_object(store: Store) -> None:
    put(store, "landing/cat/", b"")
    put(store, "landing/cat/1.png", b"abc")
    put(store, "landing/empty", b"")
    expected = [("landing/cat/1.png", 3), ("landing/empty", 0)]
    assert list(store.list("landing")) == expected
    put(store, "landing/a\nb", b"")  # the exact listing says the same
    assert list(store.list("landing")) == [("landing/a\nb", 0), *expected]
    assert store.folders("landing") == ["cat"]


def test_keys_that_no_server_here_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Amazon's S3 holds `..` and empty segments; SeaweedFS and MinIO do not, so a small server lists them."""
    keys = ["p/landing/../../etc/passwd", "p/landing/a//b.png", "p/landing/x"]

    class Listing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if urlsplit(self.path).path.count("/") > 2 or "list-type" not in self.path:
                found = urlsplit(self.path).path == "/bucket/p/landing/a//b.png"
                body = b"abc" if found else b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
                self.answer(200 if found else 404, body)
                return
            encode = quote if "encoding-type=url" in self.path else str
            entries = "".join(
                f"<Contents><Key>{encode(key)}</Key><Size>3</Size><ETag>x</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
                for key in keys
            )
            kind = "<EncodingType>url</EncodingType>" if encode is quote else ""
            head = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            page = f"{head}<Name>bucket</Name>{kind}<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
            self.answer(200, page.encode())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with served(Listing) as address:
        reached(monkeypatch, address)
        store = open_store("s3://bucket/p")
        listed = [("landing/../../etc/passwd", 3), ("landing/a//b.png", 3), ("landing/x", 3)]
        assert list(store.list("landing")) == listed
        assert store.get("landing/a//b.png") == b"abc"
        with pytest.raises(UsageError, match="not a valid store key"):
            store.get("landing/../../etc/passwd")


def test_a_missing_bucket_is_named(s3_server: servers.Server) -> None:
    store = open_store("s3://nonesuch-bucket/x")
    said = "no bucket 'nonesuch-bucket'.*doctor --fix"
    for use in (
        lambda: store.get("k"),
        lambda: store.size("k"),
        lambda: list(store.list("")),
        lambda: store.folders("x"),
        lambda: store.create("k", b""),
        lambda: store.create_many([("k", b"")]),
    ):
        with pytest.raises(StoreUnreachable, match=said):
            use()


def test_ensure_bucket_makes_it_once_with_versions(s3_server: servers.Server) -> None:
    bucket = f"made-{uuid.uuid4().hex[:12]}"
    store = open_store(f"s3://{bucket}/prefix")
    done = ensure_bucket(store.uri)
    assert [sentence.split()[0] for sentence in done] == ["created", "switched"]
    assert ensure_bucket(store.uri) == []
    assert other_client().get_bucket_versioning(bucket).status == "Enabled"
    store.create("k", b"1")
    assert store.get("k") == b"1"
    assert list(store.list("")) == [("k", 1)]


def test_wrong_credentials_are_told_without_them(s3_server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, wrong in (("AWS_SECRET_ACCESS_KEY", "wrong-secret"), ("AWS_ACCESS_KEY_ID", "wrong-key")):
        with monkeypatch.context() as patch:
            patch.setenv(name, wrong)
            store = open_store(f"s3://{s3_server.bucket}/x")
            for use in (
                lambda store=store: store.get("k"),
                lambda store=store: store.size("k"),
                lambda store=store: list(store.list("")),
                lambda store=store: store.create("k", b""),
                lambda store=store: ensure_bucket(store.uri),
            ):
                with pytest.raises(StoreUnreachable, match=r"refused these credentials.*AWS_ACCESS_KEY_ID") as caught:
                    use()
                assert "wrong-" not in str(caught.value)
                assert servers.SECRET_KEY not in str(caught.value)


def test_a_server_that_is_away_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = servers.free_ports(1)
    reached(monkeypatch, f"127.0.0.1:{port}")
    store = open_store("s3://bucket/x")
    begin = time.monotonic()
    with pytest.raises(StoreUnreachable, match=f"http://127.0.0.1:{port} .*refused.*server is up") as caught:
        store.get("k")
    with pytest.raises(StoreUnreachable, match=f"http://127.0.0.1:{port} .*refused.*server is up"):
        ensure_bucket(store.uri)
    assert time.monotonic() - begin < 15
    assert servers.SECRET_KEY not in str(caught.value)
    assert servers.ACCESS_KEY not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_never_accepts_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:  # a full backlog of one: the kernel drops further handshakes
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        with socket.create_connection(deaf.getsockname()):
            reached(monkeypatch, address)
            begin = time.monotonic()
            with pytest.raises(StoreUnreachable, match=f"{address} .*no answer in time"):
                open_store("s3://bucket/x").get("k")
            assert time.monotonic() - begin < 18


@pytest.mark.parametrize(
    "endpoint", ["http://user:secret@host:9000", "ftp://host", "host:9000", "http://host/path", "http://h?x=secret"]
)
def test_an_endpoint_that_is_none_is_not_echoed(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL") as caught:
        open_store("s3://bucket/x")
    assert "secret@" not in str(caught.value)
    assert "x=secret" not in str(caught.value)


def test_the_secret_is_in_no_representation(s3_server: servers.Server) -> None:
    from leptonflow.storage.s3 import connection

    assert servers.SECRET_KEY not in repr(connection())
    assert servers.SECRET_KEY not in repr(vars(open_store("s3://bucket/x")))


@pytest.mark.parametrize("loss", ["status 500", "closed"])
def test_a_commit_whose_reply_was_lost_is_one_record(
    s3_server: servers.Server, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """The server keeps the record, the client never hears so: it tries again, and finds its own id there."""
    monkeypatch.setattr(logs, "_verified", {})
    with proxied(s3_server, loss) as (address, lost):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
        store = open_store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")
        log = read(store, PREFIX)
        new = commit(store, log, id="mine", kind="promotion", body={}, who="a test", why="because")
        assert lost == [f"{PREFIX}/00000001.json"]
        assert [entry.id for entry in new.entries] == ["mine"]
        assert read(store, PREFIX) == new


def reached(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", servers.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", servers.SECRET_KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A handler on a free loopback port; yields host:port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def proxied(server: servers.Server, loss: str) -> Iterator[tuple[str, list[str]]]:
    """A way to `server` on which the reply to the first record of a log is lost. Yields host:port and the lost keys."""
    lost: list[str] = []

    class Lossy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            upstream = http.client.HTTPConnection(server.endpoint.removeprefix("http://"), timeout=20)
            # The Host header stays as the client signed it.
            upstream.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
            reply = upstream.getresponse()
            data = reply.read()
            upstream.close()
            if self.command == "PUT" and "/log/" in self.path and not lost:
                assert reply.status == 200
                lost.append(self.path.split("/", 3)[-1])
                if loss == "closed":
                    self.close_connection = True
                    return
                reply.status, data = 500, b""
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            length = reply.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = forward

        def log_message(self, *_: object) -> None:
            return

    with served(Lossy) as address:
        yield address, lost

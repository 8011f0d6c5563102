"""The receiver of MinIO's notifications, and the bucket's side: a call is a hint, and a forged one is refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import health_checks
from flows.arrivals import webhook
from flows.arrivals.webhook import Receiver
from leptonflow.storage import bucket, s3
from leptonflow.storage.address import open_store
from schemas.errors import LeptonflowError, UsageError
from tests import servers

TOKEN = "a token's secret".replace(" ", "-")
BUCKET, PREFIX = "data", "team/a/"
KEY = f"{PREFIX}landing/digits/monday/_READY"


class Heard:
    """A receiver on a free port, and what it passed on and said."""

    def __init__(self, port: int = 0, bucket: str = BUCKET, prefix: str = PREFIX) -> None:
        self.hints: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.changed = threading.Event()
        self.receiver = Receiver(port, TOKEN, bucket, prefix, self.hint, self.said.append)

    def hint(self, pipeline: str, batch: str) -> None:
        self.hints.append((pipeline, batch))
        self.changed.set()

    def call(
        self, body: bytes | str | dict[str, Any], token: str | None = f"Bearer {TOKEN}", path: str = "/minio",
        method: str = "POST", **headers: str,
    ) -> int:  # fmt: skip
        """The status of one call."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        headers |= {"Authorization": token} if token is not None else {}
        connection = http.client.HTTPConnection(self.receiver.address, timeout=10)
        try:
            connection.request(method, path, data, headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def until(self, hint: tuple[str, str], seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while hint not in self.hints:
            assert self.changed.wait(deadline - time.monotonic()), (self.hints, self.said)
            self.changed.clear()


@pytest.fixture
def heard() -> Iterator[Heard]:
    found = Heard()
    yield found
    found.receiver.close()


def notification(key: str = KEY, bucket: str = BUCKET, event: str = "s3:ObjectCreated:Put") -> dict[str, Any]:
    """As MinIO sends it, the parts that nobody reads left out."""
    record = {
        "eventVersion": "2.0",
        "eventName": event,
        "s3": {"bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"}, "object": {"key": key, "size": 0}},
    }
    return {"EventName": event, "Key": f"{bucket}/{key}", "Records": [record]}


def test_a_notification_is_passed_on(heard: Heard) -> None:
    assert heard.call(notification()) == 204
    assert heard.call(notification(KEY.replace("/", "%2F"))) == 204  # MinIO quotes the key
    assert heard.call(notification(event="s3:ObjectCreated:CompleteMultipartUpload"), "Bearer " + TOKEN) == 204
    assert heard.hints == [("digits", "monday")] * 3
    assert heard.said == []


FORGED: dict[str, tuple[dict[str, Any], int]] = {
    "no token": ({"body": notification(), "token": None}, 401),
    "another token": ({"body": notification(), "token": "Bearer guess"}, 401),
    "a part of the token": ({"body": notification(), "token": f"Bearer {TOKEN[:-1]}"}, 401),
    "the bare token": ({"body": notification(), "token": TOKEN}, 401),
    "a token of other characters": ({"body": notification(), "token": "Bearer gu\xe9ss"}, 401),
    "another path": ({"body": notification(), "path": "/elsewhere"}, 404),
    "another method": ({"body": notification(), "method": "PUT"}, 501),
    "no JSON": ({"body": b"\xff\xfe garbage"}, 400),
    "nothing": ({"body": b""}, 400),
    "JSON of another kind": ({"body": "[1, 2]"}, 400),
    "records that are none": ({"body": {"Records": [{"s3": 3}]}}, 400),
    "a number for a name": ({"body": notification(bucket=3)}, 400),  # type: ignore[arg-type]
    "deep JSON": ({"body": '{"Records":' + "[" * 100_000}, 400),
    "too large": ({"body": b" " * (webhook.LARGEST + 1)}, 413),
    "a length that is none": ({"body": notification(), "Content-Length": "many"}, 411),
    "a length without end": ({"body": notification(), "Content-Length": "9" * 5000}, 413),
    "no records": ({"body": {"Records": []}}, 422),
    "another bucket": ({"body": notification(bucket="other")}, 422),
    "another prefix": ({"body": notification(KEY.removeprefix(PREFIX))}, 422),
    "another event": ({"body": notification(event="s3:ObjectRemoved:Delete")}, 422),
    "a file of a batch": ({"body": notification(f"{PREFIX}landing/digits/monday/0/_READY")}, 422),
    "another object": ({"body": notification(f"{PREFIX}landing/digits/monday/READY")}, 422),
    "a name that is none": ({"body": notification(f"{PREFIX}landing/digits/../_READY")}, 422),
    "a name with a line break": ({"body": notification(f"{PREFIX}landing/digits/a%0Ab/_READY")}, 422),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_call_is_refused_said_once_and_starts_nothing(heard: Heard, kind: str) -> None:
    call, status = FORGED[kind]
    assert heard.call(**call) == status
    assert heard.hints == []
    assert len(heard.said) == (0 if kind in ("another method", "no records") else 1)
    for _ in range(20):
        heard.call(**call)
    assert heard.hints == []
    assert len(heard.said) <= 1
    assert TOKEN not in " ".join(heard.said)
    assert heard.call(notification()) == 204  # and it still listens
    assert heard.hints == [("digits", "monday")]


def test_another_stores_notification_does_not_hold_up_the_queue(heard: Heard) -> None:
    """MinIO sends what was refused again and again, and nothing after it: the second time it is taken."""
    assert heard.call(notification(bucket="other")) == 422
    assert heard.call(notification("elsewhere/landing/digits/b/_READY")) == 422
    assert heard.call(notification(bucket="other")) == 204
    assert heard.call(notification("elsewhere/landing/digits/b/_READY")) == 204
    assert heard.hints == []


def test_health_needs_no_token(heard: Heard) -> None:
    for method in ("GET", "HEAD"):
        assert heard.call(b"", None, "/minio", method) == heard.call(b"", None, "/health", method) == 200
        assert heard.call(b"", None, "/else", method) == 404


def test_callers_that_say_nothing_keep_nobody_out(heard: Heard) -> None:
    """They are let go after a while, and more than so many at once are not heard at all."""
    host, _, port = heard.receiver.address.partition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(webhook.AT_ONCE)]
    try:
        silent[0].close()
        deadline = time.monotonic() + 10
        while True:
            try:
                assert heard.call(notification()) == 204
                break
            except (ConnectionError, http.client.HTTPException):
                assert time.monotonic() < deadline
    finally:
        for each in silent:
            each.close()


class Dripping:
    """Callers that each send a byte at a time for as long as they are let: the beginning once, then `drop` for ever."""

    def __init__(self, address: str, count: int, beginning: bytes, drop: bytes = b"x") -> None:
        host, _, port = address.partition(":")
        self.cut = 0
        self._open = [socket.create_connection((host, int(port))) for _ in range(count)]
        self._ended = threading.Event()
        for each in self._open:
            with contextlib.suppress(OSError):  # it has lost its place already
                each.sendall(beginning)
        self._thread = threading.Thread(target=self._drip, args=(drop,))

    def __enter__(self) -> Dripping:
        self._thread.start()
        return self

    def _drip(self, drop: bytes) -> None:
        left = self._open
        while left and not self._ended.wait(0.02):
            kept = []
            for each in left:
                try:
                    each.sendall(drop)
                    kept.append(each)
                except OSError:
                    self.cut += 1
            left = kept

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        for each in self._open:
            each.close()


DRIPS = {
    "headers": (b"POST /minio HTTP/1.1\r\nX-Slow: ", b"x"),
    "many headers": (b"POST /minio HTTP/1.1\r\n", b"X-More: x\r\n"),
    "a body without the token": (b"POST /minio HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    "another path": (b"POST /else HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    "lines before a request": (b"\r\n", b"\r"),
}


@pytest.mark.parametrize("kind", DRIPS)
def test_dripping_callers_keep_nobody_out(heard: Heard, kind: str) -> None:
    """They take every place three times over, and none of them from a caller who comes and knows the token."""
    with Dripping(heard.receiver.address, 3 * webhook.AT_ONCE, *DRIPS[kind]):
        for _ in range(20):
            began = time.monotonic()
            assert heard.call(notification()) == 204
            assert time.monotonic() - began < 3
    assert heard.hints == [("digits", "monday")] * 20


@pytest.mark.parametrize("kind", [*DRIPS, "a body with the token"])
def test_a_dripping_caller_is_let_go(heard: Heard, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it sends, its request has an end; each byte is no new beginning."""
    monkeypatch.setattr(webhook, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(webhook, "LINGER_SECONDS", 0.5)
    known = f"POST /minio HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000000\r\n\r\n".encode()
    beginning, drop = DRIPS.get(kind, (known, b"x"))
    with Dripping(heard.receiver.address, 3, beginning, drop) as dripping:
        deadline = time.monotonic() + 10
        while dripping.cut < 3:
            assert time.monotonic() < deadline, dripping.cut
            time.sleep(0.02)


def test_headers_without_end_are_not_taken_in(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "REQUEST_SECONDS", 60)
    host, _, port = heard.receiver.address.partition(":")
    with socket.create_connection((host, int(port))) as caller, pytest.raises(OSError):
        caller.sendall(b"POST /minio HTTP/1.1\r\n")
        for _ in range(10_000):
            caller.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
    assert heard.call(notification()) == 204


def test_a_receiver_needs_a_token_and_a_free_port(heard: Heard) -> None:
    for token in (None, ""):
        with pytest.raises(UsageError, match="LEPTONFLOW_WEBHOOK_TOKEN"):
            Receiver(0, token, BUCKET, PREFIX, heard.hint, heard.said.append)
    port = int(heard.receiver.address.rpartition(":")[2])
    with pytest.raises(LeptonflowError, match=f"127.0.0.1:{port}"):
        Receiver(port, TOKEN, BUCKET, PREFIX, heard.hint, heard.said.append)


@pytest.fixture(scope="module")
def notifying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[servers.Server, int]]:
    """A MinIO with two webhook targets, ours on a port where nobody listens yet."""
    if servers.minio_binary() is None:
        pytest.skip("no `minio` binary on PATH or under $GOPATH/bin")
    folder = tmp_path_factory.mktemp("queues")
    port, elsewhere = servers.free_ports(2)
    ours = servers.Webhook(f"http://127.0.0.1:{port}/minio", TOKEN, folder / "ours")
    other = servers.Webhook(f"http://127.0.0.1:{elsewhere}/", "x", folder / "other", name="other")
    with servers.minio(ours, other) as server:
        yield server, port


def configure(monkeypatch: pytest.MonkeyPatch, server: servers.Server) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def test_what_was_closed_while_nobody_listened_is_told_by_the_queue(
    notifying: tuple[servers.Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, port = notifying
    configure(monkeypatch, server)
    prefix = f"{uuid.uuid4().hex}/with space"
    uri = f"s3://{server.bucket}/{prefix}"
    assert bucket.ensure_notification(uri)
    store = open_store(uri)
    store.create("landing/digits/early/cat/a b+c.png", b"x")
    store.create("landing/digits/early/_READY", b"")
    store.create("landing/digits/early/sub/_READY", b"")  # a file of that name: MinIO's filter lets it through
    heard = Heard(port, server.bucket, f"{prefix}/")
    try:
        heard.until(("digits", "early"))
        store.create("landing/digits/late/_READY", b"")
        heard.until(("digits", "late"))
    finally:
        heard.receiver.close()
    assert set(heard.hints) == {("digits", "early"), ("digits", "late")}
    assert len(heard.said) == 1 and "not a batch's _READY" in heard.said[0]


def test_the_buckets_other_notifications_stay(
    notifying: tuple[servers.Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minio.notificationconfig import NotificationConfig, PrefixFilterRule, QueueConfig

    server, _ = notifying
    configure(monkeypatch, server)
    client = s3.connection().minio("the test sets somebody else's notification up")
    name = f"notify-{uuid.uuid4().hex[:12]}"
    client.make_bucket(name)
    other = "arn:minio:sqs::other:webhook"
    theirs = QueueConfig(queue=other, events=["s3:ObjectRemoved:*"], prefix_filter_rule=PrefixFilterRule("logs/"))
    stale = QueueConfig(
        queue=bucket.ARN, events=["s3:ObjectRemoved:*"], prefix_filter_rule=PrefixFilterRule("landing/")
    )
    client.set_bucket_notification(name, NotificationConfig(queue_config_list=[theirs, stale]))
    assert not bucket.notifies(f"s3://{name}")
    for uri in (f"s3://{name}", f"s3://{name}/deep/er", f"s3://{name}"):
        assert bucket.ensure_notification(uri)
        assert bucket.notifies(uri)
    found = client.get_bucket_notification(name).queue_config_list
    filters = {(each.queue, each.prefix_filter_rule.value, tuple(each.events)) for each in found}
    assert filters == {
        (other, "logs/", ("s3:ObjectRemoved:*",)),
        (bucket.ARN, "landing/", (bucket.CREATED,)),
        (bucket.ARN, "deep/er/landing/", (bucket.CREATED,)),
    }
    assert len(found) == 3
    assert not bucket.notifies(f"s3://{name}/deep")


def arrivals(uri: str, fix: bool) -> dict[str, Any]:
    (found,) = (check for check in health_checks.checks(uri, fix) if check["name"] == "arrivals")
    return found


def test_doctor_sets_the_notifications_up(
    notifying: tuple[servers.Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = notifying
    configure(monkeypatch, server)
    uri = f"s3://doctor-{uuid.uuid4().hex[:12]}/store"
    assert arrivals(uri, fix=False)["ok"] is False  # no bucket
    assert arrivals(uri, fix=True) == arrivals(uri, fix=False)
    told = arrivals(uri, fix=False)
    assert told["ok"] and bucket.ARN in told["detail"]
    unset = arrivals(f"s3://{server.bucket}/{uuid.uuid4().hex}", fix=False)
    assert unset["ok"] and "poll every 5 s" in unset["detail"] and "doctor --fix" in unset["detail"]


def test_doctor_says_poll_where_there_are_no_notifications(s3_server: servers.Server, tmp_path: Path) -> None:
    uri = f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"
    for fix in (True, False):
        told = arrivals(uri, fix)
        assert told["ok"] and "poll every 5 s" in told["detail"]
    told = arrivals((tmp_path / "store").as_uri(), fix=False)
    assert told["ok"] and "file system's events" in told["detail"]
    with pytest.raises(UsageError):
        bucket.notifies(tmp_path.as_uri())

"""A real server on loopback, and clients that mean it harm or are merely broken: the next one is always answered."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from leptonflow.storage.memory_store import MemoryStore
from serving import connections
from serving.app import Options, create_app
from tests import served_champions
from tests.served_champions import NAME, png, until

PATH = f"/v1/{NAME}/predict"
OTHERS = (f"/v1/{NAME}/labels", f"/p/{NAME}/runs/{'a' * 12}/decision")  # with a body, and limits of their own
SECONDS = 0.5  # for a body, and for the head of a request


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    store = MemoryStore("memory://hostile")
    served_champions.promote(store, "one", served_champions.model(1))
    app = create_app(store, [served_champions.config(seconds=SECONDS, body_mb=1)], Options(poll=0.05))
    with pytest.MonkeyPatch.context() as patch, served_champions.listening(app) as port:
        patch.setattr(connections, "HEAD_SECONDS", SECONDS)
        until(lambda: app.state.services[NAME].live is not None)
        yield port


@pytest.fixture(autouse=True)
def answered_after(port: int) -> Iterator[None]:
    """Every test ends with a good client that is answered: on a busy machine after a 504, SECONDS being few."""
    yield

    def answered() -> bool:
        status, _ = ask(port, png(1))
        assert status in (200, 504)
        return status == 200

    until(answered)


def ask(port: int, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", PATH, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def say(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send the pieces, then read until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
                time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return rest(client)


def rest(client: socket.socket) -> bytes:
    found = b""
    try:
        while data := client.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def head(*lines: str, path: str = PATH) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def test_a_client_that_says_nothing_is_left(port: int) -> None:
    began = time.monotonic()
    assert say(port) == b""
    assert time.monotonic() - began >= SECONDS / 2


def test_a_client_that_says_its_head_byte_by_byte_is_left(port: int) -> None:
    slow = [bytes([byte]) for byte in head("X-Slow: yes")[:40]]
    assert say(port, *slow, pause=0.05) == b""


def test_a_second_request_that_never_comes_whole_ends_the_connection(port: int) -> None:
    body = png(1)
    first = head(f"Content-Length: {len(body)}") + body
    answer = say(port, first, b"POST /v1/dig")
    assert answer.count(b"HTTP/1.1") == 1 and status(answer) == 200


def test_a_body_after_an_upgrade_is_not_taken_for_nothing(port: int) -> None:
    """So curl --http2 and Java's HttpClient ask; the parser reads what follows as another request."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    body = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for pieces in (
        [head(*upgrade, f"Content-Length: {len(body)}"), body],
        [head(*upgrade, "Content-Length: 1") + b"x"],
    ):
        answer = say(port, *pieces, pause=0.02)
        assert status(answer) == 400 and b"no header Upgrade" in answer and answer.count(b"HTTP/1.1 ") == 1


def test_requests_that_wait_for_the_answer_before_are_few(port: int) -> None:
    """Else a client without a key fills the memory with them."""
    some = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = some.replace(b"localhost", b"localhost\r\nConnection: close")
    assert say(port, some * connections.PIPELINED + last).count(b"HTTP/1.1 200") == connections.PIPELINED + 1
    answers = say(port, some * 10_000)
    assert not answers or (answers.count(b"HTTP/1.1 400") == 1 and answers.count(b"HTTP/1.1") <= connections.PIPELINED)


def test_a_body_that_does_not_come_is_408(port: int) -> None:
    answer = say(port, head("Content-Length: 100"), b"only this")
    assert status(answer) == 408 and b"did not come in time" in answer


def test_a_body_that_is_too_large_is_not_read(port: int) -> None:
    """Whether it says so or not; and a client that asks first sends nothing."""
    for path in (PATH, *OTHERS):
        answer = say(port, head("Content-Length: 50000000", "Expect: 100-continue", path=path))
        assert status(answer) == 413 and b"100 Continue" not in answer
    piece = b"%x\r\n%s\r\n" % (65536, bytes(65536))
    answer = say(port, head("Transfer-Encoding: chunked"), *[piece] * 40)
    assert not answer or status(answer) == 413  # the answer is lost where the client still sends


@pytest.mark.parametrize("rest", [b"a: b\r\n", b"%x\r\n%s\r\n" % (4, bytes(4)), b""])
def test_the_rest_of_a_request_that_was_answered_is_not_waited_for(
    port: int, rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who needs no key could send without end: the fields after a body, or the body."""
    taken: list[bytes] = []
    take = HttpToolsProtocol.on_header

    def on_header(self: HttpToolsProtocol, name: bytes, value: bytes) -> None:
        taken.append(name)
        take(self, name, value)

    monkeypatch.setattr(HttpToolsProtocol, "on_header", on_header)
    start = b"0\r\n" if rest.startswith(b"a") else b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head("Transfer-Encoding: chunked", path="/healthz") + start + rest)
        assert client.recv(65536).startswith(b"HTTP/1.1 405")
        client.settimeout(0.05)

        def closed() -> bool:
            try:
                client.sendall(rest)
                return client.recv(1) == b""
            except OSError as error:
                return not isinstance(error, TimeoutError)

        until(closed, 10)
    assert taken == [b"Host", b"Transfer-Encoding"]


def test_a_head_without_an_end_is_cut_off(port: int) -> None:
    lines = [b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(2000)]
    answer = say(port, head()[:-2], *lines)
    assert not answer or status(answer) == 431


NO_REQUESTS = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello",
    "two lengths": head("Content-Length: 1", "Content-Length: 2"),
    "a length and chunks": head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "no length": head("Content-Length: many"),
    "a header over two lines": head("X-A: b", " c: d"),
    "a byte that no header has": head("X-A: a\x00b"),
    "a path of bytes": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("hosts", [[], ["Host: localhost", "Host: localhost"], ["Host: a", "Host: localhost"]])
def test_a_request_is_for_one_host(port: int, hosts: list[str]) -> None:
    answer = say(port, "\r\n".join(["GET /healthz HTTP/1.1", *hosts, "", ""]).encode())
    assert status(answer) == 400 and b"one Host" in answer


@pytest.mark.parametrize("case", NO_REQUESTS)
def test_what_is_no_request_is_refused(port: int, case: str) -> None:
    answer = say(port, NO_REQUESTS[case])
    assert not answer or status(answer) in (400, 404), answer
    assert b"Traceback" not in answer


def test_a_header_cannot_bring_another(port: int) -> None:
    body = png(1)
    injected = "a%0d%0aSet-Cookie:%20x"
    answer = say(port, head(f"X-Request-Id: {injected}", f"Content-Length: {len(body)}", "Connection: close") + body)
    assert status(answer) == 200 and b"set-cookie" not in answer.lower()
    name = 'a"\r\nSet-Cookie: x.png'
    part = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    form = part.encode() + body + b"\r\n--b--\r\n"
    code, text = ask(port, form, {"Content-Type": "multipart/form-data; boundary=b"})
    assert code in (200, 400) and b"\r\nSet-Cookie" not in text


def test_a_bad_form_is_told_to_who_sends_it_and_fills_no_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for form in (b"--b\rX", b"--c\r\n\r\n", b"--b\r\nX\x00: y\r\n\r\n"):
        assert ask(port, form, {"Content-Type": "multipart/form-data; boundary=b"})[0] == 400
    assert not caplog.records


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for path in (PATH, *OTHERS):
        for cut in (b"", b"half", png(1)):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(head(f"Content-Length: {len(png(1))}", path=path) + cut)
    assert ask(port, png(1))[0] == 200 and not caplog.records


def crowd(port: int, count: int) -> None:
    """So many open connections; one client among them is answered, and they too when they ask."""
    body = png(1)
    idle = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(count)]
    try:
        assert ask(port, body)[0] == 200
        request = head(f"Content-Length: {len(body)}", "Connection: close") + body
        asking = idle[:: max(1, count // 20)]
        left = 0
        for client in asking:
            try:
                client.sendall(request)
            except OSError:
                left += 1
        answers = [rest(client) for client in asking]
        assert all(status(answer) == 200 for answer in answers if answer)
    finally:
        for client in idle:
            client.close()


def test_many_connections_at_once(port: int) -> None:
    crowd(port, 200)


@pytest.mark.slow
def test_a_thousand_connections_at_once(port: int) -> None:
    crowd(port, 1000)


def test_more_than_the_queue_holds_is_429_and_never_lost() -> None:
    """A queue of one example: some are told to come again, the others are answered."""
    from concurrent.futures import ThreadPoolExecutor

    store = MemoryStore("memory://crowded")
    served_champions.promote(store, "one", served_champions.model(1))
    app = create_app(store, [served_champions.config(queue=1, batch=1)], Options(poll=0.05))
    with served_champions.listening(app) as port, ThreadPoolExecutor(16) as pool:
        until(lambda: app.state.services[NAME].live is not None)
        found = list(pool.map(lambda n: ask(port, png(n)), range(160)))
    assert {code for code, _ in found} <= {200, 429} and (200 in {code for code, _ in found})
    for code, text in found:
        assert code == 200 or json.loads(text)["error"]["hint"] == "Try again later"

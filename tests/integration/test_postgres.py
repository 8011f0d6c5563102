"""The Prefect server on PostgreSQL, as a team runs it: two real retrainings at once report to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.helpers import call, digits, pipeline, start
from tests.postgres import Database, binaries, postgres
from tests.prefect_servers import plain_environment
from tests.servers import LOOPBACK, free_ports

START_SECONDS = 120.0
COMMAND_SECONDS = 240.0


@dataclass(frozen=True)
class Server:
    """A Prefect server of its own process group, and the database below it."""

    api: str
    database: Database

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a POST."""
        request = urllib.request.Request(
            f"{self.api}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
            return json.load(response)

    def run(self, store: Path) -> dict[str, Any]:
        """The one flow run that was given this store."""
        runs = self.ask("/flow_runs/filter", {"limit": 200})
        (found,) = [run for run in runs if run["parameters"].get("store") == store.as_uri()]
        return dict(found)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Prefect's own `server start` with everything on, its tables made by its own migrations."""
    if binaries() is None:
        pytest.skip("no PostgreSQL: `apt install postgresql` brings it")
    folder = tmp_path_factory.mktemp("prefect")
    (port,) = free_ports(1)
    with postgres() as database, (folder / "server.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**plain_environment(), "PREFECT_HOME": str(folder / "home"), "DO_NOT_TRACK": "1",
                 "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        )  # fmt: skip
        try:
            api = f"http://{LOOPBACK}:{port}/api"
            _await_health(api, child, folder / "server.log")
            yield Server(api, database)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(30)


def _await_health(api: str, child: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with opener.open(f"{api}/health", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)  # between two looks at the same condition
    raise AssertionError(f"the Prefect server did not come up:\n{log.read_text(errors='replace')[-3000:]}")


def retraining(folder: Path, name: str, server: Server, skip: int = 0) -> subprocess.Popen[str]:
    """A store with a waiting batch of real digits, and the command that trains on it against that server."""
    folder.mkdir()
    config = pipeline(
        folder,
        name=name,
        model={"filters": [8], "dense": 16},
        training={"epochs": 2, "folds": 2},
        gate=[{"rule": "at_most", "metric": "log_loss", "value": 99.0}],
    )
    store = folder / "store"
    landed = call("ingest", config, digits(folder / "source", classes=3, each=30, skip=skip), "--store", store)
    assert landed.status == 0, landed.told()
    # the flow's parameters are what tells the runs apart on the server
    return start(
        "retrain", config, "--store", store.as_uri(), "--json", cwd=folder, environment={"PREFECT_API_URL": server.api}
    )


def finished(process: subprocess.Popen[str], folder: Path, server: Server) -> dict[str, Any]:
    """The flow run of a retraining that has promoted its first champion, held against the command's own document."""
    out, told = process.communicate(timeout=COMMAND_SECONDS)
    assert process.returncode == 0, told
    document = json.loads(out)
    assert document["verdict"] == "promoted"
    run = server.run(folder / "store")
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "promoted")
    assert document["snapshot"] in run["name"] and "promoted" in run["name"]
    there = sorted(path.name for path in (folder / ".leptonflow").iterdir())
    assert there == ["logs"]  # neither a server nor a database of the folder's own
    return run


def states(server: Server, run: dict[str, Any]) -> list[str]:
    """The types of the states that a flow run went through, as PostgreSQL has them."""
    found = server.database.rows(
        f"select type::text from flow_run_state where flow_run_id = '{run['id']}' order by timestamp"
    )
    return [kind for (kind,) in found]


def all_of_it_is_there(server: Server, run: dict[str, Any]) -> None:
    """The states of a flow run and its tasks', and its artifacts, are rows of that database."""
    assert states(server, run)[-1] == "COMPLETED"
    assert "RUNNING" in states(server, run)
    kinds = server.database.rows(f"select distinct type from artifact where flow_run_id = '{run['id']}'")
    assert {"markdown", "table"} <= {kind for (kind,) in kinds}
    deadline = time.monotonic() + 30  # task runs travel as events, which the server writes in batches
    while True:
        found = server.database.rows(f"select name, state_type::text from task_run where flow_run_id = '{run['id']}'")
        stages = {name for name, kind in found if kind == "COMPLETED"}
        if {
            "discover",
            "split",
            "train fold 1",
            "train fold 2",
            "fit-final",
            "package",
            "gate",
            "promote",
            "record",
        } <= stages:
            break
        assert time.monotonic() < deadline, sorted(found)
        time.sleep(0.2)


@pytest.mark.slow
def test_two_pipelines_retrain_at_once_against_one_server(server: Server, tmp_path: Path) -> None:
    """Neither waits for the other, and each has one run, of its own, that ends well and is all in PostgreSQL."""
    folders = {name: tmp_path / name for name in ("left", "right")}
    processes = {
        name: retraining(folder, name, server, skip=30 * number)
        for number, (name, folder) in enumerate(folders.items())
    }
    runs = [finished(processes[name], folder, server) for name, folder in folders.items()]
    assert [run["parameters"]["pipeline"] for run in runs] == [str(folders[n] / f"{n}.yaml") for n in folders]
    assert max(run["start_time"] for run in runs) < min(run["end_time"] for run in runs)  # side by side
    for run in runs:
        all_of_it_is_there(server, run)

"""`up`, `down` and `logs` with a real Prefect server and S3 server; the other services are tests/stack_programs.py.

Lines and their order, ports that are taken, one stack for a folder, what dies and comes back, and that nothing is left.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from uuid import UUID, uuid4

import pytest

from flows import credentials
from flows.stack import processes
from tests import servers

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0
END_SECONDS = 10.0
USER = """
from flows import server
with server.api() as api:
    api.wait()
    print(api.url, flush=True)
    input()
"""
LISTENS = {
    "type": "event", "posture": "Reactive", "threshold": 1, "within": 0, "expect": ["test.follows"],
    "for_each": ["prefect.resource.id"],
}  # fmt: skip
S3_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "LEPTONFLOW_STORE")
SERVICES = ["Prefect", "Board", "Deployments", "Worker", "Watcher"]
STORE_ID = (
    "from leptonflow.storage.address import open_store; from leptonflow.storage.store_identity import store_id; "
    "print(store_id(open_store('s3://leptonflow')))"
)


class Up:
    """A running `up`, what it said, and every process that was ever seen below it."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.seen: set[int] = set()
        with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
            self.process = python(["-m", "tests.stack_programs", "up", *arguments], folder, (out, err), **environment)

    @property
    def out(self) -> list[str]:
        return (self.folder / "out.txt").read_text().splitlines()

    @property
    def err(self) -> list[str]:
        return (self.folder / "err.txt").read_text().splitlines()

    def until_ready(self) -> None:
        until(lambda: self.process.poll() is not None or any(line.startswith("Ready") for line in self.out), self)
        assert self.process.poll() is None, self.told()

    @property
    def url(self) -> str:
        return self.out[0].removeprefix("Prefect ")

    @property
    def login(self) -> str:
        return str(json.loads((self.folder / ".leptonflow/prefect/server.json").read_text())["login"])

    def services(self) -> dict[str, dict[str, Any]]:
        return dict(json.loads((self.folder / ".leptonflow/stack/stack.json").read_text())["services"])

    def pid(self, service: str) -> int:
        return int(self.services()[service]["pid"])

    def look(self) -> set[int]:
        self.seen |= set(processes.descendants(self.process.pid))
        return self.seen

    def end(self, number: signal.Signals) -> float:
        """Seconds from the signal to the end of the command."""
        self.look()
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=2 * END_SECONDS)
        return time.monotonic() - began

    def left(self) -> list[str]:
        return [f"{pid} {processes.command(pid)}" for pid in self.seen if processes.alive(pid)]

    def told(self) -> str:
        return "\n".join([*self.out, *self.err])


def python(
    arguments: list[str], folder: Path, output: tuple[IO[str], IO[str]] | None = None, **environment: str
) -> subprocess.Popen[str]:
    """A Python program of ours in the folder, with nothing of a person's own Prefect, store or S3 around it."""
    ours = ("PREFECT_", "LEPTONFLOW_", "AWS_", "PYTHON")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    out, err = output or (subprocess.PIPE, subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, "-P", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), "HOME": str(folder), **environment},
        stdin=subprocess.DEVNULL if output else subprocess.PIPE, stdout=out, stderr=err, text=True,
        start_new_session=True,
    )  # fmt: skip


def cli(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Status, output and errors of a `leptonflow` command."""
    process = python(["-m", "cli.main", *arguments], folder)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def until(condition: Callable[[], object], up: Up | None = None, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, up.told() if up is not None else "it did not come to pass in time"
        time.sleep(0.05)


def get(url: str, accept: str = "*/*") -> tuple[str, bytes]:
    """(where it led, what came)."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as response:
        return response.url, response.read()


def ask(up: Up, path: str, document: Any) -> Any:
    """The API's answer to a POST by somebody who knows the login."""
    headers = {"Content-Type": "application/json", **credentials.headers(up.url, up.login)}
    request = urllib.request.Request(f"{up.url}/api{path}", json.dumps(document).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        return json.loads(response.read() or b"null")


@contextmanager
def running(folder: Path, *arguments: str, pipelines: bool = True, **environment: str) -> Iterator[Up]:
    """An `up` that is ready; ended by kill -9 if the test left it, and whatever it left as well."""
    if pipelines:
        project(folder)
    up = Up(folder, *arguments, **environment)
    try:
        up.until_ready()
        yield up
    finally:
        up.look()
        up.process.kill()
        for pid in up.seen:
            if processes.alive(pid):
                os.kill(pid, signal.SIGKILL)
        up.process.wait()


def project(folder: Path) -> None:
    """Two pipelines by their names: what `up` reads of them."""
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    for name in ("small.yaml", "small.contract.yaml", "large.yaml"):
        (folder / "pipelines" / name).touch()


def taken(*ports: int) -> list[socket.socket]:
    """These ports, held by us where nobody else does."""
    held = []
    for port in ports:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a connection that has ended: still ours
        try:
            bound.bind(("127.0.0.1", port))
            bound.listen()
            held.append(bound)
        except OSError:
            bound.close()
    return held


@pytest.mark.slow
def test_a_stack_from_its_start_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "a folder's #1 name?%20"
    held = taken(4200)
    with running(folder) as up:
        # What it says, and that it is true.
        assert up.out[0].startswith("Prefect http://127.0.0.1:")
        assert [line.split()[0] for line in up.out] == [*SERVICES, "Login", "Ready"]
        assert up.out[1].startswith("Board http://127.0.0.1:")
        assert "retrain/large, retrain/small" in up.out[2]
        assert up.out[4].endswith("Watching large small")
        assert any("port 4200 is taken" in line and up.url.rpartition(":")[2] in line for line in up.err), up.err
        where, page = get(up.url, accept="text/html")
        assert where.startswith(up.url) and b"<!DOCTYPE html>" in page
        assert json.loads(get(f"{up.url}/ui-settings")[1])["api_url"] == f"{up.url}/api"
        given = json.loads((folder / "given.json").read_text())
        assert given["PREFECT_API_URL"] == f"{up.url}/api"
        assert given["LEPTONFLOW_STORE"] == (folder / ".leptonflow").as_uri()
        assert given["PREFECT_LOGGING_LEVEL"] == "INFO"
        resident = int(Path(f"/proc/{up.process.pid}/status").read_text().split("VmRSS:")[1].split()[0])
        assert resident < 60 * 1024  # KiB

        # Its automations hear of what follows an event that the server before it had seen, and wait for other leaders.
        # An automation hears some time after the server said that it is there, so what it is to hear is said again.
        ask(up, "/automations/", {"name": "listens", "trigger": LISTENS, "actions": [{"type": "do-nothing"}]})

        def heard(what: str, leader_made: float) -> list[str]:
            """The resources that the automation has heard of, after one more event of this one."""
            leader = UUID(int=(int(leader_made * 1000) << 80) | (7 << 76) | (2 << 62) | 1)
            event = {"event": "test.follows", "resource": {"prefect.resource.id": what}, "follows": str(leader)}
            ask(up, "/events", [{**event, "id": str(uuid4()), "occurred": datetime.now(UTC).isoformat()}])
            triggered = {"filter": {"event": {"name": ["prefect.automation.triggered"]}}, "limit": 50}
            events = ask(up, "/events/filter", triggered)["events"]
            return [each["payload"]["triggering_event"]["resource"]["prefect.resource.id"] for each in events]

        until(lambda: heard("earlier", time.time() - 60), up)
        again = heard("later", time.time()).count("earlier")
        until(lambda: heard("earlier", time.time() - 60).count("earlier") > again + 1, up)
        assert "later" not in heard("earlier", time.time() - 60)

        # One for a folder.
        second = python(["-m", "tests.stack_programs", "up"], folder)
        out, err = second.communicate(timeout=30)
        assert (second.returncode, out) == (1, "")
        assert err.count("\n") == 1 and str(up.process.pid) in err and up.url in err

        # What dies comes back, and the address stays: a request that finds no server waits for it.
        first = up.services()
        for name in ("board", "worker", "watcher", "prefect"):
            os.kill(up.pid(name), signal.SIGKILL)
        assert get(f"{up.url}/api/health")[1] == b"true"
        until(lambda: set(up.services()) == set(first) and all(up.pid(n) != first[n]["pid"] for n in first), up)
        until(lambda: sum("is running again" in line for line in up.err) == 4, up)
        assert any(line.startswith("leptonflow: worker ended (killed by signal 9)") for line in up.err)

        # The end: also of an orphan in a session of its own that ignores SIGTERM.
        orphan = int((folder / "orphan.pid").read_text())
        assert orphan in up.look()
        assert up.end(signal.SIGINT) < END_SECONDS
        assert up.process.returncode == 0
        assert up.left() == []
        assert not (folder / ".leptonflow/stack/stack.json").exists()
        assert not (folder / ".leptonflow/prefect/server.json").exists()
        assert [*folder.glob(".prefect")] == []  # nothing under the user's home
    for each in held:
        each.close()


@pytest.mark.slow
def test_kill_9_of_up_ends_its_children(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        up.end(signal.SIGKILL)
        assert len(up.seen) >= 4
        until(lambda: up.left() == [], up, seconds=END_SECONDS)


@pytest.mark.slow
def test_detached_then_logs_then_down(tmp_path: Path) -> None:
    project(tmp_path)
    assert "has not run here" in cli(tmp_path, "logs")[2]
    process = python(["-m", "tests.stack_programs", "up", "--detach"], tmp_path)
    out, err = process.communicate(timeout=START_SECONDS)
    assert (process.returncode, err) == (0, "") or "taken" in err, (out, err)
    assert [line.split()[0] for line in out.splitlines()] == [*SERVICES, "Login", "Ready"]
    pid = json.loads((tmp_path / ".leptonflow/stack/stack.json").read_text())["pid"]
    try:
        assert processes.alive(pid)
        below = processes.descendants(pid)
        status, told, err = cli(tmp_path, "logs")
        assert (status, err) == (0, "") and "watcher | Watching large small" in told.splitlines()
        assert cli(tmp_path, "logs", "watcher") == (0, "Watching large small\n", "")
        status, _, err = cli(tmp_path, "logs", "nothing")
        assert status == 2 and "watcher" in err

        following = python(["-m", "cli.main", "logs", "watcher", "--follow"], tmp_path)
        assert following.stdout is not None and following.stdout.readline() == "Watching large small\n"
        with (tmp_path / ".leptonflow/stack/watcher.log").open("a") as log:
            log.write("one more\n")
        assert following.stdout.readline() == "one more\n"
        following.send_signal(signal.SIGINT)
        assert following.communicate(timeout=10) == ("", "") and following.returncode == 0

        began = time.monotonic()
        status, told, err = cli(tmp_path, "down")
        assert (status, err) == (0, "") and str(pid) in told
        assert time.monotonic() - began < END_SECONDS
        assert not [each for each in (pid, *below) if processes.alive(each)]
        assert cli(tmp_path, "down") == (0, "no stack is running in this folder\n", "")
    finally:
        for each in (*processes.descendants(pid), pid):
            processes.send([each], signal.SIGKILL)


@pytest.mark.slow
def test_a_command_that_runs_keeps_its_server_before_and_after(tmp_path: Path) -> None:
    """`up` waits for an embedded server to end; and a command that joined `up`'s keeps it until it has ended."""
    project(tmp_path)
    early = python(["-c", USER], tmp_path)
    assert early.stdout is not None and early.stdin is not None
    embedded = early.stdout.readline().strip()
    up = Up(tmp_path)
    try:
        until(lambda: any(f"waiting for the Prefect server of process {early.pid}" in line for line in up.err), up)
        assert get(f"{embedded}/health")[1] == b"true" and up.out == []
        early.communicate("\n")
        up.until_ready()
        late = python(["-c", USER], tmp_path)
        assert late.stdout is not None and late.stdout.readline().strip() == f"{up.url}/api"
        server = up.pid("prefect")
        assert up.end(signal.SIGTERM) < END_SECONDS
        assert up.left() == [f"{server} {processes.command(server)}"]
        assert any(f"the Prefect server runs until process {late.pid}" in line for line in up.err), up.err
        assert get(f"{up.url}/api/health")[1] == b"true"
        late.communicate("\n")
        until(lambda: not processes.alive(server), up)
    finally:
        for each in (early.pid, up.process.pid, *up.seen):
            processes.send([each], signal.SIGKILL)


@pytest.mark.slow  # two stacks
def test_another_login_with_the_next_up(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        first = up.login
        assert any(first in line for line in up.out)
        assert cli(tmp_path, "up", "--show-login") == (0, first + "\n", "")
        up.end(signal.SIGINT)
    with running(tmp_path, PREFECT_SERVER_API_AUTH_STRING="ada:lovelace") as up:
        assert up.login == "ada:lovelace" and "lovelace" not in up.told()
        assert cli(tmp_path, "up", "--show-login") == (0, "ada:lovelace\n", "")
        assert ask(up, "/deployments/filter", {}) == []
        up.end(signal.SIGINT)
    with running(tmp_path) as up:
        assert up.login == first and first not in up.told()
        stack = tmp_path / ".leptonflow/stack"
        assert not [log for log in stack.glob("*.log*") if first in log.read_text(errors="replace")]


@pytest.mark.slow
def test_what_cannot_be_started_ends_all_with_its_reason_and_status(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "broken").touch()
    up = Up(tmp_path)
    until(lambda: up.look() and up.process.poll() is not None, up)
    assert up.process.returncode == 2
    until(lambda: any("the schedule of small is wrong" in line and "deploy.log" in line for line in up.err), up)
    assert up.left() == [] and "Ready" not in up.told()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["minio", "seaweedfs"])
def test_an_s3_server_with_it_and_what_was_stored_is_there_again(kind: str, tmp_path: Path) -> None:
    """Killed in between, and on another port the second time. Here without a pipeline, as on a first day."""
    path = os.environ["PATH"]
    binary = servers.minio_binary()
    if kind == "seaweedfs":
        path = os.pathsep.join(p for p in path.split(os.pathsep) if not (Path(p) / "minio").exists())
    elif binary is None:
        pytest.skip("no `minio` binary on PATH or under $GOPATH/bin")
    else:
        path = f"{Path(binary).parent}{os.pathsep}{path}"
    stack = tmp_path / ".leptonflow/stack"
    identities = []
    for again in (False, True):
        held = taken(9000, 4280) if again else []
        with running(tmp_path, "--s3", pipelines=False, PATH=path) as up:
            told = ["Prefect", "S3", "Board", "Deployments", "Worker", "Watcher", "Login", "Ready"]
            assert [line.split()[0] for line in up.out] == told
            assert "leptonflow init" in up.out[3]
            assert up.out[1].startswith(f"S3 {up.services()['s3']['url']} ({kind})")
            for port in (bound.getsockname()[1] for bound in held):
                if port == 9000 or kind == "minio":
                    assert any(f"port {port} is taken" in line for line in up.err), up.err
            assert stat.S_IMODE((stack / "s3.env").stat().st_mode) == 0o600
            shell = [". .leptonflow/stack/s3.env && env"]
            ran = subprocess.run(["sh", "-c", *shell], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
            found = dict(line.partition("=")[::2] for line in ran.splitlines())
            variables = {name: found[name] for name in S3_VARIABLES}
            given = json.loads((tmp_path / "given.json").read_text())
            assert variables["LEPTONFLOW_STORE"] == "s3://leptonflow" and variables.items() <= given.items()
            assert ("LEPTONFLOW_WEBHOOK_TOKEN" in given) == (kind == "minio")
            secrets = [variables["AWS_SECRET_ACCESS_KEY"], given.get("LEPTONFLOW_WEBHOOK_TOKEN", "no webhook")]
            for text in (up.told(), *(log.read_text(errors="replace") for log in stack.glob("*.log"))):
                assert not [secret for secret in secrets if secret in text]
            identity, err = python(["-c", STORE_ID], tmp_path, None, **variables).communicate()
            assert identity, err
            identities.append(identity)
            assert up.end(signal.SIGINT if again else signal.SIGKILL) < END_SECONDS
            until(lambda up=up: up.left() == [], up, seconds=END_SECONDS)
        for each in held:
            each.close()
    assert len(set(identities)) == 1

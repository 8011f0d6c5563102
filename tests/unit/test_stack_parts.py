"""The parts of `up` that start nothing, or next to nothing: ports, secrets, the lock, processes, which S3 server."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.stack import place, ports, processes, s3, services
from schemas.errors import LeptonflowError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def script(text: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate()


# --- ports ---------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_and_another_one_listens_from_the_start() -> None:
    (usual,) = ports.free(1)
    told: list[str] = []
    with ports.listen(usual, "Prefect", told.append) as first, ports.listen(usual, "Prefect", told.append) as second:
        assert first.getsockname()[1] == usual
        chosen = second.getsockname()[1]
        assert told == [f"port {usual} is taken: Prefect listens on {chosen}"]
        for port in (usual, chosen):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert ports.choose(usual, "S3", told.append) == usual and len(told) == 1  # it is free again at once


def test_a_chosen_port_is_nobody_elses_although_nobody_listens_on_it() -> None:
    told: list[str] = []
    first = ports.choose(29_311, "S3", told.append)
    choice = f"from flows.stack import ports; print(ports.choose({first}, 'S3', print))"
    note, second = script(choice).communicate(timeout=60)[0].splitlines()
    assert int(second) != first and note == f"port {first} is taken: S3 listens on {second}"
    assert script(choice).communicate(timeout=60)[0].splitlines()[1] == second  # whoever has ended holds nothing


def test_ports_are_kept_while_they_are_free(tmp_path: Path) -> None:
    file = tmp_path / "ports"
    chosen = ports.kept(file, 3)
    assert len(set(chosen)) == 3
    assert ports.kept(file, 3) == chosen
    with socket.socket() as other:
        other.bind(("127.0.0.1", chosen[1]))
        other.listen()
        others = ports.kept(file, 3)
        assert chosen[1] not in others
    assert ports.kept(file, 3) == others
    file.write_text("not a port")
    assert len(ports.kept(file, 2)) == 2


# --- the folder ----------------------------------------------------------------------------------


def test_the_lock_is_one_processs_and_ends_with_it(tmp_path: Path) -> None:
    holder = script(
        "import sys; from pathlib import Path; from flows.stack import place; folder = Path(sys.argv[1])\n"
        "place.claim(folder); place.publish(folder, {'pid': 4711, 'services': {'prefect': {'url': 'http://there'}}})\n"
        "print('held', flush=True); input()",
        str(tmp_path),
    )
    assert not place.runs(tmp_path)
    assert line(holder) == "held"
    assert place.runs(tmp_path)
    with pytest.raises(LeptonflowError, match=r"process 4711, http://there.*leptonflow down"):
        place.claim(tmp_path)
    end(holder)
    assert not place.runs(tmp_path)
    os.close(place.claim(tmp_path))


def test_a_secret_is_made_once_and_nobody_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    made = place.secret(path)
    assert len(made) >= 32 and place.secret(path) == made != place.secret(tmp_path / "other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert place.secret(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("\n")
    assert len(place.secret(path)) >= 32


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LeptonflowError, match="cannot hold a stack"):
        place.open_folder(tmp_path / "file" / "stack")


def test_pipelines_are_the_yamls_without_their_contracts(tmp_path: Path) -> None:
    assert services.pipelines(tmp_path / "pipelines") == []
    for name in ("b.yaml", "a.yaml", "a.contract.yaml", "notes.txt"):
        (tmp_path / name).touch()
    assert services.pipelines(tmp_path) == ["a", "b"]


def test_up_names_every_deployment_and_serves_what_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert services.deployments([], tmp_path) == services.NO_PIPELINES
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/digits.yaml").write_text(
        "name: digits\nworkload: image_classification\ninput: [8, 8, 1]\nscore: {source: images}\n"
        "gate: [{rule: at_least, metric: accuracy, value: 0.5}]\nserving: {monitor: {after: 100}}\n"
    )
    (tmp_path / "pipelines/wrong.yaml").write_text("name: wrong\n")
    names = services.pipelines()
    assert services.deployments(names, tmp_path) == "retrain/digits, score/digits, monitor/digits"
    served, digits = services.Served(), tmp_path / "pipelines/digits.yaml"
    assert names == ["digits", "wrong"] and list(served.now()) == ["digits"]
    assert served.program() == ["serve", "digits"]
    first = served.now()
    text = digits.read_text()
    digits.write_text("name: digits\n")
    assert served.now() == first  # a mistake in what is served takes nothing away
    assert served.program() == ["board"]  # until the server has to be started for another reason
    digits.write_text(f"{text}# a note\n")
    assert served.now() == first and served.program() == ["serve", "digits"]
    (tmp_path / "pipelines/more.yaml").write_text(text.replace("digits", "more"))
    digits.write_text(text.replace("after: 100", "after: 200"))
    assert list(served.now()) == ["digits", "more"] and served.now()["digits"] != first["digits"]
    (tmp_path / "pipelines/more.yaml").unlink()
    assert list(served.now()) == ["digits"]
    digits.write_text("name: digits\n")
    assert services.deployments(names, tmp_path) == "retrain/digits, retrain/wrong"


# --- processes -----------------------------------------------------------------------------------

FAMILY = """
import os, sys, time
from flows.stack import processes
processes.adopt_orphans()
if os.fork() == 0:  # a child with an odd name, and a grandchild in a session of its own that outlives it
    if os.fork() == 0:
        os.setsid()
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    os._exit(0)
os.wait()
spared = os.fork()
if spared == 0:
    time.sleep(600)
while len(processes.descendants(os.getpid())) < 2:
    time.sleep(0.01)
print(*processes.descendants(os.getpid()), spared, flush=True)
input()
print(*processes.kill_descendants([spared]), "left", *processes.descendants(os.getpid()), flush=True)
input()
print(*processes.kill_descendants([]), "left", *processes.descendants(os.getpid()), flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="orphans come to their next parent on Linux alone")
def test_orphans_are_found_and_killed_and_what_is_spared_is_not() -> None:
    process = script(FAMILY)
    assert process.stdin is not None
    *below, spared = map(int, line(process).split())
    assert spared in below and len(below) == 2 and sorted(processes.descendants(process.pid)) == sorted(below)
    (orphan,) = set(below) - {spared}
    process.stdin.write("\n")
    process.stdin.flush()
    assert line(process) == f"left {spared}"
    assert processes.alive(spared) and not processes.alive(orphan)
    assert process.communicate("\n")[0].strip() == "left"
    assert not processes.alive(spared)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="who holds a file is asked of /proc")
def test_holders_of_a_file_are_known_by_name(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    holder = script("import os, sys; os.open(sys.argv[1], os.O_RDWR); print('open', flush=True); input()", str(fifo))
    assert line(holder) == "open"
    assert processes.holders(fifo) == [holder.pid]
    assert "-c import os, sys" in processes.command(holder.pid)
    end(holder)
    assert processes.holders(fifo) == [] and processes.command(holder.pid) == ""


def test_a_tethered_program_ends_with_the_one_that_holds_the_pipe() -> None:
    """Its group too; kill -9, since nothing else proves that the kernel does it."""
    parent = script(
        "import os, subprocess, sys\n"
        "from flows.stack import tether\n"
        "reader, writer = tether.create()\n"
        "child = subprocess.Popen([sys.executable, '-m', 'flows.stack.tether', 'timeit', '-n1', '-r1', '-s', "
        "'import subprocess; c = subprocess.Popen([\"sleep\", \"600\"]); print(c.pid, flush=True)', 'c.wait()'], "
        "pass_fds=(reader,), env={**os.environ, tether.NAME: str(reader)}, start_new_session=True)\n"
        "print(child.pid, flush=True); child.wait()"
    )
    pids = [int(line(parent)), int(line(parent))]
    assert all(map(processes.alive, pids))
    end(parent)
    deadline = time.monotonic() + 10
    while any(map(processes.alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- which S3 server -----------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH; no `weed` beside this Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("GOPATH", str(tmp_path / "go"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return folder


def install(folder: Path, name: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch(mode=0o755)
    return str(folder / name)


def test_minio_comes_first_and_data_stays_with_its_server(installed: Path, tmp_path: Path) -> None:
    data = tmp_path / "s3"
    with pytest.raises(UsageError, match=r"pip install 'leptonflow\[s3\]'"):
        s3.choose(data)
    weed = install(installed, "weed")
    assert s3.choose(data) == ("seaweedfs", weed)
    minio = install(tmp_path / "go" / "bin", "minio")
    assert s3.choose(data) == ("minio", minio)
    (data / "seaweedfs").mkdir(parents=True)
    assert s3.choose(data) == ("seaweedfs", weed)
    (installed / "weed").unlink()
    with pytest.raises(UsageError, match="was written by seaweedfs, which is not installed"):
        s3.choose(data)


def test_an_s3_servers_record_shows_no_secret_and_minio_is_told_where_to_notify(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    notify = s3.notifications(tmp_path / "s3", 4280, "a-token")
    server = s3.server("minio", "/bin/minio", tmp_path / "s3", tmp_path / "stack", 9000, notify)
    assert server.environment["MINIO_NOTIFY_WEBHOOK_ENDPOINT_leptonflow"] == "http://127.0.0.1:4280/minio"
    assert server.environment["MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_leptonflow"] == "a-token"
    assert Path(server.environment["MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_leptonflow"]).is_dir()
    for secret in (server.secret_key, server.access_key, "a-token"):
        assert secret not in repr(server) and secret not in " ".join(server.command)
    again = s3.server("minio", "/bin/minio", tmp_path / "s3", tmp_path / "stack", 9001, notify)
    assert (again.access_key, again.secret_key) == (server.access_key, server.secret_key)


def test_exports_are_read_by_a_shell_as_they_were_meant() -> None:
    text = s3.exports({"A": "plain", "B": "it's $HOME `date`"})
    shell = subprocess.run(["sh", "-c", f"{text}\nenv"], capture_output=True, text=True, check=True)
    assert "A=plain\n" in shell.stdout and "B=it's $HOME `date`\n" in shell.stdout

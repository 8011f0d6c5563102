"""The folder's own Prefect server: shared, gone with its last user, and silent. And the configured one."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import server
from flows.stack import processes
from schemas.errors import ServerError

ROOT = Path(__file__).resolve().parents[2]

# Joins or starts the server, says its address once it answers, and holds it until standard input ends.
USER = """
import sys
from flows import server
with server.api() as api:
    api.wait()
    print(api.url, flush=True)
    sys.stdin.read()
"""

# A flow as the retraining one is run: in this process, from the folder's own server.
FLOW = """
import sys
from flows import local_run

with local_run.prefect():
    from prefect import flow
    from tasks import stage

    @stage("double")
    def double(number: int) -> int:
        return 2 * number

    @flow(name="small", persist_result=False)
    def small(fail: bool) -> int:
        if fail:
            raise ValueError("the flow's own error")
        return sum(double(number) for number in range(5))

    try:
        print(small(fail="fail" in sys.argv))
    except ValueError as error:
        print(error)
"""


def python(script: str, folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A process that runs the script in the folder, with no Prefect of the user's own in its environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), "HOME": str(folder), **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def line(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """The next line that the process prints."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    assert ready, "the process said nothing in time"
    text = process.stdout.readline()
    assert text, process.communicate()[1]
    return text.strip()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def prefect_folder(folder: Path) -> Path:
    return folder / ".leptonflow" / "prefect"


def server_pid(folder: Path) -> int:
    return int(json.loads((prefect_folder(folder) / "server.json").read_text())["pid"])


def test_users_of_a_folder_share_one_server_which_ends_with_the_last_of_them_even_by_kill(tmp_path: Path) -> None:
    folder = tmp_path / "a folder's #1 name?%20"
    folder.mkdir()
    users = [python(USER, folder) for _ in range(4)]
    addresses = {line(user) for user in users}
    assert len(addresses) == 1
    pid = server_pid(folder)
    for user in users[:3]:
        user.send_signal(signal.SIGKILL)
        user.communicate()
    assert alive(pid)
    late = python(USER, folder)
    assert line(late) in addresses
    for user in (users[3], late):
        user.send_signal(signal.SIGKILL)
        user.communicate()
    until(lambda: not alive(pid))
    assert not (prefect_folder(folder) / "server.json").exists()
    assert sorted(p.name for p in folder.iterdir()) == [".leptonflow"]  # nothing under the user's home

    again = python(USER, folder)
    assert line(again)
    assert server_pid(folder) != pid
    out, err = again.communicate()
    assert (out, err) == ("", "")


@pytest.mark.slow
def test_a_server_whose_starter_was_killed_at_once_ends_too(tmp_path: Path) -> None:
    script = (
        "import os; from flows import server\n"
        "server.api().__enter__(); print('started', flush=True); os.kill(os.getpid(), 9)"
    )
    process = python(script, tmp_path)
    assert line(process) == "started"
    process.communicate()
    pid = server_pid(tmp_path)
    until(lambda: not alive(pid))
    assert not (prefect_folder(tmp_path) / "server.json").exists()


def test_a_flow_leaves_its_run_in_the_folder_and_nothing_on_the_terminal(tmp_path: Path) -> None:
    for arguments, expected in (((), "20\n"), (("fail",), "the flow's own error\n")):
        out, err = python(FLOW, tmp_path, *arguments, HTTP_PROXY="http://127.0.0.1:1").communicate()
        assert (out, err) == (expected, "")
    pid = prefect_folder(tmp_path) / "server.json"
    until(lambda: not pid.exists())
    until(lambda: len(rows(tmp_path, "select id from task_run where state_name = 'Completed'")) == 5)
    assert sorted(rows(tmp_path, "select state_name from flow_run")) == [("Completed",), ("Failed",)]
    messages = [message for (message,) in rows(tmp_path, "select message from log")]
    assert any("the flow's own error" in message for message in messages)


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(prefect_folder(folder) / "prefect.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_a_server_that_cannot_start_is_an_error_that_names_the_reason_and_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "prefect"
    folder.mkdir()
    (folder / "prefect.db").write_text("no database at all, but some text")
    with server.api(folder) as api, pytest.raises(ServerError, match=r"not a database.*server\.log"):
        api.wait()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match="cannot hold a Prefect server"), server.api(tmp_path / "file" / "prefect"):
        pass


@pytest.mark.slow
def test_an_embedded_server_is_nobodys_to_find_alone_on_its_database_and_ends_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = prefect_folder(tmp_path)
    first = python(USER, tmp_path)
    line(first)
    pid = server_pid(tmp_path)
    assert server.running(folder) is None
    told: list[str] = []
    with pytest.raises(ServerError, match="leptonflow up"):
        server.found(folder, patience=1, say=told.append)
    assert told == ["there is no Prefect server; waiting up to 1 seconds for one"]
    # Its address is gone, and so another one is started: it leaves the database alone until the first has ended.
    (folder / "server.json").unlink()
    second = python(USER, tmp_path)
    until(lambda: (folder / "server.json").exists() and bool(json.loads((folder / "server.json").read_text())["pid"]))
    other = server_pid(tmp_path)
    until(lambda: not starting(other))
    assert holders(folder / "prefect.db") == {pid}
    first.communicate("")
    line(second)
    assert holders(folder / "prefect.db") == {other} and not alive(pid)
    shutil.rmtree(folder)  # as at the end of a test or a benchmark: the server outlives its users by a moment
    second.communicate("")
    until(lambda: not alive(other))


def starting(pid: int) -> bool:
    """Whether the server has not come to the lock yet."""
    return not any(os.path.realpath(link).endswith("serving.lock") for link in Path(f"/proc/{pid}/fd").iterdir())


def holders(path: Path) -> set[int]:
    return set(processes.holders(path))


def test_a_full_server_is_found_and_one_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address alone: a server of `up` with its page is in test_stack."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    os.mkfifo(tmp_path / "server.fifo")
    reader = os.open(tmp_path / "server.fifo", os.O_RDONLY | os.O_NONBLOCK)
    url = "http://127.0.0.1:1/api"
    server.publish(tmp_path, {"url": url, "pid": 1, "full": True, "log": "no.log"})
    try:
        assert server.running(tmp_path) == url
        with pytest.raises(ServerError, match="does not answer"):
            server.found(tmp_path, patience=0.5)
    finally:
        os.close(reader)
    assert server.running(tmp_path) is None  # nobody reads: it is gone, whatever the file says
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:2/api")
    assert server.running(tmp_path) == "http://127.0.0.1:2/api"


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_a_configured_api_that_does_not_answer_is_an_error_without_its_credentials(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://ada:s3cret@127.0.0.1:1/api?key=s3cret"
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    if where == "environment":
        monkeypatch.setenv("PREFECT_API_URL", url)
    else:
        monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
        profiles = f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{url}"\n[profiles.other]\n'
        (tmp_path / "profiles.toml").write_text(profiles)
    with pytest.raises(ServerError) as caught, server.api(tmp_path / "prefect"):
        pass
    told = caught.value.line()
    assert "http://127.0.0.1:1/api" in told and "PREFECT_API_URL" in told
    assert "s3cret" not in told and "ada" not in told
    assert not (tmp_path / "prefect").exists()

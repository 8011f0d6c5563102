"""Keeping children running and ending them, with children that do nothing: what a real server is not needed for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.stack import processes

ROOT = Path(__file__).resolve().parents[2]

# `script.py PROGRAM`: supervises two services, `first` (which PROGRAM is) and `second`, which needs it.
SCRIPT = """
import os, subprocess, sys
from pathlib import Path
from flows.stack import processes
from flows.stack.supervisor import Service, Supervisor
from flows.wake_signals import Stop

def spawn(program):
    return lambda: subprocess.Popen([sys.executable, "-c", program], start_new_session=True)

def say(*words):
    print(*words, flush=True)

sleep = "import time; time.sleep(600)"
processes.adopt_orphans()
first, second = Path("first.log"), Path("second.log")
services = [
    Service("first", first, spawn(sys.argv[1]), lambda since: Path("well").exists(), lambda pid: f"first {pid}"),
    Service("second", second, spawn(sleep), line=lambda pid: f"second {pid}", needs=("first",), server=True),
]
with Stop().listening() as stop:
    supervisor = Supervisor(services, stop, say, lambda line: say("note:", line), lambda found: None)
    try:
        supervisor.run(lambda: say("ready"))
    except Exception as error:
        say("failed:", error)
    supervisor.end()
    say("ended", processes.descendants(os.getpid()))
"""
SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('deaf', 'w'); time.sleep(600)"


@contextmanager
def supervised(folder: Path, program: str, script: str = SCRIPT) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, program],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        processes.send([*processes.descendants(process.pid), process.pid], signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_lines_come_in_order_and_what_dies_is_started_again_ever_later(tmp_path: Path) -> None:
    with supervised(tmp_path, SLEEP) as process:
        began = time.monotonic()
        (tmp_path / "well").touch()
        name, pid = line(process).split()
        assert name == "first"
        assert line(process).split()[0] == "second" and line(process) == "ready"
        for pause in (1, 2):
            os.kill(int(pid), signal.SIGKILL)
            told = f"note: first ended (killed by signal 9); it is restarted in {pause} s, see first.log"
            assert line(process) == told
            again = line(process)
            assert again.startswith("note: first is running again, process ")
            assert again.split()[-1] != pid
            pid = again.split()[-1]
        assert time.monotonic() - began >= 3
        process.send_signal(signal.SIGTERM)
        assert line(process) == "ended []"


def depending(keys: str = "") -> str:
    """SCRIPT whose first program depends on the file `given`, looked at ten times a second."""
    return SCRIPT.replace(
        'lambda pid: f"first {pid}")', f'lambda pid: "first", {keys}depends=lambda: Path("given").read_text())'
    ).replace("with Stop()", "import flows.stack.supervisor as module; module.DEPENDS_SECONDS = 0.1\nwith Stop()")


def test_what_ended_well_is_started_again_when_what_it_depends_on_changes(tmp_path: Path) -> None:
    """Where that is wrong it says so once, and waits until it has changed again. Nothing else is touched."""
    program = "print('deployed', text := open('given').read(), flush=True); raise SystemExit(2 * (text == 'bad'))"
    given = tmp_path / "given"
    given.write_text("one")
    (tmp_path / "well").touch()
    with supervised(tmp_path, program, depending("once=True, ")) as process:
        lines = [line(process) for _ in range(4)]
        assert lines[:2] == ["deployed one", "first"] and lines[2].startswith("second") and lines[3] == "ready"
        given.write_text("bad")
        assert line(process) == "deployed bad"
        assert line(process).startswith("note: first failed (status 2)")
        given.write_text("two")
        assert line(process) == "deployed two"
        assert line(process) == "note: first succeeded: what it depends on is right again"
        given.write_text("three")
        assert line(process) == "deployed three"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "ended []"


def test_what_runs_is_started_anew_when_what_it_depends_on_changes(tmp_path: Path) -> None:
    """At once, with one note, and never because of the same change twice."""
    program = "import time; print('serves', open('given').read(), flush=True); time.sleep(600)"
    given = tmp_path / "given"
    given.write_text("one")
    (tmp_path / "well").touch()
    with supervised(tmp_path, program, depending()) as process:
        told = {line(process) for _ in range(4)}
        assert {"serves one", "first", "ready"} < told
        for word in ("two", "three"):
            (tmp_path / "new").write_text(word)
            os.replace(tmp_path / "new", given)
            assert line(process) == "note: first is started anew: what it depends on has changed"
            assert {line(process)[:31] for _ in range(2)} == {f"serves {word}", "note: first is running again, p"}
        process.send_signal(signal.SIGTERM)
        assert line(process) == "ended []"


def test_what_needs_another_waits_for_its_health(tmp_path: Path) -> None:
    with supervised(tmp_path, SLEEP) as process:
        deadline = time.monotonic() + 20
        while not (below := processes.descendants(process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(below) == 1
        (tmp_path / "well").touch()
        assert [line(process).split()[0] for _ in range(3)] == ["first", "second", "ready"]
        process.send_signal(signal.SIGINT)
        assert line(process) == "ended []"


def test_what_dies_before_it_is_healthy_is_given_up(tmp_path: Path) -> None:
    with supervised(tmp_path, "import sys; sys.exit('no such thing')") as process:
        for pause in (1, 2):
            assert f"first ended (status 1); it is restarted in {pause} s" in line(process)
        assert line(process).startswith("failed: first does not start (status 1)")
        assert line(process) == "ended []"


def test_a_second_signal_ends_at_once_what_does_not_heed_the_first(tmp_path: Path) -> None:
    (tmp_path / "well").touch()
    with supervised(tmp_path, STUBBORN) as process:
        lines = [line(process) for _ in range(3)]
        assert lines[2] == "ready"
        deadline = time.monotonic() + 20
        while not (tmp_path / "deaf").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        while processes.alive(int(lines[1].split()[1])) and time.monotonic() - began < 1:
            time.sleep(0.02)  # the server is not ended before its clients
        assert processes.alive(int(lines[1].split()[1]))
        process.send_signal(signal.SIGINT)
        assert line(process) == "ended []"
        assert time.monotonic() - began < 4

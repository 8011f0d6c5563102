"""With --json, standard output is one document: whatever user code, C, children and later threads write, and however
the command ends."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli import show
from leptonflow.core import progress
from schemas.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]

COMMAND = """
import atexit, os, subprocess, sys, threading, warnings
from cli import main
from cli.common import JSON, Answer, answer
from schemas.errors import UsageError

@main.app.command()
def noisy(as_json: JSON = False) -> int:
    print("from print")
    sys.__stdout__.write("from the stream\\n")
    os.write(1, b"from C\\n")
    subprocess.run(["echo", "from a child"])
    warnings.warn("a warning")
    atexit.register(print, "at exit", file=sys.__stdout__)
    atexit.register(os.write, 1, b"at exit, from C\\n")
    threading.Thread(target=lambda: (threading.main_thread().join(), os.write(1, b"from a thread\\n"))).start()
    {what}

sys.argv = ["leptonflow", "noisy", *{arguments}]
main.run()
"""
NOISE = {"from print", "from the stream", "from C", "from a child", "at exit", "at exit, from C", "from a thread"}


def run(what: str, *arguments: str, out: Any = subprocess.PIPE) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format(what=what, arguments=list(arguments))], cwd=ROOT, stdout=out,
        stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout or "", done.stderr


@pytest.mark.parametrize(
    ("what", "status", "document"),
    [
        ("return answer(Answer({'a': 1}, lambda: None, 3), as_json)", 3, {"a": 1}),
        ("return answer(Answer('caf\\u00e9 \\udcff', lambda: None), as_json)", 0, "caf\u00e9 \udcff"),
        ("raise UsageError('so it is')", 2, "so it is"),
        ("raise ValueError('that')", 1, "unexpected: ValueError: that"),
        ("sys.exit('user code')", 1, "code that the command runs ended the process"),
        ("os.kill(os.getpid(), 2); threading.Event().wait()", 130, "stopped"),
        ("answer(Answer({'a': 1}, lambda: None), as_json); raise UsageError('after it')", 2, "after it"),
    ],
)
def test_a_document_and_nothing_else(what: str, status: int, document: Any) -> None:
    code, out, err = run(what, "--json")
    assert code == status, err
    found = json.loads(out)
    assert out.count("\n") == 1
    assert (found["error"]["message"] if isinstance(found, dict) and "error" in found else found) == document
    assert set(err.splitlines()) >= NOISE


def test_without_json_nothing_is_moved() -> None:
    code, out, err = run("return answer(Answer({'a': 1}, lambda: print('shown')), as_json)")
    assert code == 0 and set(out.splitlines()) == NOISE | {"shown"} and not set(err.splitlines()) & NOISE


def test_the_traceback_of_debug_is_beside_the_document() -> None:
    code, out, err = run("raise UsageError('so it is')", "--json", "--debug")
    assert code == 2 and json.loads(out)["error"]["message"] == "so it is" and "Traceback" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: no output that is full")
def test_a_document_that_cannot_be_written_is_no_success() -> None:
    with open("/dev/full", "w") as full:
        code, _, err = run("return answer(Answer({'a': 1}, lambda: None), as_json)", "--json", out=full)
    assert code == 1 and "the output could not be written completely: No space left on device" in err


def test_a_reader_that_left_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, _, err = run("return answer(Answer({'a': 1}, lambda: None), as_json)", "--json", out=writing)
    os.close(writing)
    assert code == 1 and "Traceback" not in err


def test_nobody_reads_on() -> None:
    """As in `leptonflow ... | head -1`: not a word about it."""
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from cli import main; sys.argv = ['leptonflow', '--help']; main.run()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_fits_the_terminal_and_only_its_detail_is_cut(width: int) -> None:
    written = io.StringIO()
    bars = show.bars_on(Console(file=written, width=width))
    bars.add_task("final fit", total=11460, completed=2806, detail=f"epoch 3 of 12, loss 0.3184, [val] {'x' * 60}")
    bars.console.print(bars.get_renderable())
    (line,) = written.getvalue().splitlines()
    assert line.startswith("final fit ") and " 2806/11460 0:00:00 epoch 3" in line and line.endswith("\u2026")


def test_a_stage_that_begins_anew_takes_the_bars_after_it_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the folds of the next trial of a study."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with show.progress():
        for stage in ("fold 1", "fold 2"):
            for done in (0, 7):
                progress.report(stage, done, 7)
        progress.detail("fold 1", "the last epoch")
        progress.report("fold 1", 0, 8)
    last = capsys.readouterr().err.rpartition("fold 1")[2]
    assert "0/8" in last and "fold 2" not in last and "epoch" not in last


def test_a_question_in_an_error_ends_with_its_own_mark() -> None:
    inner = UsageError("unknown key epoch", received="epoch", hint="Did you mean epochs?")
    outer = UsageError("deploy failed", received=inner.line(), hint="See deploy.log")
    expected = "deploy failed. Received: unknown key epoch. Received: epoch. Did you mean epochs? See deploy.log."
    assert outer.line() == expected


def test_a_rule_whose_numbers_tell_nothing_shows_none() -> None:
    names = ("infra_validate", "same-predictions", "stale-snapshot")
    console = Console(file=io.StringIO(), width=100)
    console.print(show._gate_table([{"rule": n, "value": 0.5, "bound": 1e-05, "passed": True} for n in names]))
    lines = console.file.getvalue().splitlines()[-3:]  # type: ignore[attr-defined]
    cells = [line.split() for line in lines]
    assert cells == [[names[0], "0.5000", "1e-05", "yes"], *([name, "-", "-", "yes"] for name in names[1:])]

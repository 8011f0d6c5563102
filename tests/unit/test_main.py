"""What a person asks of every command: its version, help, what may come next, a report in a browser, a log."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import uuid
import webbrowser
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from cli import main
from flows import run_log
from leptonflow.storage.address import open_store

ROOT = Path(__file__).resolve().parents[2]
RUN = "0123456789ab"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"leptonflow {metadata.version('leptonflow')}\n"


@pytest.mark.parametrize("arguments", [["-h"], ["status", "-h"], ["status", "--json", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == 0
    told = capsys.readouterr()
    assert told.out.startswith("Usage: leptonflow") and told.err == ""


@pytest.mark.parametrize(
    ("words", "offered"), [("leptonflow retra", ["retract", "retrain"]), ("leptonflow status di", ["digits"])]
)
def test_a_shell_is_told_what_may_come_next(words: str, offered: list[str]) -> None:
    environment = {"_LEPTONFLOW_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main"], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, offered, "")


def test_a_report_of_a_store_that_is_no_folder_is_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: shown.append(url) or True)
    uri = f"memory://{uuid.uuid4().hex}"
    open_store(uri).create(f"runs/p/{RUN}/report.html", b"<!doctype html>")
    assert main.main(["report", RUN, "--store", uri, "--open"]) == 0
    assert capsys.readouterr().out == f"{uri}/runs/p/{RUN}/report.html\n"
    assert Path(url2pathname(urlsplit(shown[0]).path)).read_bytes() == b"<!doctype html>"
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert main.main(["report", RUN, "--store", uri, "--open"]) == 1
    assert "no browser could be started" in capsys.readouterr().err


def test_a_runs_log_is_a_file_with_the_error_that_ended_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = logging.getLogger("prefect.flow_runs")
    monkeypatch.setattr(log, "level", logging.INFO)
    monkeypatch.setattr(log, "handlers", [])  # Prefect's own, where a test before has imported it
    with pytest.raises(ValueError, match="so it is"), run_log.kept("digits") as path:
        log.info("split took %.2f s", 1.5)
        raise ValueError("so it is")
    log.info("afterwards")
    assert path is not None and path.parent == Path(".leptonflow/logs")
    text = path.read_text()
    assert "split took 1.50 s" in text and "ValueError: so it is" in text and "afterwards" not in text
    assert not log.handlers


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".leptonflow").write_text("a file")
    with run_log.kept("digits") as path:
        assert path is None

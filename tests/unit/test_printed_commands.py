"""What is printed to be pasted is one shell's words, whatever the folder is called."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from cli import main, show
from leptonflow import planning

NAMES = ["it's a #1 folder (50%)", 'a "quoted" $HOME', "ü; rm -rf x", "two\nlines: 3"]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / name / ".venv" / "bin" / "leptonflow"
    program.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert shlex.split(show.command()) == [str(program.relative_to(tmp_path))]


@pytest.mark.parametrize("name", NAMES)
def test_what_init_writes_and_prints(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["init", str(tmp_path / name)]) == 0
    (path,) = (tmp_path / name).glob("*[!t].yaml")
    planning.load_config(str(path))
    told = capsys.readouterr().out.partition("Next:")[2]
    assert str(path) in shlex.split(told)

"""What is printed to be pasted is one shell's words, whatever the folder is called."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from cli import batch_lines, main, show
from leptonflow.core import pipeline_files

NAMES = ["it's a #1 folder (50%)", 'a "quoted" $HOME', "ü; rm -rf x", "two\nlines: 3"]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / name / ".venv" / "bin" / "leptonflow"
    program.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert shlex.split(show.command()) == [str(program.relative_to(tmp_path))]


def test_a_store_that_was_given_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["leptonflow", "explain", "p", "--store", "file:///a b"])
    assert show.typed("retrain p") == "leptonflow retrain p --store 'file:///a b'"
    assert show.advice("none: `leptonflow runs p`") == "none: `leptonflow runs p --store 'file:///a b'`"
    for words in ("logs worker", "report r --store s"):
        assert show.typed(words) == f"leptonflow {words}"
    monkeypatch.setattr(sys, "argv", ["bin/leptonflow", "explain", "p", "--store=s"])
    assert show.advice("`leptonflow runs p`").endswith("bin/leptonflow runs p --store s`")
    monkeypatch.setattr(sys, "argv", ["leptonflow", "explain", "p"])
    assert show.typed("retrain p") == "leptonflow retrain p"


def test_a_command_stays_in_one_line() -> None:
    told = show.wrapped("some words: `leptonflow promote p --version v --reason TEXT` and more", 30, 4)
    assert told == "some words:\n    `leptonflow promote p --version v --reason TEXT`\n    and more"


@pytest.mark.parametrize("name", NAMES)
def test_what_init_writes_and_prints(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["init", str(tmp_path / name)]) == 0
    (path,) = (tmp_path / name).glob("*[!t].yaml")
    pipeline_files.load_config(str(path))
    told = capsys.readouterr().out.partition("Next:")[2]
    assert str(path) in shlex.split(told)


@pytest.mark.parametrize("outcome", ["accepted", "refused"])
def test_where_the_quarantined_rows_are_and_what_is_next(
    outcome: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["leptonflow", "ingest"])
    document = {
        "batch": "b", "outcome": outcome, "arrived": 2, "accepted": 1, "quarantined": 1, "known": 0, "ignored": 0,
        "reasons": {"empty-file": 1}, "corrected": [], "sentence": "too many", "snapshot": "s",
        "quarantine": [{"rule": "empty-file", "rows": 1, "source": "cat/a.png", "reason": "0 bytes"}],
    }  # fmt: skip
    batch_lines.ingested("p.yaml", "p", document)
    told = capsys.readouterr().out
    assert "quarantine where pipeline = 'p' and batch = 'b'\"" in told
    assert "  1 empty-file, such as cat/a.png: 0 bytes\n" in told
    way = "next: fix the data and land it under another name; then `leptonflow discard p.yaml b --reason TEXT`"
    assert (way in told) == (outcome == "refused")
    assert ("next: leptonflow retrain p.yaml" in told) == (outcome == "accepted")
    batch_lines.ingested("p.yaml", "p", {**document, "quarantined": 0, "reasons": {}, "quarantine": []})
    assert "row by row" not in capsys.readouterr().out
    batch_lines.ingested("p.yaml", "p", {**document, "sentence": "too many; 1 empty-file, such as cat/a.png: 0 bytes"})
    assert capsys.readouterr().out.count("1 empty-file") == 1, "a refused batch's sentence names the rule already"
    batch_lines.ingested("p.yaml", "p", {**document, "outcome": "reused", "known": 1})
    assert "ingested before, with these counts\n  2 arrived: 1 accepted" in capsys.readouterr().out

"""Where a newcomer begins: `init`, `doctor`, `--help`, a pipeline's name and the environment's store."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from cli import main
from leptonflow.core import pipeline_files
from tests.e2e.commands.places import HEAVY, Place
from tests.e2e.helpers import call, good, ingest, start


def test_init_writes_what_runs_as_it_is(work: Path, tmp_path: Path) -> None:
    good(tmp_path / "animals", ["no", "cat", "7"], 3)
    result = call("init", tmp_path / "zoo", "--from", tmp_path / "animals", "--json")
    assert result.status == 0 and set(result.document) == {"path", "seen"}
    assert result.document["seen"]["classes"] == {"7": 3, "cat": 3, "no": 3}
    path = Path(result.document["path"])
    assert path == tmp_path / "zoo" / "zoo.yaml" and (tmp_path / "zoo" / "zoo.contract.yaml").is_file()
    assert pipeline_files.load_config(str(path)).classes == ("7", "cat", "no")
    assert path.read_text().count("#") > 5
    document, _ = ingest(path, tmp_path / "animals", "--store", tmp_path / "store")
    assert document["accepted"] == 9
    again = call("init", tmp_path / "zoo", "--json")
    assert again.status == 2 and str(path) in again.told()
    assert call("init", tmp_path / "bare", "--json").status == 0
    assert pipeline_files.load_config(str(tmp_path / "bare" / "bare.yaml")).classes is None
    assert call("init", tmp_path / "x", "--from", tmp_path / "not-there").status == 2
    assert not (tmp_path / "x").exists()


def test_a_bare_name_is_found_by_every_command_that_init_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEPTONFLOW_STORE", raising=False)
    good(tmp_path / "photos" / "animals", ["cat", "dog"], 3)
    (tmp_path / "photos" / "Thumbs.db").write_bytes(b"x")
    told = call("init", "Zoo", "--from", "photos")
    assert told.status == 0 and "animals" in told.err
    assert "cat 3, dog 3" in told.out and "1 file, all hidden" in told.out and "pipelines/zoo.yaml" in told.out
    (line,) = re.findall(r"leptonflow (ingest .*)", told.out)
    result = call(*line.split(), "--json")
    assert result.status == 0, result.told()
    assert (result.document["accepted"], result.document["ignored"]) == (6, 1)
    assert call("status", "zoo", "--json").document["classes"] == ["cat", "dog"]


def test_doctor(first: Place, work: Path) -> None:
    result = call("doctor", "--store", first.store, "--json")
    assert result.status == 0, result.told()
    checks = {check["name"]: check for check in result.document["checks"]}
    assert {"python", "packages", "store", "prefect", "accelerator"} <= set(checks)
    assert all(set(check) == {"name", "ok", "detail"} and check["detail"] for check in checks.values())
    assert "tokenizers " in checks["packages"]["detail"] and "keras " in checks["packages"]["detail"]
    shown = call("doctor", "--store", first.store)
    assert len(shown.out.splitlines()) == len(checks)


def test_a_name_under_pipelines_and_the_stores_of_the_environment(
    first: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines").mkdir()
    shutil.copy(first.yaml, tmp_path / "pipelines" / "small.yaml")
    monkeypatch.setenv("LEPTONFLOW_STORE", str(first.store))
    assert call("status", "small", "--json").document["champion"] == first.told["A"]["version"]
    other = call("status", "large", "--json")
    assert other.status == 2 and "small" in str(other.error["expected"])
    monkeypatch.delenv("LEPTONFLOW_STORE")
    assert call("status", "small", "--json").document["champion"] is None
    assert call("ingest", "small", first.folder / "monday", "--batch", "m", "--json").status == 0
    assert (tmp_path / ".leptonflow" / "store.json").is_file()
    assert call("status", "small", "--json").document["batches"] == ["m"]
    assert main.main(["status", "large", "--debug", "--json"]) == 2
    told = capsys.readouterr()
    assert "Traceback" in told.err and json.loads(told.out)["error"]  # a traceback where one was asked for


def test_help_is_light_and_names_no_command_that_does_not_work(tmp_path: Path) -> None:
    dump = "import atexit; atexit.register(lambda: open('modules', 'w').write(' '.join(sys.modules)))"
    process = start("--help", cwd=tmp_path, prelude=dump)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and err == ""
    here = re.findall(r"^  ([a-z]+)  ", out, re.MULTILINE)
    assert here == [
        "init", "ingest", "discard", "retract", "retrain", "status", "runs", "models", "history", "verify", "promote",
        "rollback", "approve", "reject", "canary", "tune", "gate", "predict", "serve", "label", "labels", "monitor",
        "board", "query", "report", "explain", "reproduce", "watch", "deploy", "up", "down", "logs", "doctor",
    ]  # fmt: skip
    assert not re.search(r"^  [a-z]+ .*\.\.\.$", out, re.MULTILINE)  # no line of a command is cut
    assert not (HEAVY | {"pyarrow", "numpy"}) & set((tmp_path / "modules").read_text().split())

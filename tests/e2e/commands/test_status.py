"""What looks and changes nothing: `predict`, `report`, `status`, `runs` and `models`."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.commands.places import COLUMNS, Place, retrained
from tests.e2e.helpers import call, rows


def test_predict(first: Place, tmp_path: Path) -> None:
    images = sorted((first.folder / "monday").glob("[0-2]/digit*"))[::9]
    (tmp_path / "bad.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    files = [*images, tmp_path / "bad.png", tmp_path / "gone.png", tmp_path / "pipe.png"]
    result = first("predict", *files)
    assert result.status == 1
    assert [answer["file"] for answer in result.document] == [str(f) for f in files]
    for answer in result.document:
        assert set(answer) == {"file", "label", "probability", "version", "error"}
        assert answer["version"] == first.told["A"]["version"]
    answered, failed = result.document[: len(images)], result.document[len(images) :]
    assert all(a["error"] is None and 1 / 3 <= a["probability"] <= 1 for a in answered)
    right = sum(Path(a["file"]).parent.name == a["label"] for a in answered)
    assert right / len(answered) > 0.5
    assert [f["label"] for f in failed] == [None] * 3
    assert "unreadable-image" in failed[0]["error"] and "No such file" in failed[1]["error"]
    assert "a named pipe" in failed[2]["error"]
    assert first("predict", *images[:2]).status == 0
    shown = call("predict", first.yaml, *files, "--store", first.store)
    assert shown.status == 1 and "bad.png" in shown.err and images[0].name in shown.out
    # What is predicted is what the tables say of the same image.
    known = {
        (row["source"], row["predicted"]): row["probability"]
        for row in rows(
            first.store, "select example_id as source, predicted, probability from predictions where split = 'holdout'"
        )
    }
    assert known


def test_predict_takes_folders(first: Place, tmp_path: Path) -> None:
    """All that lies in them, by name; what is hidden or no image by its name is left out, as `ingest` does."""
    (tmp_path / "f" / "deeper").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    images = sorted((first.folder / "monday" / "1").glob("digit*"))[:3]
    for image, name in zip(images, ("b.png", "a.png", "deeper/c.png"), strict=True):
        shutil.copy(image, tmp_path / "f" / name)
    for name in ("README.md", ".hidden.png", "Thumbs.db"):
        (tmp_path / "f" / name).write_text("x")
    os.mkfifo(tmp_path / "f" / "pipe.png")
    (tmp_path / "f" / "out.png").symlink_to(images[0])
    result = first("predict", tmp_path / "f", tmp_path / "empty")
    told = {str(Path(each["file"]).relative_to(tmp_path)): each["error"] for each in result.document}
    assert list(told) == ["f/a.png", "f/b.png", "f/deeper/c.png", "f/out.png", "f/pipe.png", "empty"]
    assert [why and why.split(":")[0] for why in told.values()] == [
        None, None, None, "path-escape", "not-a-file", "the folder holds no example"
    ]  # fmt: skip
    (alone,) = first("predict", images[1]).document
    assert result.document[0]["probability"] == pytest.approx(alone["probability"], abs=1e-5)


def test_predict_without_a_champion(work: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, {})
    place.configure()
    (tmp_path / "x.png").write_bytes(b"x")
    result = place("predict", tmp_path / "x.png")
    assert result.status == 1 and "retrain" in str(result.error["hint"])


def test_a_store_that_was_moved_still_works(champions: Place) -> None:
    a, c = (champions.told[name]["version"] for name in "AC")
    assert champions("status").document["champion"] == c
    again = retrained(champions("retrain"), 0)
    assert again["verdict"] == "unchanged"
    assert Path(again["report"]).is_file() and Path(again["report"]).is_relative_to(champions.store)
    assert len(rows(champions.store, "select distinct version from predictions")) == 3
    result = champions("promote", "--version", a, "--reason", "moved")
    assert result.document["record"]["number"] == 4
    written = [str(folder).encode() for folder in (Path.cwd(), champions.folder)]  # where it lay, where it lies
    records = {file: file.read_bytes() for file in champions.store.rglob("*.json")}
    # What is recorded is a key relative to the root.
    assert records and not [file for file, data in records.items() if any(place in data for place in written)]


def test_the_report_is_one_file_that_asks_for_nothing(first: Place) -> None:
    result = call("report", first.told["A"]["run_id"], "--store", first.store, "--json")
    assert result.status == 0 and set(result.document) == {"path"}
    assert result.document["path"] == first.told["A"]["report"]
    text = Path(result.document["path"]).read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith("<!doctype html>")
    outside = re.findall(r"""(?:src|href|action|data)\s*=\s*["']?(?!data:|#)[^"'\s>]+""", text)
    assert not outside
    assert not re.findall(r"url\((?!['\"]?(?:data:|#))|@import|<script|<iframe|<link", text)
    for part in (first.told["A"]["version"], "at_least", "fold_spread", "infra_validate", "promoted", "<img", "monday"):
        assert part in text, part
    assert call("report", first.yaml, "--store", first.store, "--json").document == result.document  # its newest run
    assert call("report", "0123456789ab", "--store", first.store).status == 1
    assert call("report", "../../etc", "--store", first.store).status in (1, 2)


def test_status_runs_and_models(third: Place) -> None:
    status = third("status").document
    assert set(status) >= {"champion", "since", "metrics", "newest", "snapshot", "waiting", "last_run"}
    c = third.told["C"]
    assert (status["champion"], status["newest"], status["snapshot"]) == (c["version"], c["version"], c["snapshot"])
    assert status["metrics"] == c["holdout"]
    assert status["waiting"] == [] and status["last_run"]["run_id"] == c["run_id"]
    assert sum(status["examples_per_class"].values()) == status["examples"]
    assert (status["running"], status["lost"]) == (None, [])
    assert status["store"] == {"uri": third.store.as_uri(), "exists": True}
    runs = third("runs").document
    assert [run["run_id"] for run in runs] == [third.told[name]["run_id"] for name in "ABC"]
    models = third("models").document
    assert [m["version"] for m in models] == [third.told[name]["version"] for name in "ABC"]
    for model in models:
        assert {"version", "run_id", "bytes", "created_at"} <= set(model)
        assert model["verdict"] == "promoted" and model["key_metric"]["name"] == "accuracy"
    for run in runs:
        assert run["reason"].startswith("promoted") and run["key_metric"]["name"] == "accuracy"
    for name in ("status", "runs", "models", "history"):
        shown = call(name, third.yaml, "--store", third.store)
        assert shown.status == 0 and c["version"] in shown.out, name
        assert "accuracy" in shown.out or name == "history"


def test_a_pipeline_without_anything_yet(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, {})
    place.configure()
    missing = place("status")
    assert missing.status == 1 and str(place.store) in str(missing.error["message"])  # it was named, and is not there
    monkeypatch.chdir(tmp_path)
    status = call("status", place.yaml, "--json").document
    assert set(status) >= {"champion", "since", "metrics", "newest", "snapshot", "waiting", "last_run", "store"}
    assert {status[k] for k in ("champion", "since", "metrics", "newest", "snapshot", "last_run", "running")} == {None}
    assert {str(status[k]) for k in ("waiting", "refused", "open", "late", "lost", "discarded", "warnings")} == {"[]"}
    assert status["store"] == {"uri": (tmp_path / ".leptonflow").as_uri(), "exists": False}
    assert "does not exist yet" in " ".join(call("status", place.yaml).out.split())
    for name in ("runs", "models", "history"):
        assert place(name).document == []
        shown = call(name, place.yaml, "--store", place.store)
        assert shown.status == 0 and "there is no store at" in shown.err
    for words in (("canary",), ("monitor",), ("labels", "--to-batch")):  # what they could write belongs to a store
        refused = call(*words, place.yaml, "--store", place.store)
        assert refused.status == 1 and "there is no store at" in refused.err
    for table in COLUMNS:
        assert rows(place.store, f"select * from {table}") == []
    assert not place.store.exists() and not (tmp_path / ".leptonflow/store.json").exists()  # looking writes nothing
    place.store.mkdir()
    assert place("status").status == 1  # a folder is no store
    (place.store / "landing/small/first/0").mkdir(parents=True)
    status = place("status").document  # what others land is the beginning of one
    assert status["store"]["exists"] is True and [each["batch"] for each in status["open"]] == ["first"]

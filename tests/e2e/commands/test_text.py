"""A pipeline of texts, through the same commands as one of images."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import yaml

from flows import server
from schemas.errors import UsageError
from tests.e2e.helpers import call, rows
from tests.texts import CLASSES, sample

BAD = [
    ("weather", ""),
    ("weather", "<p><br/></p>"),
    ("sport", "goal goal goal goal"),
]


def table(path: Path, count: int, seed: int, bad: bool = False) -> Path:
    """A table of texts in two columns."""
    texts, labels = sample(count, seed)
    rows = [(CLASSES[label], *text.split(" ", 1)) for text, label in zip(texts, labels, strict=True)]
    rows += [*((label, "", text) for label, text in BAD), ("sport", "one cell too few")] if bad else []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("label", "title", "text"))
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Any:
    """A store with one batch of 240 texts and a champion; {"ingest", "retrain"} as they were printed."""
    folder = tmp_path_factory.mktemp("texts")
    document = {
        "name": "reports", "workload": "text_classification",
        "input": {"columns": ["title", "text"], "length": 24, "vocabulary": 200},
        "model": {"kind": "bag", "embedding": 8, "pairs": 0, "token_dropout": 0.0, "dropout": 0.0},
        "training": {"epochs": 12, "batch_size": 16, "folds": 2, "learning_rate": 0.05},
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.7}, {"rule": "slices", "by": ["words"]},
                 {"rule": "against_champion", "metric": "accuracy", "margin": 0.05}],
        "serving": {"onnx": False},
    }  # fmt: skip
    (folder / "reports.yaml").write_text(yaml.safe_dump(document))
    store = (folder / "store").as_uri()

    def run(command: str, *arguments: object) -> Any:
        return call(command, folder / "reports.yaml", *arguments, "--store", store, "--json")

    run.folder, run.store = folder, store  # type: ignore[attr-defined]
    first = run("ingest", table(folder / "first.csv", 240, 0, bad=True), "--batch", "first")
    run.told = {"ingest": first, "retrain": run("retrain")}  # type: ignore[attr-defined]
    return run


def test_a_table_of_texts_is_promoted(place: Any) -> None:
    told, trained = place.told["ingest"].document, place.told["retrain"]
    assert (told["arrived"], told["accepted"], told["quarantined"]) == (244, 240, 4)
    assert trained.status == 0, trained.out
    assert trained.document["verdict"] == "promoted" and trained.document["cv"]["accuracy"]["mean"] > 0.8
    page = Path(trained.document["report"]).read_text()
    assert "text_classification" in page and "the first 24 tokens" in page
    assert "Confusion matrix" in page and "By class, by batch, by words and by share of unknown tokens" in page


def test_the_rules_of_bad_rows_are_told(place: Any) -> None:
    parts = list((place.folder / "store" / "quarantine").rglob("*.parquet"))
    found = {row["rule"]: row["reason"] for part in parts for row in pq.read_table(part).to_pylist()}
    assert found.keys() == {"empty-text", "markup-only", "near-constant", "ragged-row"}
    assert "3 columns, this row 2 cells" in found["ragged-row"]


def test_the_package_holds_the_tokenizer_of_its_own_training_texts(place: Any) -> None:
    version = place.told["retrain"].document["version"]
    package = place.folder / "store" / "models" / "reports" / version
    words = json.loads((package / "vocabulary.json").read_text())["model"]["vocab"]
    assert {"goal", "garlic", "storm"} <= words.keys() and len(words) <= 200
    assert "vocabulary.json" in {f["key"] for f in json.loads((package / "manifest.json").read_text())["files"]}


def test_a_text_is_predicted_as_it_was_evaluated(place: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Goal!\n\nthe striker and a penalty after a sprint", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9 au lait")
    found = place("predict", tmp_path / "a.txt", tmp_path / "b.txt")
    good, bad = found.document
    assert (good["label"], good["error"], bad["label"]) == ("sport", None, None)
    assert "not-utf8: byte 3 is 0xe9" in bad["error"]
    (why,) = place("predict", tmp_path / "a.txt", "--explain").document
    words = {mark["text"]: mark["effect"] for mark in why["explanation"]["marks"]}
    assert words.keys() >= {"Goal", "penalty"} and max(words.values()) > 0


def test_a_typed_text_and_the_rows_of_a_table_are_predicted_alike(place: Any, tmp_path: Path) -> None:
    said = "Goal! the striker and a penalty after a sprint"
    (tmp_path / "a.txt").write_text(said, encoding="utf-8")
    (tmp_path / "t.csv").write_text(f'n,title,text\n1,Goal!,{said[6:]}\n2,,\n3,"oven, butter",dough\n4,x\n')
    found = place("predict", said, tmp_path / "a.txt", tmp_path / "t.csv", "", "gone/a.txt", "gone.csv")
    assert found.status == 1
    assert [(row["file"].removeprefix(f"{tmp_path}/"), row["label"]) for row in found.document] == [
        (said, "sport"), ("a.txt", "sport"), ("t.csv[0]", "sport"), ("t.csv[1]", None), ("t.csv[2]", "cooking"),
        ("t.csv[3]", None), ("", None), ("gone/a.txt", None), ("gone.csv", None),
    ]  # fmt: skip
    assert len({row["probability"] for row in found.document[:2]}) == 1
    errors = [row["error"] for row in found.document if row["error"]]
    assert errors[:3] == ["empty-text: nothing but whitespace", errors[1], "empty-text: there is no text"]
    assert errors[1].startswith("ragged-row: the header has 3 columns, this row 2 cells")
    assert errors[3:] == ["it looks like a file's path, and no such file is there"] * 2
    (tmp_path / "other.csv").write_text("a,b\nc,d\n")
    (wrong,) = place("predict", tmp_path / "other.csv").document
    assert wrong["error"] == "missing-column: no column of texts (title, text); the columns are 'a', 'b'"


@pytest.mark.slow
def test_a_table_of_texts_is_scored_to_a_file_as_it_is_predicted(place: Any, tmp_path: Path) -> None:
    found = table(tmp_path / "t.csv", 40, 7, bad=True)
    singly = place("predict", found).document
    scored = place("predict", found, "--output", tmp_path / "out.parquet", "--processes", 2)
    assert (scored.status, scored.document["rows"], scored.document["failed"]) == (1, 44, 4)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["source"], row["label"], row["error"]) for row in rows] == [
        (each["file"], each["label"], each["error"]) for each in singly
    ]
    for row, each in zip(rows, singly, strict=True):
        assert row["probability"] == pytest.approx(each["probability"], abs=1e-5)


def test_a_notebook_predicts_texts(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import pandas as pd

    import leptonflow

    monkeypatch.chdir(tmp_path)
    Path("storm").mkdir()
    texts = ["the striker scored a goal", "storm", "oven and butter and dough"]
    champion = leptonflow.open(place.store).champion("reports")
    said = champion.predict(texts)
    assert said["label"].tolist() == ["sport", "weather", "cooking"], "a text, although a folder has that name"
    assert said["file"].tolist() == texts
    for given in (np.array(texts), np.array(texts, object), pd.Series(texts), tuple(texts)):
        assert champion.predict(given).equals(said)
    assert champion.predict(texts[0])["label"].tolist() == ["sport"]
    holes = champion.predict(pd.Series(["goal and referee", None, np.nan], dtype=object))
    assert holes["error"].tolist()[1:] == ["empty-text: there is no text"] * 2
    Path("a.txt").write_text(texts[0])
    named: list[str | Path] = [Path("a.txt"), "a.txt"]
    files = champion.predict(named)
    assert files["label"][0] == "sport" and "looks like a file" in files["error"][1]
    with pytest.raises(UsageError, match=r"not an example.*Received: 3"):
        champion.predict([3])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="takes no arrays"):
        champion.predict(np.zeros((1, 8, 8)))


def test_tables_and_the_prefect_ui_have_a_run_of_texts(place: Any, work: Path) -> None:
    run = place.told["retrain"].document
    found = rows(
        place.store,
        f"select split, fold, count(*) as n, count(distinct source) as sources from predictions "
        f"where run_id = '{run['run_id']}' group by all order by fold nulls last",
    )
    assert [(row["split"], row["fold"]) for row in found] == [("oof", 0), ("oof", 1), ("holdout", None)]
    assert sum(row["n"] for row in found) == sum(row["sources"] for row in found) == 240
    facts = rows(place.store, "select count(*) as n from validations where batch = 'first' and fact = 'words'")
    assert facts[0]["n"] >= 1
    with server.api(work / server.FOLDER) as handle:
        handle.wait()
        user, _, password = (handle.login or ":").partition(":")
        keys = {"artifacts": {"key": {"like_": "%-reports"}}}
        answer = httpx.post(f"{handle.url}/artifacts/filter", json=keys, auth=(user, password), timeout=60)
    there = {each["key"] for each in answer.raise_for_status().json()}
    assert there >= {f"{kind}-reports" for kind in ("summary", "report", "gate", "curves", "confusion")}


@pytest.mark.slow
def test_known_texts_are_not_ingested_again_and_new_ones_are_weighed_against_the_champion(place: Any) -> None:
    again = place("ingest", table(place.folder / "second.csv", 240, 0), "--batch", "second").document
    assert (again["known"], again["accepted"]) == (240, 0)
    more = place("ingest", table(place.folder / "third.csv", 60, 7), "--batch", "third").document
    assert more["accepted"] > 50
    run = place("retrain")
    assert run.status in (0, 4)
    gate = {rule["rule"]: rule for rule in run.document["gate"]}
    assert gate.keys() >= {"at_least", "against_champion", "slices"}
    paired = gate["against_champion"]
    assert paired["method"] == "tango score" and paired["n"] == run.document["examples"]["holdout"]
    assert paired["low"] <= paired["value"] <= paired["high"]
    explained = place("explain").document
    assert explained["run_id"] == run.document["run_id"] and run.document["verdict"] in explained["paragraph"]
    page = Path(run.document["report"]).read_text()
    assert "Example by example" in page and "95% interval" in page
    reproduced = call("reproduce", run.document["run_id"], "--store", place.store, "--folder", place.folder, "--json")
    assert reproduced.document["equal"] is True, reproduced.out


def test_a_folder_of_text_files_per_class(place: Any, tmp_path: Path) -> None:
    texts, labels = sample(30, 3)
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        folder = tmp_path / "files" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(text)
    (tmp_path / "files" / "sport" / "picture.jpg").write_bytes(b"\xff\xd8")
    told = place("ingest", tmp_path / "files", "--batch", "files").document
    assert (told["accepted"] + told["known"], told["ignored"]) == (30, 1)

"""A workload of another shape goes from ingest to verdict: no classes, one number for each example, its own columns.

It lives in tests/contract/toy and is in no list of the project: the engine, the commands and the report must know
nothing but the contract of a workload.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.e2e.helpers import ROOT, Result, commands, share_server

TOY = Path(__file__).parent / "toy"
DOCUMENT: dict[str, Any] = {
    "name": "numbers", "workload": "number_regression", "input": {"size": 3}, "contract": "numbers.contract.yaml",
    "training": {"epochs": 30, "batch_size": 16, "folds": 3, "learning_rate": 0.05},
    "gate": [
        {"rule": "at_most", "metric": "mean_absolute_error", "value": 1.0, "confidence": 0.95},
        {"rule": "baseline", "metric": "root_mean_squared_error"},
        {"rule": "against_champion", "metric": "mean_absolute_error", "margin": 0.05},
    ],
}  # fmt: skip
CONTRACT = {
    "expectations": [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "largest", "min_value": -9, "max_value": 9}}
    ]
}
BAD = ["1 2,0.5", "a b c,0.5", "1 2 3,high", "1 2 3,nan", "1 2 3,"]


class Place:
    """A folder with the pipeline and a store, and what runs a command there."""

    def __init__(self, folder: Path, command: Callable[..., Result]) -> None:
        self.folder, self.command = folder, command
        (folder / "numbers.yaml").write_text(yaml.safe_dump(DOCUMENT))
        (folder / "numbers.contract.yaml").write_text(yaml.safe_dump(CONTRACT))

    def run(self, name: str, *arguments: object, pipeline: bool = True) -> Result:
        given = ["numbers.yaml"] if pipeline else []
        return self.command(name, *given, *arguments, "--store", "store", "--json")

    def query(self, sql: str) -> list[dict[str, Any]]:
        found = self.run("query", sql, pipeline=False).document
        return list(found["rows"] if isinstance(found, dict) else found)

    def table(self, name: str, seed: int, bad: list[str]) -> Path:
        random = np.random.default_rng(seed)
        rows = random.normal(size=(150, 3)).round(4)
        truth = (2 * rows[:, 0] - rows[:, 1] + 0.1 * random.normal(size=150)).round(4)
        lines = [f"{' '.join(map(str, row))},{value}" for row, value in zip(rows.tolist(), truth.tolist(), strict=True)]
        path = self.folder / name
        path.write_text("\n".join(["numbers,target", *lines, *bad]) + "\n")
        return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, prefect_folder: Path) -> Iterator[Place]:
    folder = share_server(tmp_path_factory.mktemp("numbers"), prefect_folder)
    with commands(folder, PYTHONPATH=os.pathsep.join(map(str, (TOY, ROOT)))) as command:
        yield Place(folder, command)


@pytest.mark.timeout(600)
def test_a_workload_without_classes_goes_from_ingest_to_verdict(place: Place) -> None:
    told = place.run("ingest", place.table("first.csv", 0, BAD), "--batch", "first").document
    assert (told["arrived"], told["accepted"], told["quarantined"]) == (155, 150, 5)
    rules = {row["rule"]: row["n"] for row in place.query("SELECT rule, count(*) AS n FROM quarantine GROUP BY rule")}
    assert rules == {"not-numbers": 2, "bad-label": 2, "unknown-label": 1}
    first = place.run("retrain")
    assert first.status == 0, first.told()
    assert first.document["verdict"] == "promoted"
    assert first.document["cv"]["mean_absolute_error"]["mean"] < 0.5
    assert first.document["holdout"].keys() == {"mean_absolute_error", "root_mean_squared_error"}
    place.run("ingest", place.table("second.csv", 1, []), "--batch", "second")
    second = place.run("retrain")
    assert second.document["verdict"] in ("promoted", "refused")
    (against,) = (r for r in second.document["gate"] if r["rule"] == "against_champion")
    assert against["method"] == "paired bca bootstrap" and against["passed"] is True, against
    assert place.run("retrain").document["verdict"] == "unchanged"


def test_its_numbers_are_in_the_tables(place: Place) -> None:
    (found,) = place.query(
        "SELECT count(*) AS n, count(correct) AS judged, count(probability) AS sure, "
        "count(DISTINCT o.example_id) AS own, "
        "avg(abs(o.value)) FILTER (o.name = 'error') AS mean_absolute_error "
        "FROM predictions p JOIN outputs o USING (pipeline, run_id, example_id, split) "
        "WHERE split = 'holdout' AND run_id = (SELECT run_id FROM runs ORDER BY started_at LIMIT 1)"
    )
    first = place.run("runs").document[0]
    assert (found["judged"], found["sure"]) == (0, 0) and found["n"] == 2 * found["own"]
    (metric,) = place.query(
        "SELECT value FROM metrics WHERE split = 'holdout' AND metric = 'mean_absolute_error' "
        f"AND run_id = '{first['run_id']}'"
    )
    assert found["mean_absolute_error"] == pytest.approx(metric["value"])


def test_people_see_what_it_has_and_nothing_of_classes(place: Place) -> None:
    status = place.run("status").document
    assert status["metrics"].keys() == {"mean_absolute_error", "root_mean_squared_error"} and status["champion"]
    run = place.run("runs").document[-1]
    page = Path(run["report"]).read_text()
    assert "holdout mean_absolute_error" in page and "<svg" in page
    for word in ("onfusion", "alibration", "By class", "class shares", "accuracy"):
        assert word not in page, word
    card = next((place.folder / "store" / "models").rglob("model_card.md")).read_text()
    assert "a number out" in card and "class" not in card.replace("classification", "")
    told = place.run("explain")
    assert "mean_absolute_error" in told.out


def test_it_predicts_and_reproduces(place: Place) -> None:
    (place.folder / "one.numbers").write_text("1 0 0")
    (row,) = place.run("predict", "one.numbers").document
    assert float(row["label"]) == pytest.approx(2.0, abs=0.5) and row["probability"] is None and row["error"] is None
    run = place.run("runs").document[0]
    again = place.run("reproduce", run["run_id"], pipeline=False)
    assert again.status == 0 and again.document["equal"], again.told()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"classes": ["a", "b"]}, "has no classes"),
        ({"gate": [{"rule": "at_least", "metric": "accuracy", "value": 1}]}, "one of mean_absolute_error"),
        ({"gate": [{"rule": "slices"}]}, "not right or wrong"),
        ({"gate": [{"rule": "calibration", "value": 0.1}]}, "not right or wrong"),
    ],
)
def test_what_only_classes_have_is_refused_by_name(place: Place, change: dict[str, Any], told: str) -> None:
    (place.folder / "changed.yaml").write_text(yaml.safe_dump({**DOCUMENT, **change}))
    found = place.command("status", "changed.yaml", "--store", "store", "--json")
    assert found.status == 2 and told in json.loads(found.out)["error"]["expected"], found.told()

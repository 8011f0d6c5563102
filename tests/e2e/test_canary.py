"""A canary from outside: it waits with exit 5, answers its share, and its labels promote it or take it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from leptonflow.core import pipeline_files
from leptonflow.data.dataset import admission
from leptonflow.monitoring.prediction_log import PredictionLog
from leptonflow.storage.address import open_store
from serving.app import Options, create_app
from tests.e2e.helpers import call, good, ingest, pipeline, rows, working_folder
from tests.served_champions import until

GATE = [
    {"rule": "at_least", "metric": "accuracy", "value": 0.1, "on": "holdout"},
    {"rule": "against_champion", "metric": "accuracy", "margin": 1.0},
]
KEYS: dict[str, Any] = {"model": {"filters": [4], "dense": 4}, "gate": GATE}
CANARY = {"canary": {"share": 0.5, "promote_after": 20}}
WANTED = 24


@pytest.fixture
def work(tmp_path: Path, admission_tools: admission.Tools, prefect_folder: Path) -> Iterator[Path]:
    with working_folder(tmp_path / "work", prefect_folder) as folder:
        yield folder


def answers(client: TestClient, pictures: list[Path], canary: str) -> list[dict[str, Any]]:
    """The answers of the canary to so many requests that it has WANTED of them."""
    found: list[dict[str, Any]] = []
    number = 0
    while len(found) < WANTED:
        response = client.post("/v1/small/predict", content=pictures[number % len(pictures)].read_bytes())
        assert response.status_code == 200, response.text
        found += [row for row in response.json()["predictions"] if row["version"] == canary]
        number += 1
        assert number < 40 * WANTED
    return found


@pytest.mark.slow
def test_labels_promote_a_canary_or_take_it_back(work: Path) -> None:
    good(work / "source", ("cat", "dog"), 30)
    path = pipeline(work, **KEYS, training={"folds": 2, "epochs": 1}, serving=CANARY)
    ingest(path, work / "source")
    first = call("retrain", path, "--json")
    assert (first.status, first.document["verdict"]) == (0, "promoted"), first.told()  # there is no champion to beat
    assert call("canary", path, "--json").document["state"] is None

    for seed, right in ((1, False), (2, True)):
        training = {"folds": 2, "epochs": 1, "seed": seed}
        before, canary, decided = decide(work, pipeline(work, **KEYS, training=training, serving=CANARY), right)
        now = call("status", path, "--json").document["champion"]
        assert (decided["state"], now) == (("promoted", canary) if right else ("rejected", before)), decided
        (rule,) = [each for each in decided["gate"] if each["rule"] == "at_least"]
        assert (rule["value"], rule["passed"]) == ((1.0, True) if right else (0.0, False))
        assert call("canary", path, "--json").document == decided
    assert call("verify", path).status == 0


def decide(work: Path, path: Path, right: bool) -> tuple[str, str, dict[str, Any]]:
    """(the champion before, the canary, `canary --json` once its answers were labelled as it predicted, or never)."""
    champion = call("status", path, "--json").document["champion"]
    waits = call("retrain", path, "--json")
    assert waits.status == 5, waits.told()
    canary, sentence = waits.document["version"], waits.document["sentence"]
    assert sentence.startswith(f"waiting for labelled predictions to replace the champion {champion}")
    config, opened = pipeline_files.load_config(str(path)), open_store((work / ".leptonflow").as_uri())
    log = PredictionLog(opened, seconds=0.1)
    app = create_app(opened, [config], Options(poll=0.05, poll_candidates=0.05), log)
    with TestClient(app) as client:

        def state() -> Any:
            return client.get("/v1/small").json()

        until(lambda: state()["candidate"] == canary)
        assert (state()["version"], state()["share"]) == (champion, 0.5)
        found = answers(client, sorted((work / "source").rglob("*.png")), canary)
        other = {"cat": "dog", "dog": "cat"}
        labels = [
            {"request_id": row["request_id"], "label": row["label"] if right else other[row["label"]]} for row in found
        ]
        until(lambda: log.waiting == 0)
        assert client.post("/v1/small/labels", json={"labels": labels[:10]}).json()["accepted"] == 10
        few = call("canary", path, "--json").document
        assert (few["state"], few["labelled"], few["needed"]) == ("waiting", 10, 20)
        given = client.post("/v1/small/labels", json={"labels": labels[10:]})
        assert given.json()["accepted"] == len(labels) - 10
        decided = call("canary", path, "--json").document
        (shadows,) = rows(work / ".leptonflow", f"select count(*) as n from shadow where version = '{champion}'")
        assert shadows["n"] >= WANTED
        until(lambda: state()["candidate"] is None and state()["version"] == (canary if right else champion))
    return champion, canary, decided

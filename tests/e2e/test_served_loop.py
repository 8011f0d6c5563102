"""The loop on one machine: served, drifted, labelled, a batch, retrained, promoted, and the new version answers."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from leptonflow.core.pipeline_files import load_config
from leptonflow.data.dataset import admission
from leptonflow.monitoring.prediction_log import PredictionLog
from leptonflow.storage.address import open_store
from serving.app import create_app
from tests.e2e.helpers import call, ingest, pipeline, rows, working_folder
from tests.served_champions import until

HALVES = {"left": slice(0, 4), "right": slice(4, 8)}
GATE: list[dict[str, Any]] = [
    {"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.1, "confidence": 0.9},
    {"rule": "against_champion", "metric": "accuracy", "margin": 0.9},
]


@pytest.fixture
def work(tmp_path: Path, admission_tools: admission.Tools, prefect_folder: Path) -> Iterator[Path]:
    with working_folder(tmp_path / "work", prefect_folder) as folder:
        yield folder


def pictures(seed: int, count: int, least: int) -> list[tuple[str, bytes]]:
    """(label, PNG) of light at the left or at the right; least: how light the darkest is."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = list(HALVES)[number % 2]
        values = random.integers(least, least + 80, (8, 8), np.uint8)
        values[:, HALVES[label]] += np.uint8(70)
        sink = BytesIO()
        Image.fromarray(values).save(sink, "PNG")
        found.append((label, sink.getvalue()))
    return found


@pytest.mark.slow
def test_from_what_was_served_to_a_version_that_learned_from_it(work: Path) -> None:
    store = work / "store"
    path = pipeline(
        work, gate=GATE, model={"filters": [4, 8], "dense": 8}, training={"epochs": 3, "folds": 2},
        serving={"log_inputs": {"rate": 1.0}, "monitor": {"rows": 120}},
    )  # fmt: skip
    config = load_config(str(path))
    for number, (label, data) in enumerate(pictures(0, 400, 0)):
        (work / "in" / label).mkdir(parents=True, exist_ok=True)
        (work / "in" / label / f"{number}.png").write_bytes(data)
    assert ingest(path, work / "in", "--store", store)[0]["outcome"] == "accepted"
    first = call("retrain", path, "--store", store, "--json")
    assert first.status == 0, first.told()
    opened = open_store(str(store))
    log = PredictionLog(opened)
    with TestClient(create_app(opened, [config], log=log)) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        given = []
        for label, data in pictures(1, 120, 90):
            answer = client.post(f"/v1/{config.name}/predict", content=data, headers={"content-type": "image/png"})
            assert answer.status_code == 200, answer.text
            given.append({"request_id": answer.json()["predictions"][0]["request_id"], "label": label})
    assert (log.written, log.dropped) == (120, 0)
    with TestClient(create_app(opened, [config])) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        answered = client.post(f"/v1/{config.name}/labels", json={"labels": given}).json()
        assert (answered["accepted"], answered["refused"]) == (120, 0)

        looked = call("monitor", path, "--store", store, "--json")
        assert (looked.status, looked.document["verdict"]) == (3, "drift"), looked.told()
        assert looked.document["quality"][0]["n"] == 120
        assert "inputs" in {test["what"] for test in looked.document["tests"]}, "the server logs them"
        landed = call("labels", path, "--to-batch", "--store", store, "--json")
        assert (landed.status, landed.document["examples"]) == (0, 120), landed.told()
        second = call("retrain", path, "--store", store, "--json")
        assert second.status == 0, second.told()
        document = second.document
        assert (document["verdict"], document["batches"]) == ("promoted", [landed.document["batch"]])
        assert document["version"] != first.document["version"]
        assert sum(document["examples"].values()) == 520
        until(lambda: client.get(f"/v1/{config.name}").json()["version"] == document["version"])
    assert {row["version"] for row in rows(store, "SELECT version FROM labels")} == {first.document["version"]}

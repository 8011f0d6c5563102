"""`promotion` from outside: what the gate passed waits with exit 5, and a person decides against today's champion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leptonflow.data.dataset import admission
from tests.e2e.helpers import call, good, ingest, pipeline, rows, working_folder

GATE = [
    {"rule": "at_least", "metric": "accuracy", "value": 0.0},
    {"rule": "against_champion", "metric": "accuracy", "margin": 1.0},
]
KEYS: dict[str, Any] = {
    "training": {"folds": 2, "epochs": 1}, "model": {"filters": [4], "dense": 4}, "gate": GATE,
}  # fmt: skip


@pytest.fixture
def work(tmp_path: Path, admission_tools: admission.Tools, prefect_folder: Path) -> Iterator[Path]:
    with working_folder(tmp_path / "work", prefect_folder) as folder:
        yield folder


@pytest.mark.slow
def test_a_candidate_waits_and_a_person_promotes_it(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEPTONFLOW_USER", "ana")
    good(work / "source", ("cat", "dog"), 30)
    path, store = pipeline(work, **KEYS, promotion={"approve": ["ana"]}), work / ".leptonflow"
    ingest(path, work / "source")
    waits = call("retrain", path, "--json")
    assert waits.status == 5, waits.told()
    first = waits.document
    assert (first["verdict"], first["champion"], first["approval"]["state"]) == ("waiting", None, "waiting")
    assert first["sentence"].startswith("waiting for approval to be the first champion: ")
    again = call("retrain", path, "--json")
    assert (again.status, again.document["verdict"], again.document["run_id"]) == (5, "waiting", first["run_id"])
    assert rows(store, "select count(*) as runs from runs") == [{"runs": 1}]
    assert f"approve {path} {first['run_id']}" in call("retrain", path).out
    assert f"run {first['run_id']} is waiting for approval until" in " ".join(call("status", path).out.split())

    monkeypatch.setenv("LEPTONFLOW_USER", "eve")
    assert call("approve", path, first["run_id"]).status == 2
    monkeypatch.setenv("LEPTONFLOW_USER", "ana")
    approved = call("approve", path, first["run_id"], "--reason", "looks right", "--json")
    assert approved.status == 0, approved.told()
    assert (approved.document["outcome"], approved.document["champion"]) == ("promoted", first["version"])
    (record,) = call("history", path, "--json").document
    assert (record["kind"], record["who"], record["run_id"]) == ("promotion", "ana", first["run_id"])
    assert "approved by ana: looks right" in call("explain", path).out
    assert call("retrain", path, "--json").document["verdict"] == "unchanged"
    assert call("verify", path).status == 0
    pipeline(work, **KEYS)  # without the section the same run is known, by the same id
    assert call("retrain", path, "--json").document["run_id"] == first["run_id"]


@pytest.mark.slow
def test_a_wait_expires_and_the_gate_decides_again_where_the_champion_changed(work: Path) -> None:
    good(work / "source", ("cat", "dog"), 30)
    ingest(pipeline(work, **KEYS), work / "source")
    path = pipeline(work, **KEYS, promotion={"approve": "none", "timeout": 1e-6})
    first = call("retrain", path, "--json")
    assert first.status == 5, first.told()
    expired = call("approve", path, first.document["run_id"])
    assert expired.status == 1 and "expired" in expired.err
    (told,) = call("runs", path, "--json").document
    assert (told["verdict"], told["approval"]["state"]) == ("expired", "expired")
    again = call("retrain", path, "--json")
    assert (again.status, again.document["verdict"]) == (0, "unchanged") and "expired" in again.document["sentence"]

    pipeline(work, **KEYS, promotion={"approve": "none"})
    same = call("retrain", path, "--force", "--json").document
    assert call("promote", path, "--version", first.document["version"], "--reason", "urgent").status == 0
    refused = call("approve", path, same["run_id"], "--json")  # the champion of today predicts the same
    assert (refused.status, refused.document["outcome"]) == (4, "refused"), refused.told()
    assert [row["rule"] for row in refused.document["gate"] if row["passed"] is False] == ["same-predictions"]

    good(work / "more", ("cat", "dog"), 30, first=100)
    ingest(path, work / "more")
    waits = call("retrain", path, "--json").document
    assert waits["verdict"] == "waiting" and waits["version"] != same["version"]
    assert call("promote", path, "--version", same["version"], "--reason", "urgent again").status == 0
    approved = call("approve", path, waits["run_id"], "--json")
    assert approved.status == 0, approved.told()
    document = approved.document
    assert (document["champion"], document["record"]["previous"]) == (waits["version"], same["version"])
    assert [row["passed"] for row in document["gate"] if row["rule"] == "against_champion"] == [True]
    assert call("verify", path).status == 0

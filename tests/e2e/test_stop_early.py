"""`stop_early_if` from outside: a hopeless candidate ends as refused by its first folds, and is not tried again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leptonflow.data.dataset import admission
from tests.e2e.helpers import call, good, ingest, pipeline, rows, working_folder


@pytest.fixture
def work(tmp_path: Path, admission_tools: admission.Tools, prefect_folder: Path) -> Iterator[Path]:
    with working_folder(tmp_path / "work", prefect_folder) as folder:
        yield folder


@pytest.mark.slow
def test_a_hopeless_candidate_is_refused_by_its_first_folds(work: Path) -> None:
    good(work / "source", ("cat", "dog"), 30)
    keys: dict[str, Any] = {"training": {"folds": 5, "epochs": 1}, "model": {"filters": [4], "dense": 4}}
    path = pipeline(work, **keys, stop_early_if={"metric": "accuracy", "below": 9})  # no candidate ever passes it
    store = work / ".leptonflow"
    ingest(path, work / "source")
    refused = call("retrain", path, "--json")
    assert refused.status == 4, refused.told()
    document = refused.document
    assert (document["verdict"], document["version"], document["champion"]) == ("refused", None, None)
    assert not [*(store / "scratch").rglob("*.*")]  # what the fold left that was ended
    assert len(document["cv"]["accuracy"]["folds"]) == 3 and document["gate"][0]["rule"] == "stop_early_if"
    assert Path(document["report"]).read_text().count("<tr>") >= 4

    again = call("retrain", path, "--json")
    assert (again.status, again.document["verdict"]) == (0, "unchanged")
    assert "was stopped early before" in again.err
    assert "stopped early" in call("explain", path).out
    assert "stop_early_if" in call("runs", path).out
    assert call("status", path).status == 0 and call("models", path).status == 0
    assert call("verify", path).status == 0
    assert rows(store, "select verdict, version is null as without from runs") == [
        {"verdict": "refused", "without": False}
    ]
    assert [row["rule"] for row in rows(store, "select rule from verdicts")] == ["stop_early_if"]

    pipeline(work, **keys)  # without it, the folds that are there are used again
    result = call("retrain", path, "--json")
    assert (result.status, result.document["verdict"]) == (0, "promoted"), result.told()
    assert result.document["cv"]["accuracy"]["folds"][:3] == document["cv"]["accuracy"]["folds"]
    counted = "select count(distinct fold) as folds, count(*) as rows from folds where metric = 'accuracy'"
    assert rows(store, counted) == [{"folds": 5, "rows": 5}]
    assert call("verify", path).status == 0

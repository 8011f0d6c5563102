"""Stores that earlier releases made (tests/stores/): this one reads them and goes on with them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leptonflow.data.dataset import admission
from tests.e2e.helpers import Result, call, ingest, rows, working_folder

STORES = sorted((Path(__file__).parent.parent / "stores").glob("*.tar.gz"))


class Earlier:
    """One such store, unpacked, with the YAML and the sources that it was made with."""

    def __init__(self, archive: Path, folder: Path) -> None:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        self.folder, self.yaml, self.store = folder, folder / "pets.yaml", folder / "store"
        self.identity: dict[str, Any] = json.loads((self.store / "store.json").read_bytes())

    def __call__(self, name: str, *arguments: object) -> Any:
        result = self.raw(name, *arguments)
        assert result.status == 0, result.told()
        return result.document

    def raw(self, name: str, *arguments: object) -> Result:
        return call(name, self.yaml, *arguments, "--store", self.store, "--json")

    def ingest(self, source: Path, *arguments: object) -> dict[str, Any]:
        return ingest(self.yaml, source, *arguments, "--store", self.store)[0]


@pytest.fixture(scope="module")
def work(
    tmp_path_factory: pytest.TempPathFactory, admission_tools: admission.Tools, prefect_folder: Path
) -> Iterator[Path]:
    with working_folder(tmp_path_factory.mktemp("work"), prefect_folder) as folder:
        yield folder


@pytest.fixture(params=STORES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def earlier(request: pytest.FixtureRequest, work: Path, tmp_path: Path) -> Earlier:
    return Earlier(request.param, tmp_path)


def test_is_read(earlier: Earlier) -> None:
    """status, models, history, predict and query say what they said then, and rollback still goes back."""
    status = earlier("status")
    assert (status["damage"], status["examples"], status["batches"]) == (None, 94, ["first", "second", "third"])
    history = earlier("history")
    assert status["champion"] in {row["version"] for row in history}
    models = earlier("models")
    assert [m["damage"] for m in models] == [None] * 4
    assert earlier("verify")["damaged"] == []
    (said,) = earlier("predict", earlier.folder / "first" / "cat" / "colour.png")
    assert said["label"] in ("cat", "dog")
    assert len(rows(earlier.store, "select * from predictions where split = 'holdout'")) > 50
    assert rows(earlier.store, "select count(*) as n from quarantine where batch = 'bad'") == [{"n": 5}]
    before = status["champion"]
    assert json.loads((earlier.store / "store.json").read_bytes()) == earlier.identity  # a read changes nothing
    assert earlier("rollback", "--reason", "a test")["champion"] != before
    assert json.loads((earlier.store / "store.json").read_bytes()) == {**earlier.identity, "format": 2}


@pytest.mark.slow
def test_goes_on(earlier: Earlier) -> None:
    """What it ingested is known, the old champion is compared on what it never learned from, a run is reproduced."""
    again = earlier.ingest(earlier.folder / "first", "--batch", "again")
    assert (again["accepted"], again["quarantined"], again["known"]) == (0, 1, 76)
    run = earlier("runs")[-1]
    trained = earlier.raw("retrain")
    assert trained.status in (0, 4), trained.told()
    (scored,) = (earlier.store / "runs" / "pets" / trained.document["run_id"]).glob("evaluation-*.json")
    evaluation = json.loads(scored.read_text())
    assert evaluation["champion"] is not None and evaluation["not_comparable"] is None
    assert evaluation["champion_scores"]["examples"] == trained.document["examples"]["holdout"] < 21
    assert call("reproduce", run["run_id"], "--store", earlier.store, "--json").status in (0, 1)

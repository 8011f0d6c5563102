"""`retrain` with each runner of fits: the same version, the same folds, the same metrics as in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leptonflow.data.dataset import admission
from tests.e2e.helpers import call, good, ingest, pipeline, rows, working_folder

TRAINING: dict[str, Any] = {"folds": 3, "epochs": 2}
OWN = """
import keras
from pathlib import Path

def build(input, classes):
    print("built by the user")
    units = int((Path(__file__).parent / "units.txt").read_text())
    layers = keras.layers
    return keras.Sequential([
        layers.Input(input), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(units, "relu"),
        layers.Dense(len(classes), "softmax"),
    ])
"""


@pytest.fixture(scope="module")
def work(
    tmp_path_factory: pytest.TempPathFactory, admission_tools: admission.Tools, prefect_folder: Path
) -> Iterator[Path]:
    with working_folder(tmp_path_factory.mktemp("work"), prefect_folder) as folder:
        good(folder / "source", ("cat", "dog"), 40)
        (folder / "mine.py").write_text(OWN)
        (folder / "units.txt").write_text("8")
        yield folder


def retrained(work: Path, store: str, runner: Any) -> dict[str, Any]:
    """The document of a run on a store of its own, with what its folds have."""
    model = {"function": "mine:build", "files": ["units.txt"]}
    path = pipeline(work, model=model, training={**TRAINING, **({"runner": runner} if runner else {})})
    ingest(path, work / "source", "--store", work / store)
    result = call("retrain", path, "--store", work / store, "--json")
    assert result.status == 0, result.told()
    assert "built by the user" not in result.out
    document = dict(result.document)
    document["curves"] = rows(work / store, "select fold, epoch, metric, value from epochs order by all")
    return document


@pytest.fixture(scope="module")
def local(work: Path) -> dict[str, Any]:
    return retrained(work, "local", None)


def same(mine: dict[str, Any], local: dict[str, Any]) -> None:
    for key in ("run_id", "version", "verdict", "cv", "holdout", "curves"):
        assert mine[key] == local[key]


@pytest.mark.slow
def test_folds_in_processes_of_their_own_are_those_of_one_process(work: Path, local: dict[str, Any]) -> None:
    same(retrained(work, "process", {"name": "process", "memory": "100MB"}), local)

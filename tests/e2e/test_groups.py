"""A pipeline with groups from ingest to verdict: a table with a column of groups, a folder with a pattern of names."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leptonflow.data.dataset import admission
from tests.e2e.helpers import call, ingest, pipeline, rows, working_folder
from tests.texts import CLASSES, sample

SPEAKERS = [f"speaker{number}" for number in range(14)]


@pytest.fixture(scope="module")
def work(
    tmp_path_factory: pytest.TempPathFactory, admission_tools: admission.Tools, prefect_folder: Path
) -> Iterator[Path]:
    with working_folder(tmp_path_factory.mktemp("work"), prefect_folder) as folder:
        yield folder


def table(folder: Path, seed: int) -> Path:
    """Texts of all classes by each speaker."""
    folder.mkdir(parents=True)
    texts, labels = sample(168, seed=seed)
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label", "speaker"))
        for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
            writer.writerow((text, CLASSES[label], SPEAKERS[number // 3 % 14]))
    return folder / "t.csv"


def pictures(folder: Path, seed: int) -> Path:
    """Light at the left or at the right, 6 takes of each class by each speaker."""
    chance = np.random.default_rng(seed)
    for label, half in (("left", slice(0, 4)), ("right", slice(4, 8))):
        (folder / label).mkdir(parents=True)
        for speaker in SPEAKERS:
            for take in range(6):
                values = chance.integers(0, 120, (8, 8), np.uint8)
                values[:, half] += np.uint8(100)
                Image.fromarray(values).save(folder / label / f"{label}_{speaker}_{take}.png")
    return folder


GATE: list[dict[str, Any]] = [
    {"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.1, "confidence": 0.9},
    {"rule": "against_champion", "metric": "accuracy", "margin": 0.9},
]
SOURCES: dict[str, tuple[Any, dict[str, Any]]] = {
    "table": (
        table,
        {
            "workload": "text_classification", "input": {"length": 16, "vocabulary": 200}, "group": "speaker",
            "model": {"kind": "bag", "embedding": 8, "pairs": 0}, "training": {"epochs": 4, "folds": 2},
        },
    ),
    "folder": (
        pictures,
        {
            "input": [8, 8, 1], "group": {"pattern": "{label}_{speaker}_{take}.png", "field": "speaker"},
            "model": {"filters": [4], "dense": 8}, "training": {"epochs": 2, "folds": 2},
        },
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "batches"), [("table", 1), ("folder", 2)])
def test_from_ingest_to_a_verdict_that_speaks_of_groups(kind: str, batches: int, work: Path) -> None:
    make, keys = SOURCES[kind]
    folder = work / kind
    yaml, store = pipeline(folder, **keys, holdout={"fraction": 0.4}, gate=GATE), folder / "store"
    sides: dict[str, str] = {}
    for number in range(batches):
        landed, _ = ingest(yaml, make(folder / f"b{number}", number), "--store", store)
        assert landed["outcome"] == "accepted" and landed["quarantined"] == 0, landed
        result = call("retrain", yaml, "--store", store, "--json")
        assert result.status in (0, 4), result.told()
        run = result.document
        assert sum(run["groups"].values()) == len(SPEAKERS)
        found = rows(store, f"select * from predictions where version = '{run['version']}'")
        now = {row["example_group"]: row["split"] for row in found}
        assert all(row["example_group"] == speaker_of(kind, row["source"]) for row in found)
        assert sides.items() <= now.items()  # no group has changed its side
        sides = now
        folds: dict[str, set[int]] = {}
        for row in found:
            folds.setdefault(row["example_group"], set()).add(row["fold"])
        assert all(len(each) == 1 for each in folds.values())
    told = {row["rule"]: row for row in run["gate"]}
    over = f"by the cluster bootstrap over {run['groups']['holdout']} groups"
    assert over in told["at_least"]["sentence"] and told["at_least"]["method"] == "cluster bca bootstrap"
    assert batches == 1 or over in told["against_champion"]["sentence"]
    explained = call("explain", yaml, "--store", store, "--json").document
    assert explained["groups"] == run["groups"]
    assert f"are {run['groups']['holdout']} groups, which every test resamples" in explained["paragraph"]
    page = Path(run["report"]).read_text(encoding="utf-8")
    assert f"over their {run['groups']['holdout']} groups" in page
    simulated = call("gate", yaml, "--simulate", "--discordance", "0.1", "--store", store, "--json").document
    assert "several belong to one group" in simulated["assumption"]
    assert sorted(sides) == sorted(SPEAKERS)
    assert sum(side == "holdout" for side in sides.values()) == run["groups"]["holdout"]


def speaker_of(kind: str, source: str) -> str:
    if kind == "folder":
        return source.split("_")[1]
    number = int(source.rpartition("[")[2].rstrip("]"))
    return SPEAKERS[number // 3 % 14]

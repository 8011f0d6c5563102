"""A pipeline, its data and its store in one folder, and what every command's answer is held against.

What does not belong here: what a single test changes there.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.helpers import Result, call, pipeline

EACH = 45
KEYS: dict[str, Any] = {
    "input": [14, 14, 1],
    "model": {"filters": [8], "dense": 16},
    "training": {"epochs": 2, "batch_size": 8, "folds": 2, "learning_rate": 0.005},
    "holdout": {"fraction": 0.25},
    "gate": [
        {"rule": "at_least", "metric": "accuracy", "value": 0.5},
        {"rule": "at_most", "metric": "log_loss", "on": "holdout", "value": 5.0},
        {"rule": "fold_spread", "metric": "accuracy", "value": 0.7},
        {"rule": "against_champion", "metric": "accuracy", "margin": 1.0},
    ],
}
RETRAIN = {
    "run_id", "verdict", "version", "champion", "snapshot", "batches", "examples", "cv", "holdout", "gate", "report",
    "seconds",
}  # fmt: skip
ALWAYS = {"infra_validate", "same-predictions", "stale-snapshot", "rolled-back"}  # in every verdict, never in a YAML
HEAVY = {"tensorflow", "keras", "great_expectations", "prefect", "duckdb", "sklearn", "pandas"}

COLUMNS = {
    "batches": "batch contract outcome arrived accepted quarantined known ignored snapshot at",
    "quarantine": "batch source rule reason",
    "runs": "run_id version verdict snapshot started_at finished_at seconds",
    "folds": "run_id version fold metric value",
    "epochs": "run_id version fold epoch metric value seconds",
    "predictions": "run_id version split fold example_id label predicted probability source correct example_group",
    "verdicts": "run_id version rule metric value bound passed sentence",
    "models": "version run_id manifest_sha256 bytes created_at",
    "promotions": "number version previous run_id kind who reason at",
    "validations": "batch contract",
    "snapshots": "snapshot",
}


@dataclass(frozen=True)
class Place:
    """A folder with a pipeline, its data and its store; `told` are the answers that led here."""

    folder: Path
    told: dict[str, Any]

    @property
    def yaml(self) -> Path:
        return self.folder / "p" / "small.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def __call__(self, name: str, *arguments: object) -> Result:
        """A command on this pipeline and store, with --json."""
        return call(name, self.yaml, *arguments, "--store", self.store, "--json")

    def configure(self, **keys: Any) -> None:
        pipeline(self.folder / "p", **{**KEYS, **keys})

    def history(self) -> list[dict[str, Any]]:
        return list(self("history").document)


def moved(place: Place, folder: Path) -> Place:
    """A copy of the place under another path."""
    folder.mkdir()
    for name in ("p", "store"):
        shutil.copytree(place.folder / name, folder / name)
    return Place(folder, dict(place.told))


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def retrained(result: Result, status: int) -> dict[str, Any]:
    assert result.status == status, result.told()
    assert set(result.document) >= RETRAIN
    return dict(result.document)

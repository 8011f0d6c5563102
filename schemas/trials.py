"""What a study leaves on the store: what it is about, and one record for each trial.

How the next trial is chosen does not belong here (leptonflow.tuning).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Study(BaseModel):
    """studies/<pipeline>/<study>/study.json. The id follows from all that makes two trials comparable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    study: str
    version: str  # of the YAML as it is, on this snapshot and with this code
    snapshot: str
    metric: str
    higher_is_better: bool
    folds: int
    ranges: dict[str, Any]  # as the YAML has them
    created_at: str


class Trial(BaseModel):
    """studies/<pipeline>/<study>/trials/<number>.json, written when the trial is over.

    parameters  the values that were tried, by their keys; the first trial has those of the YAML
    version     that a `retrain` with them trains: the folds are its folds
    values      the metric of each fold that was trained; null where a fold has none
    value, std  their mean and sample standard deviation
    sentence    why it was pruned or failed
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    study: str
    number: int  # from 1
    state: Literal["complete", "pruned", "failed"]
    parameters: dict[str, Any]
    version: str | None
    values: tuple[float | None, ...]
    value: float | None
    std: float | None
    sentence: str | None
    started_at: str
    finished_at: str
    seconds: float

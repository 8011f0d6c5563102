"""How good a version is on the holdout by the newest run that evaluated it: as the candidate or as the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.core import store_keys
from leptonflow.storage.objects import parsed, read_model
from leptonflow.storage.store import Store
from schemas.records import Evaluation


def newest(
    store: Store, pipeline: str, version: str, finished: Sequence[Mapping[str, Any]]
) -> dict[str, float | None] | None:
    """The version's metrics; None where no run evaluated it. finished: the runs' documents, newest last.

    Raises Damaged where an evaluation cannot be read.
    """
    for run in reversed(finished):
        if run["version"] == version and run["holdout"] is not None:
            return dict(run["holdout"])
        found = last_evaluation(store, pipeline, run["run_id"])
        if found is not None and found.champion_scores is not None and found.champion_scores.version == version:
            return dict(found.champion_scores.metrics)
    return None


def last_evaluation(store: Store, pipeline: str, run_id: str) -> Evaluation | None:
    """The run's; None where it was stopped before it had one. Raises Damaged."""
    prefix = store_keys.run_key(pipeline, run_id, "evaluation-")
    keys = [key for key in store.keys(store_keys.run_folder(pipeline, run_id)) if key.startswith(prefix)]
    if not keys:
        return None
    last = max(keys, key=lambda key: (len(key), key))  # evaluation-10 after evaluation-9
    return parsed(store, last, lambda data: read_model(Evaluation, last, data, "the evaluation of a run"))

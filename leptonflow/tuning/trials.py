"""One trial: the folds of a version with other values, one after another, until they are done or it is given up.

The folds are those that a `retrain` with these values would train, and lie on the store as its folds. The holdout is
never read. What does not belong here: which values are tried (search_space).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from leptonflow.core import clock, deadlines, declared_files
from leptonflow.core.code_digests import code_digests
from leptonflow.data.dataset import holdout_split
from leptonflow.keras_runtime import keras_models
from leptonflow.runs import planning
from leptonflow.storage.store import Store
from leptonflow.training import checkpoints, model_fits
from leptonflow.training.workspace import Workspace
from schemas import tuning
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, TimeLimit, TrainingError
from schemas.records import Plan
from schemas.text import counted
from schemas.trials import Study, Trial

FIRST = 1  # the trial of the YAML as it is


def changed(config: Pipeline, parameters: Mapping[str, Any]) -> Pipeline:
    """The pipeline with these values."""
    made = tuning.changed(parameters, config.training, config.model)
    return config.model_copy(update={"training": made.training, "model": made.model})


def run(
    store: Store,
    config: Pipeline,
    plan: Plan,
    study: Study,
    number: int,
    parameters: Mapping[str, Any],
    hopeless: Callable[[int, float], bool],
    workspace: Workspace,
) -> Trial:
    """Train the folds with these values. What diverges, cannot be built or needs too much memory is a failed trial.

    Raises ConfigurationError where the first trial, of the YAML as it is, cannot be trained.
    """
    began, started_at = time.perf_counter(), clock.now()
    values: list[float | None] = []
    state, sentence, version = "complete", None, None
    try:
        mine = config if number == FIRST else changed(config, parameters)
        holdout_split.check_step(mine)
        plan = _plan(mine, plan)
        version = plan.version
        with deadlines.within(deadlines.start(mine, "train")):
            for fold in range(study.folds):
                values.append(model_fits.train_fold(store, mine, plan, fold, workspace).metrics[study.metric])
                mean = _mean(values)
                last = fold == study.folds - 1
                if mean is not None and hopeless(fold, mean) and not last:
                    state, sentence = "pruned", f"worse than the median after {counted(fold + 1, 'fold')}"
                    break
        if state == "complete" and _mean(values) is None:
            state, sentence = "failed", f"{study.metric} has no value in any fold"
    except (ConfigurationError, TrainingError, TimeLimit) as error:
        if number == FIRST and isinstance(error, ConfigurationError):
            raise
        state, sentence = "failed", error.line()
    except ValidationError as error:  # each value is valid, but not beside the others
        state, sentence = "failed", str(error.errors(include_url=False)[0]["msg"])
    finally:
        keras_models.keras().utils.clear_session()  # else each trial's graphs stay in memory
    if version is not None:
        checkpoints.sweep_folds(store, config.name, version, study.folds)
    known = [value for value in values if value is not None]
    return Trial(
        pipeline=config.name,
        study=study.study,
        number=number,
        state=state,  # type: ignore[arg-type]
        parameters=dict(parameters),
        version=version,
        values=tuple(values),
        value=_mean(values),
        std=statistics.stdev(known) if len(known) > 1 else None,
        sentence=sentence,
        started_at=started_at,
        finished_at=clock.now(),
        seconds=time.perf_counter() - began,
    )


def _plan(config: Pipeline, plan: Plan) -> Plan:
    """The plan of the version with these values, on the same snapshot."""
    _, snapshot = model_fits.planned(plan)
    files = declared_files.digests(config)
    version, run_id = planning.ids(config, snapshot, code_digests(config), 0, files, plan.start)
    return plan.model_copy(update={"attempt": 0, "version": version, "run_id": run_id})


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None

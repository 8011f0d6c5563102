"""A study's records on the store: which study it is, and its trials, each created once when it is over.

What does not belong here: what a trial tries (search_space) and what it does (trials).
"""

from __future__ import annotations

from typing import Any

from leptonflow.core import clock, store_keys
from leptonflow.core.hashing import canonical, digest, short
from leptonflow.storage.objects import adopt, read_model, read_models
from leptonflow.storage.store import Store
from leptonflow.training.model_fits import planned
from schemas.config import Pipeline
from schemas.errors import AlreadyExists
from schemas.records import Plan
from schemas.trials import Study, Trial
from schemas.workloads import SECTIONS, lower_is_better


def metric(config: Pipeline) -> str:
    """What is best in the study of this pipeline."""
    return str(config.tune.metric or SECTIONS[config.workload].metrics.names[0])


def begin(store: Store, config: Pipeline, plan: Plan) -> Study:
    """The study of these ranges around the plan's version; what lies there is adopted."""
    version, snapshot = planned(plan)
    ranges = {key: _as_yaml(each) for key, each in config.tune.ranges.items()}
    name = short(digest("study", version, ranges, metric(config)))
    mine = Study(
        pipeline=config.name, study=name, version=version, snapshot=snapshot.snapshot, metric=metric(config),
        higher_is_better=not lower_is_better(metric(config).partition("[")[0]), folds=config.training.folds,
        ranges=ranges, created_at=clock.now(),
    )  # fmt: skip
    key = store_keys.study_key(config.name, name, "study.json")
    found = read_model(Study, key, adopt(store, key, canonical(mine)), "the record of a study")
    return found.model_copy(update={"ranges": ranges})  # in the order of the YAML, which no record keeps


def trials(store: Store, study: Study) -> list[Trial]:
    """In the order of their numbers, their parameters in that of the study's ranges. Raises Damaged."""
    keys = sorted(store.keys(store_keys.trials_folder(study.pipeline, study.study)))
    read = read_models(store, Trial, keys, "the record of a trial")
    return [trial.model_copy(update={"parameters": _in_order(trial.parameters, study)}) for trial in read]


def record(store: Store, trial: Trial) -> bool:
    """Whether the trial is on record now; False where another process has recorded one of that number."""
    try:
        store.create(store_keys.trial_key(trial.pipeline, trial.study, trial.number), canonical(trial))
    except AlreadyExists:
        return False
    return True


def best(study: Study, found: list[Trial]) -> Trial | None:
    """The best complete trial, the first of equal ones."""
    complete = [trial for trial in found if trial.state == "complete" and trial.value is not None]
    sign = -1 if study.higher_is_better else 1
    return min(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


def _in_order(parameters: dict[str, Any], study: Study) -> dict[str, Any]:
    return {key: parameters[key] for key in study.ranges if key in parameters}


def _as_yaml(each: Any) -> Any:
    if hasattr(each, "choices"):
        return {"choices": list(each.choices)}
    return [each.low, each.high, *(["log"] if each.log else [])]

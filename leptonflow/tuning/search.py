"""`leptonflow tune`: trial after trial until there are as many as wanted, then the best of them and a page.

A study goes on from what lies on the store, wherever it was begun. What does not belong here: what a trial tries
(search_space) and does (trials), and the YAML (tuned_yaml).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.core import progress, store_keys
from leptonflow.data.dataset import holdout_split
from leptonflow.reports import study_page
from leptonflow.runs import planning
from leptonflow.storage.objects import adopt, location
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import upgrade
from leptonflow.training.model_fits import planned
from leptonflow.training.workspace import Workspace
from leptonflow.tuning import search_space, study_records, trials
from schemas import tuning
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, TrainingError
from schemas.records import Plan
from schemas.text import counted
from schemas.trials import Study, Trial


def tune(store: Store, config: Pipeline, wanted: int, seconds: float | None = None) -> tuple[dict[str, Any], Trial]:
    """(the document, the best trial) of the study, once it has `wanted` trials; no trial starts after `seconds`.

    Raises ConfigurationError without a section `tune` and where the user's code or files change meanwhile,
    TrainingError where there is nothing to train on and where no trial is complete.
    """
    if config.tune is None:
        raise ConfigurationError(
            f"the YAML of {config.name} does not say what to tune", expected="a section tune", received="none",
            hint="Such as tune: {learning_rate: [1e-4, 1e-2, log]}; docs/tuning.md has more",
        )  # fmt: skip
    upgrade(store)
    workspace = Workspace()
    workspace.check_own_files(config)  # before the ids that follow from them
    plan = _ready(store, config)
    study = study_records.begin(store, config, plan)
    ends = None if seconds is None else time.monotonic() + seconds
    done = study_records.trials(store, study)
    if len(done) >= wanted:
        progress.note(f"the study {study.study} has {counted(len(done), 'trial')} already: nothing is trained")
    elif done:
        progress.note(f"the study {study.study} goes on after {counted(len(done), 'trial')}")
    while len(done) < wanted and (ends is None or time.monotonic() < ends):
        workspace = workspace.for_other_values()
        trial = _next(store, config, plan, study, done, workspace)
        workspace.check_own_files(config)  # a trial of others is not one of this study
        if study_records.record(store, trial):
            done.append(trial)
            progress.note(_line(study, trial, done, wanted))
        else:
            done = study_records.trials(store, study)
    best = study_records.best(study, done)
    where = store_keys.study_key(config.name, study.study, f"report-{len(done):08d}.html")
    adopt(store, where, study_page.render(study, done, best))
    if best is None:
        raise TrainingError(
            f"no trial of the study {study.study} is complete", expected="at least one",
            received=f"{counted(len(done), 'trial')}; the last: {done[-1].sentence if done else 'none'}",
            hint="Give more --trials or a longer --timeout, or change the ranges in the section tune",
        )  # fmt: skip
    return _document(store, study, done, best, where), best


def _ready(store: Store, config: Pipeline) -> Plan:
    """The plan of the YAML as it is. Raises TrainingError where its data cannot be trained on."""
    plan = planning.plan(store, config)
    _, snapshot = planned(plan)
    if plan.waiting:
        pending = counted(len(plan.waiting), "pending batch", "pending batches")
        progress.note(f"without {pending}, which `retrain` ingests")
    parts = holdout_split.split(store, config, snapshot)
    if parts.rejected:
        raise TrainingError("the dataset cannot be trained on", received=parts.rejected)
    for warning in parts.warnings:
        progress.note(warning)
    return plan


def _next(
    store: Store, config: Pipeline, plan: Plan, study: Study, done: Sequence[Trial], workspace: Workspace
) -> Trial:
    number = len(done) + 1
    if number == trials.FIRST:
        own = {key: tuning.current(key, config.training, config.model) for key in config.tune.ranges}
        return trials.run(store, config, plan, study, number, own, lambda fold, mean: False, workspace)
    found = search_space.suggestion(study, config, done)
    return trials.run(store, config, plan, study, number, found.parameters, found.hopeless, workspace)


def _line(study: Study, trial: Trial, done: list[Trial], wanted: int) -> str:
    tried = "the YAML as it is" if trial.number == trials.FIRST else told(trial.parameters)
    best = study_records.best(study, done)
    value = "no value" if trial.value is None else f"{trial.value:.4f}"
    outcome = f"{study.metric} {value}" if trial.state == "complete" else f"{trial.state}, {trial.sentence}"
    so_far = "" if best is None else f"; the best is trial {best.number}, {best.value:.4f}"
    return f"trial {trial.number} of {wanted}: {outcome}, {trial.seconds:.1f} s, {tried}{so_far}"


def told(parameters: Mapping[str, Any]) -> str:
    """The values in one line."""
    return ", ".join(f"{key} {study_page.text(value)}" for key, value in parameters.items())


def _document(store: Store, study: Study, done: Sequence[Trial], best: Trial, where: str) -> dict[str, Any]:
    first = next((trial for trial in done if trial.number == trials.FIRST), None)
    return {
        "pipeline": study.pipeline,
        "study": study.study,
        "snapshot": study.snapshot,
        "metric": study.metric,
        "trials": [trial.model_dump(mode="json", exclude={"pipeline", "study"}) for trial in done],
        "default": first.value if first is not None else None,
        "best": best.model_dump(mode="json", exclude={"pipeline", "study", "state", "sentence"}),
        "seconds": sum(trial.seconds for trial in done),
        "report": location(store, where),
    }

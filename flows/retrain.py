"""The retraining flow: its stages in order, its branches, its fan-out. What a stage does is the engine's.

discover -> validate -> preprocess -> split -> train folds -> fit final -> package
-> evaluate -> infra-validate -> gate -> promote -> record

It needs a Prefect API: `flows.running` brings one in a terminal, a worker has its own.
"""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.steps import Steps
from leptonflow import infra, locking
from leptonflow.planning import load_config
from leptonflow.store import open_store
from schemas.errors import Overtaken
from schemas.records import Outcome
from schemas.settings import store_uri
from tasks.begin import begin
from tasks.discover import discover
from tasks.evaluate import evaluate, find_champion
from tasks.gate import gate
from tasks.infra_validate import infra_validate
from tasks.package import package
from tasks.preprocess import preprocess
from tasks.promote import promote
from tasks.record import record, reject_data, unchanged
from tasks.split import split
from tasks.train import fit_final, train_fold
from tasks.validate import validate

ATTEMPTS = 3  # to weigh the candidate, each against the champion that somebody else has just made


# One fold at a time: seeds and graphs belong to the process. A runner with a process for each may take more.
@flow(name="retrain", task_runner=ThreadPoolTaskRunner(max_workers=1), persist_result=False)  # type: ignore[arg-type]
def retrain(pipeline: str, store: str | None = None, force: bool = False) -> State[dict[str, Any]]:
    """Ingest what waits, train, weigh, and promote only on evidence.

    pipeline  a name under pipelines/, or a path to a YAML
    store     a store's URI, else LEPTONFLOW_STORE, else ./.leptonflow
    force     a new attempt although nothing is new

    The final state is named by the verdict; its data is the document of `leptonflow retrain --json`.
    """
    step = Steps(store_uri(store), load_config(pipeline))
    with locking.one_at_a_time(open_store(step.store), step.config.name):
        return _stages(step, force)


def _stages(step: Steps, force: bool) -> State[dict[str, Any]]:
    plan = step(discover, force)
    outcomes = [step(validate, batch) for batch in plan.waiting]
    if plan.snapshot is None and all(outcome.outcome == "refused" for outcome in outcomes):
        return _completed(step(reject_data, plan, None, outcomes, step.seconds))
    snapshot = step(preprocess)
    plan = step(discover, force)  # again: the ids follow from what was accepted
    if plan.finished:
        if _all_refused(outcomes):
            return _completed(step(reject_data, plan, None, outcomes, step.seconds))
        return _completed(step(unchanged, plan))
    parts = step(split, plan.snapshot or snapshot)
    if parts.rejected:
        return _completed(step(reject_data, plan, parts, outcomes, step.seconds))

    step.name_run(f"{step.config.name}-{snapshot.snapshot}-{plan.run_id}")
    started_at = step(begin, plan)
    infra.start()  # the fresh process imports Keras, at low priority, while the fits compute
    fits = step.fan_out(train_fold, range(step.config.training.folds), plan)
    final = step(fit_final, plan)
    version = step(package, plan)
    for attempt in range(ATTEMPTS):
        try:
            opponent = step(find_champion, plan)
            evaluation = step(evaluate, plan, opponent)
            checked = step(infra_validate, plan, version)
            verdict = step(gate, plan, opponent, evaluation, checked)
            verdict = step(promote, plan, opponent, verdict, version)
            break
        except Overtaken:
            if attempt == ATTEMPTS - 1:
                raise
    weighed = (verdict, evaluation, checked)
    return _completed(step(record, plan, *weighed, fits, final, parts, outcomes, started_at, dict(step.seconds)))


def _all_refused(outcomes: list[Outcome]) -> bool:
    return bool(outcomes) and all(outcome.outcome == "refused" for outcome in outcomes)


def _completed(document: dict[str, Any]) -> State[dict[str, Any]]:
    return Completed(name=document["verdict"], data=document)

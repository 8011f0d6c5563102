"""The retraining flow: its stages in order, its branches, its fan-out. What a stage does is the engine's.

discover -> validate -> preprocess -> split -> train folds -> fit final -> package
-> evaluate -> infra-validate -> gate -> promote -> record

It needs a Prefect API: `flows.local_run` brings one in a terminal, a worker has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Failed

from flows import fit_runners, gpu_host, notifications, ray_cluster
from flows.artifacts import Story, Trained
from flows.automations import MOST_LOSSES
from flows.steps import Steps
from leptonflow.core import machine
from leptonflow.core.pipeline_files import load_config
from leptonflow.evaluation.fresh_process import FreshProcess
from leptonflow.gate import early_refusal
from leptonflow.runs import early_refusals
from leptonflow.storage.address import open_store
from leptonflow.training import fit_status
from leptonflow.training.workspace import Workspace
from schemas.arrivals import FLOW
from schemas.config import Pipeline
from schemas.errors import LeptonflowError, Overtaken
from schemas.parameters import PipelineName, StoreUri
from schemas.records import FitResult, Outcome
from schemas.settings import store_uri
from tasks.begin import begin
from tasks.discover import discover
from tasks.evaluate import evaluate, find_champion
from tasks.gate import gate
from tasks.infra_validate import infra_validate
from tasks.package import package
from tasks.preprocess import preprocess
from tasks.promote import promote
from tasks.record import record, refuse_early, reject_data, unchanged
from tasks.split import split
from tasks.train import fit_final, train_fold
from tasks.validate import validate

MB = 10**6
ATTEMPTS = 3  # to evaluate the candidate, each against the champion of another run's promotion


def _stages(step: Steps, force: bool) -> Story:
    plan = step(discover, force)
    with step.prepared(plan):
        outcomes = [step(validate, batch, step.limit("validate")) for batch in plan.waiting]
    if plan.snapshot is None and all(outcome.outcome == "refused" for outcome in outcomes):
        return Story(step(reject_data, plan, None, outcomes, step.seconds), outcomes)
    snapshot = step(preprocess, step.limit("preprocess"))
    workspace = Workspace()
    workspace.check_own_files(step.config)  # before the ids that follow from them
    plan = step(discover, force)  # again: the ids follow from what was accepted
    if plan.finished:
        if _all_refused(outcomes):
            return Story(step(reject_data, plan, None, outcomes, step.seconds), outcomes)
        return Story(step(unchanged, plan), outcomes)
    parts = step(split, plan.snapshot or snapshot, [outcome.batch for outcome in outcomes])
    if parts.rejected:
        return Story(step(reject_data, plan, parts, outcomes, step.seconds), outcomes)

    step.trains_on(snapshot.snapshot)
    with gpu_host.alone(step.config), FreshProcess() as fresh:
        started_at = step(begin, plan)
        before = early_refusals.decided(open_store(step.store), step.config, plan)
        if before is not None:
            document = step(refuse_early, plan, *before, parts, outcomes, started_at, dict(step.seconds))
            return Story(document, outcomes)
        fresh.start()  # it imports Keras, at low priority, while the fits compute
        with fit_runners.opened(step.store, step.config, plan, workspace) as on:
            folds = [(number,) for number in range(step.config.training.folds)]
            limit = step.limit("train")
            fits = step.fan_out(train_fold, folds, on, plan, on.fits, limit, enough=partial(_hopeless, step.config))
            refused = early_refusal.judged(step.config, fits)
            if refused is None:
                (final,) = step.fan_out(fit_final, [()], on, plan, on.fits, step.limit("train"))
        if refused is not None:  # the fits that were ended are over now, and leave nothing after what is recorded
            seconds = dict(step.seconds)
            document = step(refuse_early, plan, refused, fits, parts, outcomes, started_at, seconds)
            return Story(document, outcomes)
        version = step(package, plan, workspace, fresh)
        for attempt in range(ATTEMPTS):
            try:
                opponent = step(find_champion, plan)
                evaluation = step(evaluate, plan, opponent, workspace, step.limit("evaluate"))
                checked = step(infra_validate, plan, version, fresh, step.limit("infra_validate"))
                verdict = step(gate, plan, opponent, evaluation, checked)
                verdict = step(promote, plan, opponent, verdict, version)
                break
            except Overtaken:
                if attempt == ATTEMPTS - 1:
                    raise
    evaluated = (verdict, evaluation, checked)
    document = step(record, plan, *evaluated, fits, final, parts, outcomes, started_at, dict(step.seconds))
    return Story(document, outcomes, Trained(plan.snapshot or snapshot, evaluation, fits, final, verdict))


def _not_in_vain(starts: int, uri: str, config: Pipeline) -> None:
    """Raise LeptonflowError for a run that kills its process each time: restarted for ever, it would block others."""
    if starts > MOST_LOSSES:
        largest = fit_status.largest_memory(open_store(uri), config.name)
        held = f", whose fits had up to {largest // MB} MB of memory" if largest else ""
        raise LeptonflowError(
            f"this run lost its process or its worker {MOST_LOSSES} times and is not started again",
            expected="a run that finishes",
            received=f"start {starts} of the same run{held}, and this process may have {machine.memory() // MB} MB",
            hint="The worker's machine may be short of memory; a new run resumes from what is on the store",
        )


def _hopeless(config: Pipeline, fits: Sequence[FitResult]) -> bool:
    return early_refusal.judged(config, fits) is not None


def _all_refused(outcomes: list[Outcome]) -> bool:
    return bool(outcomes) and all(outcome.outcome == "refused" for outcome in outcomes)


@flow(
    name=FLOW,
    persist_result=False,
    on_failure=[notifications.failed],
    on_crashed=[notifications.failed],
)
def retrain(pipeline: PipelineName, store: StoreUri = None, force: bool = False) -> State[dict[str, Any]]:
    """Ingest pending batches, train, evaluate, and promote if the gate passes.

    The final state is named by the verdict; its data is the document of `leptonflow retrain --json`.
    A failure's message is its one line.

    Args:
        pipeline: a name under pipelines/, or a path to a YAML
        store: a store's URI, else LEPTONFLOW_STORE, else ./.leptonflow
        force: a new attempt although nothing is new
    """
    try:
        uri, config = store_uri(store), load_config(pipeline)
        _not_in_vain(flow_run.get_run_count(), uri, config)
        step = Steps(uri, config)
        ray_cluster.check(step.config)
        with step.at_work():
            return step.end(_stages(step, force))
    except LeptonflowError as error:
        return Failed(message=error.line(), data=error)

"""Tells a person, through any Prefect notification block, how a run ended: `notify` in the pipeline's YAML.

Once per end of a run. A block that is missing or fails is one line in the log and fails no run; that line holds
nothing of the block's, whose address often is a secret. What does not belong here: what the block does.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

from flows import run_names
from flows.run_page import Log, error_name, tolerated
from leptonflow.core.pipeline_files import load_config
from schemas.config import Pipeline
from schemas.errors import LeptonflowError

if TYPE_CHECKING:
    from prefect import Flow, State
    from prefect.client.schemas.objects import FlowRun

FAILURE = "failure"


def notify(config: Pipeline, end: str, why: str, run: FlowRun, log: Log) -> None:
    """Send one notification if the pipeline's `notify` names this end: a verdict, or `failure`."""
    if config.notify is None or end not in config.notify.on:
        return
    word = "failed" if end == FAILURE else end
    link = url_for(run)
    body = "\n".join(filter(None, (why, f"run {run.name}", link)))
    try:
        _send(config.notify.block, f"leptonflow: {config.name} {word}", body)
    except Exception as error:  # noqa: BLE001 - a block is anybody's code, and raises what it likes
        log.warning("no notification was sent: the block %s failed with %s", config.notify.block, error_name(error))


def _send(slug: str, subject: str, body: str) -> None:
    import prefect.blocks.notifications  # noqa: F401 - its import registers Prefect's own blocks
    from prefect.blocks.core import Block
    from prefect.utilities.asyncutils import run_coro_as_sync

    block: Any = Block.load(slug)
    with ExitStack() as stack:
        if hasattr(block, "raise_on_failure"):
            stack.enter_context(block.raise_on_failure())
        sent = block.notify(body=body, subject=subject)
        if inspect.iscoroutine(sent):
            run_coro_as_sync(sent)


def failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The hook for a run that failed or crashed: sets its name and tags, and sends the notification.

    Where the run's process died, Prefect's worker calls this.
    """
    log = flow_run_logger(flow_run, flow)
    given = str(flow_run.parameters.get("pipeline", flow.name))
    end = run_names.CRASHED if state.is_crashed() else run_names.FAILED
    with tolerated(log), get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(flow_run.id)
        pipeline = Path(given).stem
        name = run_names.failed_name(flow_run.name, pipeline, end)
        client.update_flow_run(flow_run.id, name=name, tags=run_names.tags(flow_run.tags, pipeline, end))
        flow_run.name = name
    try:
        config = load_config(given)
    except LeptonflowError:
        return  # the run failed for that reason: `notify` cannot be read
    notify(config, FAILURE, state.message or end, flow_run, log)

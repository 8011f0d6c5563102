"""The scoring flow: the champion's predictions for the source that the YAML's section `score` names.

What is scored, and where it goes, is the engine's (leptonflow.batch_scoring).
"""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import artifacts, notifications
from flows.run_page import Page
from leptonflow.core.pipeline_files import load_config
from schemas.arrivals import SCORE
from schemas.errors import LeptonflowError
from schemas.parameters import PipelineName, StoreUri
from schemas.settings import store_uri
from tasks.score import score as score_source

SCORED = "scored"


@flow(
    name=SCORE,
    persist_result=False,
    on_failure=[notifications.failed],
    on_crashed=[notifications.failed],
)
def score(pipeline: PipelineName, store: StoreUri = None) -> State[dict[str, Any]]:
    """Score the source of the YAML's section `score` by the champion, to files on the store.

    The final state is named scored; its data is the manifest of the scores.

    Args:
        pipeline: a name under pipelines/, or a path to a YAML
        store: a store's URI, else LEPTONFLOW_STORE, else ./.leptonflow
    """
    try:
        uri, config = store_uri(store), load_config(pipeline)
        at = flow_run.get_scheduled_start_time().strftime("%Y%m%dT%H%M%SZ")
        document = score_source(uri, config, at)
        page = Page(config.name)
        page.show([artifacts.scores(config.name, uri, document)])
        page.name(None, SCORED, end=SCORED)
        return Completed(name=SCORED, message=artifacts.scored(document), data=document)
    except LeptonflowError as error:
        return Failed(message=error.line(), data=error)

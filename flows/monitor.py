"""The monitoring flow: a look for drift in what is served, and the event that asks for a retraining.

What is compared, and when a retraining is asked for, is the engine's (leptonflow.monitoring). The event is raised
before the look is recorded: after a kill between the two it is raised again, and never lost.
"""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.states import Completed, Failed

from flows import notifications
from flows.arrivals.prefect_api import Api
from flows.artifacts import looked
from flows.run_page import Page
from leptonflow.core.pipeline_files import load_config
from leptonflow.storage.address import open_store
from leptonflow.storage.store_identity import store_id
from schemas.arrivals import MONITOR, drift_event
from schemas.errors import LeptonflowError
from schemas.parameters import PipelineName, StoreUri
from schemas.settings import store_uri
from tasks.monitor import look, record

ENDS = {"drift": "drift", "none": "no-drift", "too-few": "too-few"}
UNCHANGED = "unchanged"


@flow(
    name=MONITOR,
    persist_result=False,
    on_failure=[notifications.failed],
    on_crashed=[notifications.failed],
)
def monitor(pipeline: PipelineName, store: StoreUri = None) -> State[dict[str, Any]]:
    """Look for drift in what the champion is served, as the YAML's section `serving.monitor` says.

    The final state is named drift, no-drift, too-few or, with too few new predictions, unchanged; its data is the
    record of the look.

    Args:
        pipeline: a name under pipelines/, or a path to a YAML
        store: a store's URI, else LEPTONFLOW_STORE, else ./.leptonflow
    """
    try:
        uri, config = store_uri(store), load_config(pipeline)
        page = Page(config.name)
        found = look(uri, config)
        if isinstance(found, str):
            page.name(None, UNCHANGED, end=UNCHANGED)
            return Completed(name=UNCHANGED, message=found, data={})
        if found.triggers:
            event = drift_event(store_id(open_store(uri)), config.name, found.version, found.number, found.sentence)
            Api(str(page.client.api_url).rstrip("/")).raise_events([event])
        found = record(uri, found)
        page.show([looked(uri, found)])
        end = ENDS[found.verdict]
        page.name(None, end, end=end)
        return Completed(name=end, message=found.sentence, data=found.model_dump(mode="json"))
    except LeptonflowError as error:
        return Failed(message=error.line(), data=error)

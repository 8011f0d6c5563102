"""What is new on the store, and the ids of the run that it makes."""

from __future__ import annotations

from leptonflow.runs import discovery
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import Plan
from tasks import stage


@stage("discover")
def discover(store: str, config: Pipeline, force: bool) -> Plan:
    """The plan of what there is to do now."""
    return discovery.discover(open_store(store), config, force)

"""What a run begins with: what there is to do now."""

from __future__ import annotations

from leptonflow.data.dataset import batch_outcomes
from leptonflow.runs import planning
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import upgrade
from schemas.config import Pipeline
from schemas.records import Plan


def discover(store: Store, config: Pipeline, force: bool) -> Plan:
    """What there is to do now, once that is written which a kill left out of earlier batches."""
    upgrade(store)
    batch_outcomes.repair_batches(store, config.name)
    return planning.plan(store, config, force)

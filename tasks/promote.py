"""Records the decision and, where it says so, makes the candidate the champion."""

from __future__ import annotations

from leptonflow.runs import verdicts
from leptonflow.runs.verdicts import Opponent
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import PackageRef, Plan, Verdict
from tasks import stage


@stage("promote")
def promote(
    store: str, config: Pipeline, plan: Plan, opponent: Opponent, verdict: Verdict, package: PackageRef
) -> Verdict:
    """The decision that stands. Raises Overtaken where the champion changed meanwhile."""
    return verdicts.settle(open_store(store), plan, opponent, verdict, package)

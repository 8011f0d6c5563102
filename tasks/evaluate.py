"""Candidate and champion on the same holdout."""

from __future__ import annotations

from leptonflow.core import deadlines
from leptonflow.core.deadlines import Limit
from leptonflow.evaluation import holdout_evaluation
from leptonflow.runs import verdicts
from leptonflow.runs.verdicts import Opponent
from leptonflow.storage.address import open_store
from leptonflow.training.workspace import Workspace
from schemas.config import Pipeline
from schemas.records import Evaluation, Plan
from tasks import stage


@stage("find-champion")
def find_champion(store: str, config: Pipeline, plan: Plan) -> Opponent:
    """What the candidate is compared with."""
    return verdicts.opponent(open_store(store), config, plan)


@stage("evaluate")
def evaluate(
    store: str, config: Pipeline, plan: Plan, opponent: Opponent, workspace: Workspace, limit: Limit
) -> Evaluation:
    """Both versions' scores."""
    with deadlines.within(limit):
        champion, rivals = opponent.champion, opponent.rivals
        return holdout_evaluation.evaluate(open_store(store), config, plan, champion, rivals, workspace)

"""Whether the packaged version, loaded in a fresh process, reproduces its own predictions."""

from __future__ import annotations

from leptonflow.core import deadlines
from leptonflow.core.deadlines import Limit
from leptonflow.evaluation import load_check
from leptonflow.evaluation.fresh_process import FreshProcess
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import InfraResult, PackageRef, Plan
from tasks import stage


@stage("infra-validate")
def infra_validate(
    store: str, config: Pipeline, plan: Plan, package: PackageRef, fresh: FreshProcess, limit: Limit
) -> InfraResult:
    """The largest difference found, and whether it is small enough."""
    with deadlines.within(limit):
        version, manifest_sha256 = package.version, package.manifest_sha256
        return load_check.validate(open_store(store), config, version, manifest_sha256, plan, fresh)

"""Makes the candidate an immutable version."""

from __future__ import annotations

from leptonflow.core.request_process import RequestProcess
from leptonflow.registry import package_builder
from leptonflow.storage.address import open_store
from leptonflow.training.workspace import Workspace
from schemas.config import Pipeline
from schemas.records import PackageRef, Plan
from tasks import stage


@stage("package")
def package(store: str, config: Pipeline, plan: Plan, workspace: Workspace, process: RequestProcess) -> PackageRef:
    """A reference to the version; what lies there already is returned. process: exports the model."""
    return package_builder.build(open_store(store), config, plan, workspace, process)

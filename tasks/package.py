"""Makes the candidate an immutable version."""

from __future__ import annotations

from leptonflow.registry import packages
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.records import PackageRef, Plan
from tasks import stage


@stage("package")
def package(store: str, config: Pipeline, plan: Plan) -> PackageRef:
    """A reference to the version; what lies there already is returned."""
    return packages.package(open_store(store), config, plan)

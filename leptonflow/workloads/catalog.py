"""The workloads by their names."""

from __future__ import annotations

from importlib import import_module

from leptonflow.workloads.base import Workload
from schemas.config import WORKLOADS
from schemas.errors import ConfigurationError


def load(name: str) -> Workload:
    """The workload of that name; its module is imported now and not before."""
    if name not in WORKLOADS:
        raise ConfigurationError(
            "unknown workload", expected=f"one of {', '.join(WORKLOADS)}", received=name, hint="Fix the key workload"
        )
    workload: Workload = import_module(f"leptonflow.workloads.{name}.workload").WORKLOAD
    return workload

"""The key `training.runner` of a pipeline's YAML: where the fits of a run are computed, and what each of them asks for.

Keys, bounds and defaults belong here. How a fit gets there: `leptonflow.training.runners` and `flows.fit_runners`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.rules import Count, Frozen, wrong
from schemas.settings import UNITS

RunnerName = Literal["local", "process", "ray"]
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]B)", re.IGNORECASE)
_ADDRESS = re.compile(r"auto|local|(?:ray://)?(?:\[[0-9A-Fa-f:]+\]|[\w.-]+):\d{1,5}")


class Runner(Frozen):
    """Where each fold and the final fit are computed.

    name     local: one after another in the process of the run; process: each in a process of its own, side by side;
             ray: on a Ray cluster
    cpus     cores that a fit asks for
    memory   that a fit asks for
    gpus     that a fit asks for; less than 1: a share of one. None: those of `devices`, or one where there are some
    address  of the Ray cluster, as Ray writes it; None: that of RAY_ADDRESS
    """

    name: RunnerName = "local"
    cpus: Count = 1
    memory: str = "2GB"
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    address: str | None = None

    @field_validator("memory", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        found = _SIZE.fullmatch(str(value))
        if found is None or not float(found[1]):
            raise ValueError("a size such as 500MB or 4GB")
        return value

    @field_validator("gpus")
    @classmethod
    def _whole_or_a_share(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and not value.is_integer():
            raise ValueError("a number of GPUs, or a share of one such as 0.5")
        return value

    @field_validator("address")
    @classmethod
    def _of_a_cluster(cls, value: str | None) -> str | None:
        if value is not None and not _ADDRESS.fullmatch(value):
            raise ValueError("host:port, ray://host:port, auto (this machine's cluster) or local (one for the run)")
        return value

    @model_validator(mode="after")
    def _no_key_without_effect(self) -> Runner:
        for key in sorted(self.model_fields_set - {"name"}) if self.name == "local" else ():
            raise wrong(f"training.runner.{key}", "no such key with the runner local", getattr(self, key))
        if self.name == "process" and self.address is not None:
            raise wrong("training.runner.address", "no such key with the runner process", self.address)
        return self

    @property
    def bytes(self) -> int:
        """`memory` in bytes."""
        found = _SIZE.fullmatch(self.memory)
        assert found is not None
        return int(float(found[1]) * UNITS[found[2].upper()])

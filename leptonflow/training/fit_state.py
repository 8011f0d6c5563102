"""A fit that is under way, between two dispatches: what can be saved of it, gone on from, and told.

What does not belong here: how it is saved (checkpoints), told (fit_status) and brought further (epochs).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from leptonflow.storage.store import Store
from leptonflow.training.fit_cost import Meter
from leptonflow.training.workspace import Models
from schemas.records import EpochValue


@dataclass
class FitState:
    """A fit between two dispatches: its networks, and what their variables do not say.

    followers  Keras's own callbacks that leptonflow follows the epochs with
    extent     epochs of the fit, steps of each
    epoch      under way, from 1; step: of its steps that are done; seen: their examples; sums: of each value over these
    values     of the epochs before
    began      when the fit and its epoch began, by time.perf_counter, as if one process had done all of it
    before     seconds that other processes took for it
    """

    models: Models
    followers: Sequence[Any]
    extent: tuple[int, int]
    epoch: int = 1
    step: int = 0
    seen: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    values: list[EpochValue] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    began: float = field(default_factory=time.perf_counter)
    epoch_began: float = field(default_factory=time.perf_counter)
    before: float = 0.0

    def next_epoch(self) -> None:
        """The epoch is over, with its evaluation."""
        self.epoch, self.step, self.seen, self.sums = self.epoch + 1, 0, 0, {}
        self.epoch_began = time.perf_counter()

    @property
    def steps(self) -> int:
        """Those of all epochs that are done."""
        return (self.epoch - 1) * self.extent[1] + self.step

    @property
    def number(self) -> int:
        """It grows with every step, and with the end of an epoch."""
        return self.steps + self.epoch


class FitPlace(NamedTuple):
    """Which fit it is, and the store that it leaves things on. fold: None is the final fit."""

    store: Store
    pipeline: str
    version: str
    run_id: str | None
    fold: int | None

    @property
    def stage(self) -> str:
        """What a person calls the fit."""
        return "final fit" if self.fold is None else f"fold {self.fold + 1}"

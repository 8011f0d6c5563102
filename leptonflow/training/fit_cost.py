"""What a fit took: steps, throughput, the time without a batch, and the peaks of memory.

What it is recorded in is `schemas.records.FitCost`; how long a fit took altogether is its manifest's `seconds`.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from leptonflow.core import machine
from leptonflow.keras_runtime import devices
from schemas.records import FitCost, FitResult


@dataclass
class Meter:
    """Counts while a fit runs. waiting: seconds in which batches were gathered; stepping: of the steps themselves."""

    steps: int = 0
    examples: int = 0
    waiting: float = 0.0
    stepping: float = 0.0

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """The time in which there is no batch to train on."""
        began = time.perf_counter()
        yield
        self.waiting += time.perf_counter() - began

    @contextmanager
    def step(self, steps: int, examples: int) -> Iterator[None]:
        """So many steps in one call, on so many examples in all."""
        began = time.perf_counter()
        yield
        self.stepping += time.perf_counter() - began
        self.steps += steps
        self.examples += examples

    def cost(self, trainer: Any, seconds: float) -> FitCost:
        """Of a fit that took so many seconds."""
        spent = self.waiting + self.stepping
        used = devices.used()
        return FitCost(
            device=used.name,
            compiled=not trainer.run_eagerly,
            steps=self.steps,
            examples_per_second=self.examples / spent if spent > 0 else 0.0,
            waiting=self.waiting / spent if spent > 0 else 0.0,
            peak_memory=peak_memory(),
            peak_device_memory=used.peak,
            device_seconds=seconds * used.number,
        )


def together(fits: Sequence[FitResult]) -> FitCost | None:
    """What several fits took, one after another; None where one of them, of an earlier release, recorded nothing."""
    known = [fit.cost for fit in fits if fit.cost is not None]
    if not known or len(known) < len(fits):
        return None
    seconds = sum(each.device_seconds for each in known)
    shares = [each.device_seconds / seconds if seconds else 0.0 for each in known]
    device = [each.peak_device_memory for each in known if each.peak_device_memory is not None]
    return FitCost(
        device=", ".join(sorted({each.device for each in known})),
        compiled=all(each.compiled for each in known),
        steps=sum(each.steps for each in known),
        examples_per_second=sum(s * each.examples_per_second for s, each in zip(shares, known, strict=True)),
        waiting=sum(s * each.waiting for s, each in zip(shares, known, strict=True)),
        peak_memory=max(each.peak_memory for each in known),
        peak_device_memory=max(device, default=None),
        device_seconds=seconds,
    )


def peak_memory() -> int:
    """The largest resident size that this process has had, in bytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return machine.peak_memory() or (found if sys.platform == "darwin" else found * 1024)

"""How many fits this machine has room for side by side, and which GPUs each of them sees.

What does not belong here: starting their processes (fit_process).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leptonflow.core import accelerators, machine
from schemas.config import Pipeline
from schemas.errors import ConfigurationError
from schemas.training import Training

MB = 10**6


class Seat(NamedTuple):
    """Room for one fit. gpus: what it sees of the machine's, None where there are none; share: of each of them."""

    gpus: tuple[str, ...] | None = None
    share: float = 1.0

    def environment(self) -> dict[str, str]:
        """The variables with which a fit's process sees these GPUs alone, and takes no more of them than its share."""
        if self.gpus is None:
            return {}
        found = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        if self.share < 1:  # both backends would take nearly all of a GPU's memory at once
            found["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
            found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * self.share:.3f}"
        return found


def gpus_asked(training: Training, there: bool) -> float:
    """How many GPUs a fit asks for. there: whether there are any."""
    if training.runner.gpus is not None:
        return training.runner.gpus
    if not there:
        return 0
    return 1 if training.devices == "auto" else training.devices


def seats(config: Pipeline, most: int) -> list[Seat]:
    """Room for at most so many fits side by side; at least one.

    Raises ConfigurationError where the YAML asks for more than the machine has.
    """
    runner = config.training.runner
    found = _of_gpus(config.training, visible())
    have = {"cpus": machine.cores(), "memory": machine.memory()}
    want = {"cpus": runner.cpus, "memory": runner.bytes}
    for key in ("cpus", "memory"):
        if want[key] > have[key] and key in runner.model_fields_set:
            told = f"{have[key] // MB} MB" if key == "memory" else str(have[key])
            raise _too_much(key, f"at most {told}", str(getattr(runner, key)))
    count = min(most, *(have[key] // want[key] for key in have), len(found) if found is not None else most)
    return [Seat()] * max(1, count) if found is None else found[: max(1, count)]


def told(config: Pipeline, given: Sequence[Seat]) -> str:
    """What was found, in one line."""
    runner = config.training.runner
    gpus = gpus_asked(config.training, given[0].gpus is not None)
    asks = [f"{runner.cpus} CPU{'s' if runner.cpus > 1 else ''}", runner.memory, *([f"{gpus:g} GPU"] if gpus else [])]
    has = f"{machine.cores()} CPUs and {machine.memory() // MB} MB"
    folds = config.training.folds
    return f"{folds} folds, {len(given)} at a time: each asks for {', '.join(asks)} of this machine's {has}"


def visible(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The names by which CUDA_VISIBLE_DEVICES can give the machine's GPUs to a process."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return () if accelerators.hidden() else tuple(each.strip() for each in listed.split(","))
    return tuple(str(number) for number in range(len(accelerators.gpus())))


def _of_gpus(training: Training, names: Sequence[str]) -> list[Seat] | None:
    """A seat for each GPU, share of one or group of them; None where a fit has none and sees none."""
    asked = gpus_asked(training, bool(names))
    if asked > len(names):
        raise _too_much("gpus", f"at most {len(names)}, which this machine has", f"{asked:g}")
    if not names:
        return None
    if asked == 0:
        return [Seat(())] * training.folds
    if asked < 1:
        each = int(1 / asked + 1e-9)
        return [Seat((name,), asked) for _ in range(each) for name in names]
    size = int(asked)
    return [Seat(tuple(names[first : first + size])) for first in range(0, len(names) - size + 1, size)]


def _too_much(key: str, expected: str, received: str) -> ConfigurationError:
    return ConfigurationError(
        f"training.runner.{key} is more than this machine has",
        expected=expected,
        received=received,
        hint=f"Lower training.runner.{key}, or run on a larger machine",
    )

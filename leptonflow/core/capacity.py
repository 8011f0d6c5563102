"""Whether work fits into memory, worked out before it starts, from the input's size and the number of examples.

What a machine grants is measured elsewhere (machine); a single example has its own bound (the workload's).
"""

from __future__ import annotations

import shutil
from typing import NamedTuple

from leptonflow.core import accelerators, machine, spools
from schemas import settings
from schemas.errors import ConfigurationError, UsageError
from schemas.text import counted
from schemas.training import Training

BATCH_COPIES = 5  # of a batch's examples while its part is written: rows, column, pages, compressed pages, file
PROCESS_BYTES = 500 << 20  # what a process takes that trains nothing yet
SHARE = 0.5  # of the rest, that training examples may take: models and their steps need memory too


def check_batch(each: int, told: str, examples: int) -> None:
    """Raises UsageError where a batch of so many examples cannot be encoded in memory.

    each: bytes of one in memory; told: the pipeline's input, as a person reads it.
    """
    need = BATCH_COPIES * examples * each
    granted = machine.memory()
    if need + PROCESS_BYTES > granted:
        raise UsageError(
            f"the batch does not fit into memory: {_times(examples, told)} need about {_gb(need)} to be written",
            expected=f"less than the {_gb(granted)} that this machine or container grants",
            received=f"{_gb(need + PROCESS_BYTES)} with the process itself",
            hint="Send it as several batches, or make `input` smaller in the pipeline's YAML",
        )


class Place(NamedTuple):
    """Where the training examples lie while models are trained. told: where and how much, for a person."""

    in_memory: bool
    told: str


def place(each: int, how: str, examples: int, spoolable: bool) -> Place:
    """In memory where they fit, and else in a file, if they are of a kind that can be read from one.

    each: bytes of one; how: the pipeline's input, as a person reads it. There must be twice the room, as they lie
    there twice while they are put in order. Raises ConfigurationError where they fit nowhere.
    """
    size, given, granted = examples * each, settings.training_memory(), machine.memory()
    share = SHARE if spoolable else 1.0
    room = (given or max(0, int(share * (granted - PROCESS_BYTES)))) // 2
    part = f"{'a quarter' if spoolable else 'half'} of the {_size(granted)} of this machine or container"
    most = f"{_size(room)} ({'half of LEPTONFLOW_TRAINING_MEMORY' if given else part})"
    what = f"{_times(examples, how)} ({_size(size)})"
    if size <= room:
        return Place(True, f"{what} are kept in memory")
    free = shutil.disk_usage(spools.folder()).free
    if spoolable and 2 * size < free:
        return Place(False, f"{what} are read from a file in {spools.folder()}, as they take more than {most}")
    disk = f", or {_size(2 * size)} of disk in {spools.folder()}, which has {_size(free)}" if spoolable else ""
    raise ConfigurationError(
        f"the training set does not fit into memory{' or onto the disk' if spoolable else ''}: {what}",
        expected=f"at most {most}{disk}",
        received=_size(size),
        hint="Make `input` smaller in the pipeline's YAML, or give it more memory"
        + (", or a TMPDIR with more room" if spoolable else ""),
    )


def check_step(need: int, how: str, training: Training) -> None:
    """Raises ConfigurationError where one step of training cannot be computed in the machine's memory.

    need: its bytes at least, 0 where nobody knows. An accelerator has its own memory, which only the backend knows.
    """
    granted = machine.memory()
    if need + PROCESS_BYTES > granted and not accelerators.gpus():
        raise ConfigurationError(
            f"a step of training does not fit into memory: a batch of {_times(training.batch_size, how)} needs at "
            f"least {_gb(need)} within the model",
            expected=f"less than the {_gb(granted)} that this machine or container grants",
            received=f"{_gb(need + PROCESS_BYTES)} with the process itself",
            hint="Lower training.batch_size, or make `input` smaller in the pipeline's YAML",
        )


def _times(examples: int, told: str) -> str:
    return f"{counted(examples, 'example')} of {told}"


def _size(size: int) -> str:
    return _gb(size) if size >= 10**8 else f"{size / 1e6:.1f} MB" if size >= 10**5 else f"{size / 1e3:.1f} kB"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

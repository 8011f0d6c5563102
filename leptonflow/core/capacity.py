"""Whether work fits into memory, worked out before it starts, from the input's size and the number of examples.

What a machine grants is measured elsewhere (machine); a single example has its own bound (the workload's).
"""

from __future__ import annotations

import shutil
from typing import NamedTuple

from leptonflow.core import machine, spools
from schemas import settings
from schemas.errors import ConfigurationError, UsageError
from schemas.text import counted

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
    """Where the training examples lie while models are trained. told: where, why and how much, for a person."""

    in_memory: bool
    told: str


def place(each: int, how: str, examples: int, spoolable: bool) -> Place:
    """In memory where they fit, and else in a file, if they are of a kind that can be read from one.

    each: bytes of one; how: the pipeline's input, as a person reads it. In memory they lie twice while they are put in
    order. Raises ConfigurationError where they fit nowhere.
    """
    need, size, given = 2 * examples * each, examples * each, settings.training_memory()
    granted = machine.memory()
    share = SHARE if spoolable else 1.0
    limit = given or max(0, int(share * (granted - PROCESS_BYTES)))
    times = f"{_times(examples, how)} take {_size(size)}"
    of = "LEPTONFLOW_TRAINING_MEMORY" if given else f"of the {_size(granted)} that this machine or container grants"
    if need <= limit:
        return Place(True, f"{times} and lie in memory: twice as much is free for them, up to {_size(limit)} ({of})")
    short = f"twice as much, while they are put in order, is more than {_size(limit)} of memory ({of})"
    free = shutil.disk_usage(spools.folder()).free
    if spoolable and size < free:
        return Place(False, f"{times}; {short}: they lie in a file in {spools.folder()} and are read batch by batch")
    disk = f", and {spools.folder()} has {_size(free)} left" if spoolable else ""
    besides = f", or {_size(size)} on the disk" if spoolable else ""
    raise ConfigurationError(
        f"the training set does not fit into memory: {times}; {short}{disk}",
        expected=f"at most {_size(limit)} for them in memory{besides}",
        received=f"{_size(need)} in memory{besides}",
        hint="Make `input` smaller in the pipeline's YAML, or give it more memory"
        + (", or a TMPDIR with more room" if spoolable else ""),
    )


def _times(examples: int, told: str) -> str:
    return f"{counted(examples, 'example')} of {told}"


def _size(size: int) -> str:
    return _gb(size) if size >= 10**8 else f"{size / 1e6:.1f} MB"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

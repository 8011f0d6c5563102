"""Whether work fits into memory, worked out before it starts, from the input's size and the number of examples.

What a machine grants is measured elsewhere (machine); a single example has its own bound (the workload's).
"""

from __future__ import annotations

from leptonflow.core import machine
from schemas.errors import ConfigurationError, UsageError
from schemas.records import Split
from schemas.text import counted

BATCH_COPIES = 5  # of a batch's examples while its part is written: rows, column, pages, compressed pages, file
PROCESS_BYTES = 500 << 20  # what a process takes that trains nothing yet


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


def check_training(each: int, told: str, split: Split) -> None:
    """Raises ConfigurationError where the training set cannot be held in memory.

    It is read whole: the snapshot and the training examples once more while they are put in order. Afterwards
    the training set stays, with the held-out fold or the holdout beside it.
    """
    every = split.train + split.holdout
    need = (every + split.train) * each
    granted = machine.memory()
    if need + PROCESS_BYTES > granted:
        raise ConfigurationError(
            f"the training set does not fit into memory: {_times(every, told)} need about {_gb(need)}, "
            f"since {split.train} of them are held twice while they are put in order",
            expected=f"less than the {_gb(granted)} that this machine or container grants",
            received=f"{_gb(need + PROCESS_BYTES)} with the process itself",
            hint="Make `input` smaller in the pipeline's YAML, or give it more memory",
        )


def _times(examples: int, told: str) -> str:
    return f"{counted(examples, 'example')} of {told}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

"""A device, or the machine, that runs out of memory within a fit: told in one line, whichever backend says so.

What does not belong here: a process that the kernel kills, which says nothing any more (training.runners.fit_process).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from leptonflow.keras_runtime import devices
from schemas.errors import TrainingError
from schemas.training import Training

SHOWN = 200  # characters of what the backend says


@contextmanager
def enough(training: Training) -> Iterator[None]:
    """Raises TrainingError where the block runs out of memory: that is no fault of the YAML or of the user's code."""
    try:
        yield
    except Exception as error:
        if not _ran_out(error):
            raise
        raise TrainingError(
            f"out of memory on {devices.used().name}",
            expected=f"a model that trains on batches of {training.batch_size} examples (training.batch_size)",
            received=" ".join(f"{type(error).__name__}: {error}".split())[:SHOWN],
            hint="Lower training.batch_size, for example to half; training.optimizer.gradient_accumulation: 2 then "
            "changes the weights as the whole batch would. Or make the input or the model smaller",
        ) from error


def _ran_out(error: BaseException | None) -> bool:
    """TensorFlow's ResourceExhaustedError, XLA's RESOURCE_EXHAUSTED, PyTorch's OutOfMemoryError, Python's own."""
    if error is None:
        return False
    names = {kind.__name__ for kind in type(error).__mro__}
    told = bool(names & {"ResourceExhaustedError", "OutOfMemoryError", "MemoryError"})
    return told or "RESOURCE_EXHAUSTED" in str(error) or _ran_out(error.__cause__)

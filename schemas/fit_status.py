"""What a fit under way says of itself. What a finished one says belongs to records (FitResult)."""

from __future__ import annotations

from schemas.records import EpochValue, Record


class FitStatus(Record):
    """How far a fit under way is, at a moment `at`. Memory is in bytes.

    fold        None: the final fit
    epoch       under way, of `epochs` at most; done: the share of all epochs, 0..1
    loss        of the training examples in it so far
    metric      of the epoch before, with its value: the first that is followed on other examples
    seconds     that the fit has taken; left: that it will still take, with all of its epochs
    values      of the epochs before
    """

    pipeline: str
    version: str
    run_id: str | None
    fold: int | None
    at: str
    epoch: int
    epochs: int
    done: float
    loss: float | None
    metric: str | None
    value: float | None
    examples_per_second: float
    seconds: float
    left: float | None
    peak_memory: int
    values: tuple[EpochValue, ...]

"""The batches of an epoch: their order, by the seed and the epoch alone, and how many of them go into one call.

What is done with them does not belong here (epochs), nor where the examples lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import spools
from leptonflow.keras_runtime.step_batches import Batches
from leptonflow.training import augmentation
from leptonflow.workloads.base import Workload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECONDS = 0.5  # of one call: signals and limits are heard between two of them
MOST = 32  # steps of one call; more save nothing that can be measured on a CPU
MOST_RESIDENT = 512  # where the examples lie on the accelerator: a step of a small model takes it under a millisecond
MOST_BYTES = 64 << 20  # of the examples or targets of one call


@dataclass(frozen=True)
class Material:
    """The examples of one fit: numbers of the N training examples of the plan.

    encoded  (N, ...) what the model takes of each; labels: N true values; classes: K names
    kept     those that are learned from
    held     those of the fold, which are not
    watched  those of the fit's own that are held back for early stopping; none without
    sources  N names, for messages
    weights  (K,) what an example of each class counts in the loss; None: 1
    """

    encoded: NDArray[Any]
    labels: NDArray[Any]
    classes: Sequence[str]
    kept: NDArray[np.int64]
    held: NDArray[np.int64]
    watched: NDArray[np.int64]
    sources: Sequence[str]
    weights: NDArray[np.float32] | None = None


class Order(NamedTuple):
    """The n examples of an epoch, one batch after another. shares: (n,) of mixup, None without."""

    numbers: NDArray[np.int64]
    shares: NDArray[np.float32] | None

    @classmethod
    def of(cls, kept: NDArray[np.int64], start: int, epoch: int, mixup: float | None) -> Order:
        """It depends on the fit's seed `start` and the epoch alone, and never on what the process did before."""
        import numpy as np

        chance = np.random.default_rng([start, epoch])
        numbers = kept[chance.permutation(len(kept))]
        return cls(numbers, None if mixup is None else chance.beta(mixup, mixup, len(kept)).astype(np.float32))


class Pace:
    """How many steps one call has: one at first, then as many as take SECONDS, by what the last ones took."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.steps = 1

    def took(self, steps: int, seconds: float) -> None:
        """So many steps took so many seconds, the time of tracing included."""
        wanted = int(SECONDS * steps / seconds) if seconds > 0 else self._most
        self.steps = max(1, min(wanted, 2 * self.steps, self._most))


class Call(NamedTuple):
    """The batches of one call: `steps` of them, the first of which is number `first` of the epoch, from 0.

    numbers: (steps, B) the examples, as the plan numbers them.
    """

    first: int
    numbers: NDArray[np.int64]
    batches: Batches

    @property
    def steps(self) -> int:
        return len(self.numbers)


def most(of: Material, workload: Workload, size: int, resident: Any) -> int:
    """The most steps of one call with batches of that size. resident: as in `calls`."""
    example = 0 if resident is not None else of.encoded[:1].nbytes
    each = size * max(1, example, workload.target.fit(of.labels[:1], len(of.classes)).nbytes)
    return max(1, min(MOST if resident is None else MOST_RESIDENT, MOST_BYTES // each))


def calls(
    of: Material,
    workload: Workload,
    order: Order,
    size: int,
    first: int,
    resident: Any,
    pace: Callable[[], int],
    room: int,
) -> Iterator[Call]:
    """The batches of an epoch from its step `first` on, `pace()` of them a call: the last, smaller one by itself.

    They are gathered in a thread, one call ahead. resident: `of.encoded`, where the steps read the examples
    themselves. room: the most batches of a call.
    """
    full, count = len(order.numbers) // size, -(-len(order.numbers) // size)

    def gathered(step: int) -> Call:
        stop = min(full, step + max(1, min(pace(), room))) if step < full else count
        rows = slice(step * size, min(stop * size, len(order.numbers)))
        return _call(of, workload, order, rows, step, stop - step, resident)

    with ThreadPoolExecutor(1) as beside:
        ahead = beside.submit(gathered, first) if first < count else None
        while ahead is not None:
            call = ahead.result()
            after = call.first + call.steps
            ahead = beside.submit(gathered, after) if after < count else None
            yield call


def _call(of: Material, workload: Workload, order: Order, rows: slice, first: int, steps: int, resident: Any) -> Call:
    import numpy as np

    chosen = order.numbers[rows]
    shape = (steps, len(chosen) // steps)
    labels = of.labels[chosen]
    targets = workload.target.fit(labels, len(of.classes))
    targets = targets.reshape(*shape, *targets.shape[1:])
    weights = None if of.weights is None else of.weights[labels].reshape(shape)
    shares = None if order.shares is None else order.shares[rows].reshape(shape)
    if shares is not None:
        targets = np.stack([augmentation.mixed(*each) for each in zip(shares, targets, strict=True)])
        if weights is not None:
            weights = np.stack([augmentation.mixed(*each) for each in zip(shares, weights, strict=True)])
    if resident is None:
        examples = np.empty((len(chosen), *of.encoded.shape[1:]), of.encoded.dtype)
        spools.gather(of.encoded, chosen, examples)
        numbers = np.arange(len(chosen))
    else:
        examples, numbers = resident, chosen
    indices = numbers.astype(np.int32).reshape(shape)
    return Call(first, chosen.reshape(shape), Batches(examples, indices, targets, weights, shares))

"""How long a model takes for one example."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

SINGLE_EXAMPLES = 50  # answered one at a time, after some that do not count
WARM_UP = 5


def single(compute: Callable[[NDArray[Any]], Any], encoded: NDArray[Any]) -> float | None:
    """Milliseconds that 95 of 100 predictions take at most, one of N examples at a time; None without one."""
    if not len(encoded):
        return None
    taken = []
    for number in range(WARM_UP + SINGLE_EXAMPLES):
        at = number % len(encoded)
        started = time.perf_counter()
        compute(encoded[at : at + 1])
        taken.append((time.perf_counter() - started) * 1000)
    counted = sorted(taken[WARM_UP:])
    return round(counted[math.ceil(0.95 * len(counted)) - 1], 3)

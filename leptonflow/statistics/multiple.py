"""Many tests at once: what p means when there are several."""

from __future__ import annotations

from collections.abc import Sequence

from leptonflow.statistics import checks


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted by Holm's step-down method, in the order given: reject those below 1 - confidence.

    The i-th smallest of m becomes the greatest of (m - j + 1) * p_(j) over j <= i, at most 1. The
    chance of even one false rejection stays below 1 - confidence, whatever their dependence.

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65-70. Raises LeptonflowError on a value
    outside 0..1.
    """
    for value in p_values:
        if not 0 <= value <= 1:
            raise checks.refuse("a p-value", "from 0 to 1", value)
    adjusted = [0.0] * len(p_values)
    so_far = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = so_far
    return adjusted

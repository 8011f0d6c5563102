"""Does the newest batch look like the data before it? Facts and classes of the two, held side by side.

A pure function of what admission recorded of each accepted example. It tells and decides nothing: a
batch is refused by its contract, a candidate by the gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.99  # a fact has moved where chance alone would say so in 1% of cases, over all facts


@dataclass(frozen=True)
class Moved:
    """One fact in the newest batch and in the rest. distance: Kolmogorov and Smirnov's, 0..1.

    p_value is of their two-sample test, after Holm's correction over the facts (1979).
    """

    fact: str
    newest: float  # medians
    rest: float
    distance: float
    p_value: float

    @property
    def moved(self) -> bool:
        return self.p_value < 1 - CONFIDENCE


@dataclass(frozen=True)
class ClassShare:
    """A class's share of the newest batch and of the rest, 0..1."""

    name: str
    newest: float
    rest: float


@dataclass(frozen=True)
class Drift:
    """The newest batch against all before it. `class_distance` is the total variation of the class shares, 0..1."""

    batch: str
    newest: int  # examples
    rest: int
    facts: tuple[Moved, ...]  # the most distant first; a fact that never varies is left out
    classes: tuple[ClassShare, ...]  # in class order
    class_distance: float


def compare(
    batch: str, batches: Sequence[str], labels: Sequence[str], facts: Mapping[str, NDArray[np.float64]],
    classes: Sequence[str],
) -> Drift | None:  # fmt: skip
    """The batch `batch` against the rest of N examples; None where either side is empty.

    batches, labels and each of `facts` are of the same N examples; a fact is NaN where an example has none.
    Source: Smirnov (1948), Annals of Mathematical Statistics 19:279-281, by its asymptotic distribution.
    """
    import numpy as np

    members = np.asarray([name == batch for name in batches], bool)
    new, old = int(members.sum()), int((~members).sum())
    if not new or not old:
        return None
    column = np.asarray(labels, object)
    shares = tuple(
        ClassShare(name, float((column[members] == name).mean()), float((column[~members] == name).mean()))
        for name in classes
    )
    return Drift(
        batch=batch,
        newest=new,
        rest=old,
        facts=_facts(members, facts),
        classes=shares,
        class_distance=sum(abs(share.newest - share.rest) for share in shares) / 2,
    )


def _facts(members: NDArray[np.bool_], facts: Mapping[str, NDArray[np.float64]]) -> tuple[Moved, ...]:
    import numpy as np
    from scipy.stats import ks_2samp

    from leptonflow.statistics.multiple import holm

    found: list[tuple[str, float, float, float]] = []
    p_values: list[float] = []
    for name, values in facts.items():
        there = np.isfinite(values)
        newest, rest = values[members & there], values[~members & there]
        if not len(newest) or not len(rest) or np.ptp(values[there]) == 0:
            continue
        test = ks_2samp(newest, rest, method="asymp")
        found.append((name, float(np.median(newest)), float(np.median(rest)), float(test.statistic)))
        p_values.append(float(test.pvalue))
    moved = [Moved(*each, p_value) for each, p_value in zip(found, holm(p_values), strict=True)]
    return tuple(sorted(moved, key=lambda each: (-each.distance, each.fact)))

"""Has what is served drifted from what the champion was evaluated on? A pure function of two samples.

Many tests, each with a least effect: a difference is a drift if it is significant after a correction for their number,
and large enough to matter. So the verdict is stable as the sample grows. What does not belong here: where the
samples come from (references, drift_looks), and the tests themselves (statistics).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.drift import DriftTest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.statistics.two_samples import TwoSamples

    Columns = Mapping[str, Sequence[Any]]
    Spreads = tuple[float, float] | None
    Found = tuple[Any, str | None, TwoSamples, Spreads]  # what and name of a DriftTest, its test, and its spreads

CONFIDENCE = 0.99  # chance alone makes a drift of any test in 1% of looks at most
FEWEST = 50  # values on either side
# docs/monitoring.md has the simulations behind these.
LEAST = {"ks": 0.1, "chi-square": 0.15, "shares": 0.1, "mmd": 0.045}
WORDS = {
    "ks": "the distributions are {effect:.3f} apart (Kolmogorov and Smirnov's distance, from {least:g} on it matters)",
    "chi-square": "the shares differ by w = {effect:.3f} (Cohen's w, from {least:g} on it matters)",
    "shares": "a class's mean probability differs by {effect:.3f} of its spread (from {least:g} on it matters)",
    "mmd": "the means are {effect:.3f} apart (kernel distance, from {least:g} on it matters)",
}
VALUES = {
    "ks": "; mean {1:.4g} (standard deviation {3:.4g}), of the reference {0:.4g} ({2:.4g})",
    "chi-square": "; share of {of} {1:.1%}, of the reference {0:.1%}",
    "shares": "; mean probability of {of} {1:.4g}, of the reference {0:.4g}",
}


@dataclass(frozen=True)
class Observed:
    """Predictions and their examples; each of these may be of other examples of the same data, and empty.

    metadata    by column, a value for each example; None where it has none
    inputs      the same, of what the workload computes of the examples as the model takes them
    predicted   names, where the workload has classes; else `values`, the first output
    outputs     (N, K) probabilities of the classes, where the workload has classes; classes: their names
    confidence  probabilities that were given to the prediction
    features    (N, F) of the model's penultimate layer
    """

    metadata: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    inputs: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    predicted: Sequence[str] = ()
    values: NDArray[np.float64] | None = None
    outputs: NDArray[np.float64] | None = None
    classes: Sequence[str] = ()
    confidence: NDArray[np.float64] | None = None
    features: NDArray[np.float64] | None = None


def compare(reference: Observed, served: Observed, seed: int = 0) -> tuple[DriftTest, ...]:
    """Each test that both have FEWEST values for, the largest effect beside its least first."""
    found = list(_tests(reference, served, seed))
    adjusted = _adjusted(found)
    told = [_told(*each, p, reference.classes) for each, p in zip(found, adjusted, strict=True)]
    return tuple(sorted(told, key=lambda test: (not test.drifted, -test.effect / test.least, test.key)))


def absent(reference: Observed, served: Observed) -> list[str]:
    """What the reference has of the examples as the model takes them, and too few of the served ones have."""
    return [name for name in sorted(reference.inputs) if not _enough(*_both(reference.inputs, served.inputs, name))]


def _adjusted(found: Sequence[Found]) -> list[float]:
    """p-values corrected for the number of tests: half of the chance of a false alarm is the probabilities'.

    They are a test of every class, corrected for their number already. In Holm's correction beside the others each
    class would be corrected for once more, by the number of the others.
    """
    from leptonflow.statistics.multiple import holm

    of_classes = [what == "probabilities" for what, *_ in found]
    adjusted = [0.0] * len(found)
    for kind in set(of_classes):
        places = [place for place, each in enumerate(of_classes) if each is kind]
        for place, p_value in zip(places, holm([found[place][2].p_value for place in places]), strict=True):
            adjusted[place] = min(1.0, len(set(of_classes)) * p_value)
    return adjusted


def _tests(reference: Observed, served: Observed, seed: int) -> Iterator[Found]:
    from leptonflow.statistics import two_samples

    for what in ("metadata", "inputs"):
        first, second = getattr(reference, what), getattr(served, what)
        for name in sorted(first.keys() & second.keys()):
            column = _column(*_both(first, second, name))
            if column is not None:
                yield what, name, *column
    if _enough(reference.predicted, served.predicted):
        yield "predictions", None, two_samples.names(reference.predicted, served.predicted), None
    for what in ("values", "confidence"):
        first, second = getattr(reference, what), getattr(served, what)
        if _enough(first, second):
            yield "predictions" if what == "values" else what, None, *_numbers(first, second)
    for what in ("outputs", "features"):
        first, second = getattr(reference, what), getattr(served, what)
        if not _enough(first, second) or first.shape[1:] != second.shape[1:]:
            continue
        if what == "outputs":
            yield "probabilities", None, two_samples.shares(first, second), None
        else:
            yield "features", None, two_samples.vectors(first, second, seed), None


def _enough(first: Any, second: Any) -> bool:
    return first is not None and second is not None and min(len(first), len(second)) >= FEWEST


def _both(first: Columns, second: Columns, name: str) -> tuple[list[Any], list[Any]]:
    """The values of a column, without those that are None."""
    one, other = ([value for value in each.get(name, ()) if value is not None] for each in (first, second))
    return one, other


def _numbers(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[TwoSamples, Spreads]:
    from leptonflow.statistics import two_samples

    return two_samples.numbers(first, second), (float(first.std()), float(second.std()))


def _column(first: Sequence[Any], second: Sequence[Any]) -> tuple[TwoSamples, Spreads] | None:
    """Of a column; None where there are too few values, or one alone on both sides."""
    import numpy as np

    from leptonflow.statistics import two_samples

    if not _enough(first, second) or len(set(map(str, first)) | set(map(str, second))) < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (*first, *second)):
        return _numbers(np.asarray(first, np.float64), np.asarray(second, np.float64))
    return two_samples.names([str(value) for value in first], [str(value) for value in second]), None


def _told(
    what: Any, name: str | None, test: TwoSamples, spreads: Spreads, p_value: float, classes: Sequence[str]
) -> DriftTest:  # fmt: skip
    least = LEAST[test.method]
    drifted = p_value < 1 - CONFIDENCE and test.effect >= least
    chance = f"p {p_value:.2g}" if p_value >= 1e-6 else "p below 1e-6"
    said = WORDS[test.method].format(effect=test.effect, least=least)
    of = classes[test.of] if isinstance(test.of, int) and test.of < len(classes) else test.of
    values = VALUES[test.method].format(*test.values, *(spreads or ()), of=of) if test.values else ""
    return DriftTest(
        what=what, name=name, method=test.method, effect=test.effect, least=least, p_value=p_value, n=test.n, m=test.m,
        drifted=drifted, sentence=f"{said}{values}; {chance} after correction", of=None if of is None else str(of),
        values=test.values, spreads=spreads,
    )  # fmt: skip

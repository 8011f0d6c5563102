"""Has what is served drifted from what the champion was evaluated on? A pure function of two samples.

Many tests, each with a least effect: a difference is a drift if it is significant after Holm's correction over all
tests, and large enough to matter. So the verdict is stable as the sample grows. What does not belong here: where the
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


@dataclass(frozen=True)
class Observed:
    """Predictions and their examples; each of these may be of other examples of the same data, and empty.

    metadata    by column, a value for each example; None where it has none
    predicted   names, where the workload has classes; else `values`, the first output
    outputs     (N, K) probabilities of the classes, where the workload has classes
    confidence  probabilities that were given to the prediction
    features    (N, F) of the model's penultimate layer
    """

    metadata: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    predicted: Sequence[str] = ()
    values: NDArray[np.float64] | None = None
    outputs: NDArray[np.float64] | None = None
    confidence: NDArray[np.float64] | None = None
    features: NDArray[np.float64] | None = None


def compare(reference: Observed, served: Observed, seed: int = 0) -> tuple[DriftTest, ...]:
    """Each test that both have FEWEST values for, the largest effect beside its least first."""
    from leptonflow.statistics.multiple import holm

    found = list(_tests(reference, served, seed))
    adjusted = holm([test.p_value for _, _, test in found])
    told = [_told(what, name, test, p) for (what, name, test), p in zip(found, adjusted, strict=True)]
    return tuple(sorted(told, key=lambda test: (not test.drifted, -test.effect / test.least, test.key)))


def _tests(reference: Observed, served: Observed, seed: int) -> Iterator[tuple[Any, str | None, TwoSamples]]:
    from leptonflow.statistics import two_samples

    for name in sorted(reference.metadata.keys() & served.metadata.keys()):
        test = _column(reference.metadata[name], served.metadata[name])
        if test is not None:
            yield "metadata", name, test
    if _enough(reference.predicted, served.predicted):
        yield "predictions", None, two_samples.names(reference.predicted, served.predicted)
    for what in ("values", "confidence"):
        first, second = getattr(reference, what), getattr(served, what)
        if _enough(first, second):
            yield "predictions" if what == "values" else what, None, two_samples.numbers(first, second)
    for what in ("outputs", "features"):
        first, second = getattr(reference, what), getattr(served, what)
        if not _enough(first, second) or first.shape[1:] != second.shape[1:]:
            continue
        if what == "outputs":
            yield "probabilities", None, two_samples.shares(first, second)
        else:
            yield "features", None, two_samples.vectors(first, second, seed)


def _enough(first: Any, second: Any) -> bool:
    return first is not None and second is not None and min(len(first), len(second)) >= FEWEST


def _column(first: Sequence[Any], second: Sequence[Any]) -> TwoSamples | None:
    """Of a column of metadata; None where there are too few values, or one alone on both sides."""
    import numpy as np

    from leptonflow.statistics import two_samples

    first, second = ([value for value in each if value is not None] for each in (first, second))
    if not _enough(first, second) or len(set(map(str, first)) | set(map(str, second))) < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (*first, *second)):
        return two_samples.numbers(np.asarray(first, np.float64), np.asarray(second, np.float64))
    return two_samples.names([str(value) for value in first], [str(value) for value in second])


def _told(what: Any, name: str | None, test: TwoSamples, p_value: float) -> DriftTest:
    least = LEAST[test.method]
    drifted = p_value < 1 - CONFIDENCE and test.effect >= least
    chance = f"p {p_value:.2g}" if p_value >= 1e-6 else "p below 1e-6"
    said = WORDS[test.method].format(effect=test.effect, least=least)
    return DriftTest(
        what=what, name=name, method=test.method, effect=test.effect, least=least, p_value=p_value, n=test.n, m=test.m,
        drifted=drifted, sentence=f"{said}; {chance} after Holm's correction",
    )  # fmt: skip

"""`slices`: in which part of the holdout did the candidate lose more than chance explains?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from leptonflow.rules.against import discordant
from leptonflow.rules.case import Case, Weighed
from leptonflow.rules.words import figures, finite, gap, incomparable, result
from schemas.records import RuleResult
from schemas.rules import Slices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 20  # batches, or values of a fact that is no number: the largest
RESERVED = ("class", "batch", "newest")


def weigh(rule: Slices, case: Case) -> Weighed:
    """A row for each slice. value: candidate - champion there; bound: -margin.

    False where the loss beyond the margin is significant: Tango's score test (1998) of "the true
    difference is at least -margin", adjusted by Holm (1979) over the slices that are judged. A slice
    with fewer than `minimum` examples is null and says so. low and high are Tango's two-sided interval
    at 2 * confidence - 1, not adjusted.
    """
    from leptonflow.statistics import multiple, paired

    bound = 0.0 - rule.margin
    nothing = incomparable(case)
    if nothing is None and not (finite(case.evidence.candidate) and finite(case.evidence.champion)):
        nothing = (False, "accuracy in slices cannot be weighed: a probability is not a finite number")
    if nothing is not None:
        return Weighed((result(rule.rule, rule.metric, None, bound, *nothing),))
    evidence = case.evidence
    assert evidence.champion is not None
    counts: list[tuple[str, int, int, int]] = []
    for name, where in slices(rule, case):
        pairs = discordant(evidence.labels[where], evidence.candidate[where], evidence.champion[where])
        counts.append((name, *pairs, int(where.sum())))
    judged = [found for found in counts if found[3] >= rule.minimum]
    adjusted = multiple.holm([paired.inferiority(b, c, n, min(rule.margin, 0.999999)) for _, b, c, n in judged])
    p_values = dict(zip((name for name, *_ in judged), adjusted, strict=True))
    rows = tuple(_row(rule, found, p_values.get(found[0]), len(judged)) for found in counts)
    return Weighed(rows)


def _row(rule: Slices, found: tuple[str, int, int, int], p: float | None, judged: int) -> RuleResult:
    from leptonflow.statistics import paired

    name, b, c, n = found
    bound = 0.0 - rule.margin
    if p is None:
        many = "1 example" if n == 1 else f"{n} examples"
        sentence = f"{name} is too small to judge: {many}, at least {rule.minimum} are needed"
        value = (b - c) / n if n else None
        return result(rule.rule, rule.metric, value, bound, None, sentence, slice=name, n=n)
    test = paired.non_inferiority(b, c, n, 0.0, rule.confidence)
    passed = p >= 1 - rule.confidence
    direction, asked = gap(test.difference, bound)
    asked = asked if rule.margin else "no worse"
    shown, _ = figures(p, 1 - rule.confidence)
    verdict = "no significant loss beyond that" if passed else "a significant loss beyond that"
    sentence = (
        f"{rule.metric} in {name} ({n} examples) is {direction} than the champion's, {asked} was asked: {verdict} "
        f"(p {shown} after Holm's correction over {judged} slices)"
    ).replace("no different than", "no different from")
    return result(
        rule.rule, rule.metric, test.difference, bound, passed, sentence, slice=name,
        low=test.low, high=test.high, confidence=rule.confidence, n=n, method=test.method,
    )  # fmt: skip


def slices(rule: Slices, case: Case) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(name, N booleans) of each slice that the rule asks for, in the rule's order."""
    import numpy as np

    evidence = case.evidence
    for kind in rule.by:
        if kind == "class":
            for number, name in enumerate(evidence.classes):
                yield f"class={name}", evidence.labels == number
        elif kind == "batch":
            yield from _largest("batch", np.asarray(evidence.batches, object))
        elif kind == "newest":
            yield "newest", np.asarray(evidence.batches, object) == evidence.newest
        else:
            yield from _of_fact(kind, evidence.facts[kind], rule.buckets)


def _largest(name: str, values: NDArray[np.object_]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    import numpy as np

    found, counts = np.unique(values.astype(str), return_counts=True)
    order = sorted(range(len(found)), key=lambda i: (-counts[i], found[i]))[:MOST]
    for i in sorted(order):
        yield f"{name}={found[i]}", values.astype(str) == found[i]


def _of_fact(name: str, values: NDArray[np.float64], buckets: int) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Buckets of about as many examples each, by the holdout's own quantiles; what has no such fact apart."""
    import numpy as np

    known = np.isfinite(values)
    if known.any():
        edges = np.unique(np.quantile(values[known], np.linspace(0, 1, buckets + 1)))
        inner = edges[1:-1]
        places = np.where(known, np.searchsorted(inner, values, side="right"), -1)
        for place in range(len(inner) + 1):
            low, high = edges[place], edges[min(place + 1, len(edges) - 1)]
            close = "]" if place == len(inner) else ")"
            yield f"{name}=[{low:.6g}, {high:.6g}{close}", places == place
    if not known.all():
        yield f"{name}=missing", ~known

"""`slices`: in which parts of the holdout is the candidate significantly worse?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from leptonflow.gate.rules import scores
from leptonflow.gate.rules.case import Case, Evaluated
from leptonflow.gate.rules.words import figures, finite, gap, incomparable, result
from schemas.records import RuleResult
from schemas.rules import Slices
from schemas.text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.gate.evidence import Evidence
    from leptonflow.statistics.paired import Paired

MOST = 20  # batches, or values of metadata that is not a number: the largest


@dataclass(frozen=True)
class Slice:
    """A part of the N holdout examples: N booleans. judged: false for what is only named."""

    name: str
    members: NDArray[np.bool_]
    judged: bool = True


def evaluate(rule: Slices, case: Case) -> Evaluated:
    """A row for each slice. value: candidate - champion there; bound: -margin.

    False where the loss beyond the margin is significant: Tango's score test (1998) of "the true
    difference is at least -margin", adjusted by Holm (1979) over the slices that are judged. A slice
    with fewer than `minimum` examples is null and says so, and so are the batches (or values of a fact
    that is no number) beyond the MOST largest, together. low and high are Tango's two-sided interval
    at 2 * confidence - 1, not adjusted. Where examples come in groups, test and interval are those of the cluster
    bootstrap, and a slice of a single group is null.
    """
    from leptonflow.statistics import multiple

    bound = 0.0 - rule.margin
    nothing = incomparable(case)
    if nothing is None and not (finite(case.evidence.candidate) and finite(case.evidence.champion)):
        nothing = (False, "accuracy in slices cannot be evaluated: a probability is not a finite number")
    if nothing is not None:
        return Evaluated((result(rule.rule, rule.metric, None, bound, *nothing),))
    evidence = case.evidence
    assert evidence.theirs is not None
    mine, theirs = evidence.mine.correct, evidence.theirs.correct
    if mine is None or theirs is None:
        row = result(rule.rule, rule.metric, None, bound, None, "these predictions are neither right nor wrong")
        return Evaluated((row,))
    counted = [_count(rule, case, found, mine, theirs) for found in slices(rule, evidence)]
    judged = [number for number, found in enumerate(counted) if found.test is not None]
    adjusted = multiple.holm([counted[number].p_value for number in judged])
    p_values = dict(zip(judged, adjusted, strict=True))
    return Evaluated(tuple(_row(rule, f, p_values.get(number), len(judged)) for number, f in enumerate(counted)))


@dataclass(frozen=True)
class _Counted:
    """A slice and its n examples: value is candidate - champion; test: None where it is not tested.

    groups: how many groups they are, None where each is one by itself. p_value: of no larger loss than the margin
    """

    slice: Slice
    n: int
    value: float | None
    groups: int | None
    test: Paired | None = None
    p_value: float = 1.0

    @property
    def many(self) -> str:
        """What is in it."""
        of = "" if self.groups is None else f" in {counted(self.groups, 'group')}"
        return counted(self.n, "example") + of


def _count(rule: Slices, case: Case, found: Slice, mine: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> _Counted:
    from leptonflow.statistics import clusters, paired

    where, groups = found.members, case.evidence.groups
    n, (b, c) = int(where.sum()), scores.pairs(mine[where], theirs[where])
    inside = None if groups is None else groups[where]
    counted = _Counted(found, n, (b - c) / n if n else None, None if inside is None else scores.units(inside, n))
    if not found.judged or n < rule.minimum or counted.groups == 1:
        return counted
    test, p = paired.non_inferiority(b, c, n, 0.0, rule.confidence), paired.inferiority(b, c, n, margin(rule))
    if inside is None:
        return replace(counted, test=test, p_value=p)
    drawn = clusters.mean(scores.gains(mine[where], theirs[where]), inside, seed=case.seed("slices", found.name))
    test = clusters.difference(drawn, 0.0, test, rule.confidence)
    return replace(counted, test=test, p_value=clusters.inferiority(drawn, margin(rule), p))


def margin(rule: Slices) -> float:
    """The rule's margin, below 1: no loss is greater."""
    return min(rule.margin, 0.999999)


def _row(rule: Slices, found: _Counted, p: float | None, judged: int) -> RuleResult:
    name, n, test, bound = found.slice.name, found.n, found.test, 0.0 - rule.margin
    if not found.slice.judged:
        sentence = f"{name} are not tested one by one, only the {MOST} largest are: {counted(n, 'example')}"
        return result(rule.rule, rule.metric, found.value, bound, None, sentence, slice=name, n=n)
    if test is None or p is None:
        least = f"at least {rule.minimum}" + ("" if found.groups is None else " in 2 groups")
        sentence = f"{name} is too small to test: {found.many}, {least} are needed"
        return result(rule.rule, rule.metric, found.value, bound, None, sentence, slice=name, n=n)
    passed = p >= 1 - rule.confidence
    direction, required = gap(test.difference, bound)
    required = required if rule.margin else "no worse"
    shown, _ = figures(p, 1 - rule.confidence)
    verdict = "no significantly larger loss" if passed else "a significantly larger loss"
    sentence = (
        f"{rule.metric} in {name} ({found.many}) is {direction} than the champion's (required: {required}): {verdict} "
        f"(p {shown} after Holm's correction over {judged} slices)"
    ).replace("no different than", "no different from")
    return result(
        rule.rule, rule.metric, test.difference, bound, passed, sentence, slice=name,
        low=test.low, high=test.high, confidence=rule.confidence, n=n, method=test.method,
    )  # fmt: skip


def slices(rule: Slices, evidence: Evidence) -> Iterator[Slice]:
    """The slices of the holdout that the rule names, in the rule's order."""
    import numpy as np

    batches = np.asarray(evidence.batches, object)
    for kind in rule.by:
        if kind == "class":
            for number, name in enumerate(evidence.classes):
                yield Slice(f"class={name}", evidence.labels == number)
        elif kind == "batch":
            yield from of_values("batch", "batches", batches)
        elif kind == "newest":
            yield Slice("newest", batches == evidence.newest)
        elif evidence.facts[kind].dtype == object:
            yield from of_values(kind, "values", evidence.facts[kind])
        else:
            yield from of_buckets(kind, evidence.facts[kind], rule.buckets)


def of_values(name: str, many: str, values: NDArray[np.object_]) -> Iterator[Slice]:
    """A slice for each of the MOST largest values, one of all the others; None is `missing`."""
    import numpy as np

    told = np.asarray(["missing" if value is None else str(value) for value in values], object)
    found, counts = np.unique(told.astype(str), return_counts=True)
    order = sorted(range(len(found)), key=lambda i: (-counts[i], found[i]))
    for i in sorted(order[:MOST]):
        yield Slice(f"{name}={found[i]}", told == str(found[i]))
    rest = [str(found[i]) for i in order[MOST:]]
    if rest:
        yield Slice(f"{name}: {len(rest)} smaller {many}", np.isin(told.astype(str), rest), judged=False)


def of_buckets(name: str, values: NDArray[np.float64], buckets: int) -> Iterator[Slice]:
    """Buckets of about as many examples each, by the holdout's own quantiles; what has no such fact apart.

    A quantile that is the least value itself (most examples are of one size) cuts above it.
    """
    import numpy as np

    known = np.isfinite(values)
    if known.any():
        distinct = np.unique(values[known])
        quantiles = np.quantile(values[known], np.linspace(0, 1, buckets + 1)[1:-1])
        cuts = np.unique(np.where(quantiles > distinct[0], quantiles, distinct[min(1, len(distinct) - 1)]))
        cuts = cuts[cuts > distinct[0]]
        places = np.where(known, np.searchsorted(cuts, values, side="right"), -1)
        edges = _told([distinct[0], *cuts, distinct[-1]])
        for place in range(len(cuts) + 1):
            close = "]" if place == len(cuts) else ")"
            yield Slice(f"{name}=[{edges[place]}, {edges[place + 1]}{close}", places == place)
    if not known.all():
        yield Slice(f"{name}=missing", ~known)


def _told(edges: Sequence[float]) -> list[str]:
    """With 6 significant digits, or as many as it takes to tell different edges apart."""
    shown: list[str] = []
    for digits in range(6, 18):
        shown = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(shown)) == len(set(edges)):
            break
    return shown

"""`against_champion`: candidate and champion, paired example by example, and fold by fold where that is fair."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from leptonflow.gate.rules import scores
from leptonflow.gate.rules.case import Case, Evaluated
from leptonflow.gate.rules.words import clustered, figures, finite, gap, incomparable, result, way_out
from leptonflow.workloads.base import Metric, Scores, named
from schemas.constants import BEST
from schemas.records import RuleResult
from schemas.rules import AgainstChampion
from schemas.text import counted
from schemas.workloads import lower_is_better

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.registry.champion_log import Champion
    from leptonflow.statistics.paired import Paired

POWER = 0.8


def evaluate(rule: AgainstChampion, case: Case) -> Evaluated:
    """The row of the holdout and, where there is another champion, `against_best_champion` and `against_champion_cv`.

    value: candidate - champion on the holdout, signed so that positive is better. bound: -margin, or
    +margin for superiority. passed: whether p < 1 - confidence for "the true difference is at most the
    bound"; low and high are the two-sided interval at 2 * confidence - 1, whose lower end is above the
    bound in just these cases. For the share of right predictions Tango's score test (1998), or exact McNemar
    at a bound of 0; for other metrics the paired BCa bootstrap. Where an equally accurate candidate would
    pass in under half the cases at the discordance seen, the row and the note say so, with the holdout size
    needed. Where examples come in groups, every metric has the paired bootstrap over the groups.
    """
    holdout, note = _holdout(rule, case)
    if case.champion is None or case.champion.version == case.version:
        return Evaluated((holdout,), note)
    best = case.proven.get(rule.metric)
    rows = (holdout, *(() if best is None else (_best(rule, case, best, holdout.passed),)), _folds(rule, case))
    return Evaluated(rows, note)


def _best(rule: AgainstChampion, case: Case, best: Champion, beside_last: bool | None) -> RuleResult:
    """The same test against the best proven champion, so that many small losses do not add up to a large one.

    Null, not false, where the two cannot be compared: one old champion must not block every candidate.
    """
    other = case.beside(best)
    unfair = incomparable(other)
    row = _holdout(rule, other)[0]
    passed = row.passed if unfair is None else None
    sentence = row.sentence if unfair is None else unfair[1].removesuffix(f"; {way_out(other)}")
    start = f"the best proven champion is {best.version} (record {best.number})"
    decided = "; this rule decided: against the last champion alone the candidate passes" if beside_last else ""
    return row.model_copy(
        update={
            "rule": BEST,
            "passed": passed,
            "sentence": f"{start}: {sentence}" + (decided if passed is False else ""),
        }
    )


def _bound(rule: AgainstChampion) -> float:
    return rule.margin if rule.test == "superiority" else 0.0 - rule.margin


def _holdout(rule: AgainstChampion, case: Case) -> tuple[RuleResult, str | None]:
    bound = _bound(rule)

    def told(value: float | None, passed: bool | None, sentence: str, test: Paired | None = None) -> RuleResult:
        shown = {} if test is None else {"low": test.low, "high": test.high, "n": test.n, "method": test.method}
        return result(
            rule.rule, rule.metric, value, bound, passed, sentence,
            confidence=rule.confidence if test else None, **shown,  # type: ignore[arg-type]
        )  # fmt: skip

    nothing = incomparable(case)
    if nothing is not None:
        return told(None, *nothing), None
    assert case.champion is not None and case.evaluation.champion_scores is not None
    mine = case.evaluation.candidate_scores.metrics.get(rule.metric)
    theirs = case.evaluation.champion_scores.metrics.get(rule.metric)
    subject = f"{rule.metric} on the holdout"
    if not finite(case.evidence.candidate) or (mine is not None and not math.isfinite(mine)):
        return told(None, False, f"{subject} is not a finite number"), None
    if not finite(case.evidence.champion) or (theirs is not None and not math.isfinite(theirs)):
        return told(None, False, f"the champion's {subject} is not a finite number; {way_out(case)}"), None
    if mine is None or theirs is None:
        return told(None, None, f"{subject} cannot be computed: no example there counts towards it"), None
    test, floor = _test(rule, case)
    passed = test.p_value < 1 - rule.confidence
    direction, required = gap(test.difference, bound)
    certain, _ = gap(test.low, bound)
    shown = figures(mine, theirs)
    sentence = (
        f"{subject} is {shown[0]}, that of the champion {case.champion.version} {shown[1]}: {direction}, and with "
        f"{rule.confidence:g} confidence {_at_least(test.low, certain)}{clustered(case.evidence.groups, floor)}; "
        f"required: {required}"
    )
    note = _few_groups(rule, case) or _power(rule, test)
    return told(test.difference, passed, sentence + (f"; {note}" if note else ""), test), note


def _at_least(low: float, certain: str) -> str:
    return f"at most {certain}" if low < 0 else f"at least {certain}" if low > 0 else "no worse"


def _test(rule: AgainstChampion, case: Case) -> tuple[Paired, bool]:
    """The test, and whether of examples in groups the one for independent examples is the stricter."""
    from leptonflow.statistics import clusters

    candidate, champion, groups = case.evidence.mine, case.evidence.theirs, case.evidence.groups
    assert champion is not None
    metric = named(candidate, rule.metric)
    right = scores.both(metric, candidate, champion)
    if right is None:
        return _resampled(rule, case, metric, candidate, champion), False
    exact = _exact(rule, *scores.pairs(*right), len(candidate))
    if groups is None:
        return exact, False
    drawn = clusters.mean(scores.gains(*right), groups, seed=case.seed(rule.metric))
    found = clusters.difference(drawn, _bound(rule), exact, rule.confidence)
    return found, found.low == exact.low


def _resampled(rule: AgainstChampion, case: Case, metric: Metric, candidate: Scores, champion: Scores) -> Paired:
    """The paired bootstrap, over the examples or their groups."""
    from leptonflow.statistics import clusters, paired

    bound, groups, n = _bound(rule), case.evidence.groups, len(candidate)
    sign = 1.0 if metric.higher_is_better else -1.0
    mine, theirs = scores.statistic(metric, candidate), scores.statistic(metric, champion)
    examples, many = scores.members(groups), scores.units(groups, n)

    def beyond(drawn: NDArray[np.int64]) -> float:  # so that any bound is a margin of 0
        chosen = examples(drawn)
        return sign * (mine(chosen) - theirs(chosen)) - bound

    found = paired.bootstrap_difference(
        beyond, many, 0.0, rule.confidence, seed=case.seed(rule.metric), few=groups is not None
    )
    method = found.method if groups is None else f"paired {clusters.METHOD}"
    return paired.Paired(
        found.difference + bound, found.p_value, found.low + bound, found.high + bound, n, None, None, method
    )


def _exact(rule: AgainstChampion, b: int, c: int, n: int) -> Paired:
    """By which of n independent examples only one of the two gets right."""
    from leptonflow.statistics import paired

    bound = _bound(rule)
    if bound == 0:
        return paired.mcnemar(b, c, n, rule.confidence)
    if -1 < bound < 0:
        return paired.non_inferiority(b, c, n, rule.margin, rule.confidence)
    interval = paired.non_inferiority(b, c, n, 0.0, rule.confidence)
    return paired.Paired(
        interval.difference, _beyond(b, c, n, bound), interval.low, interval.high, n, b, c, interval.method
    )


def _beyond(b: int, c: int, n: int, bound: float) -> float:
    """Tango's p of "the true difference is at most `bound`"; no difference reaches beyond -1 or 1."""
    from scipy.special import ndtr

    from leptonflow.statistics import paired

    return float(bound >= 1) if abs(bound) >= 1 else float(ndtr(-paired.score(b, c, n, bound)))


def _few_groups(rule: AgainstChampion, case: Case) -> str | None:
    """Where no candidate can pass: the groups from which on one can."""
    from leptonflow.statistics import clusters

    groups = case.evidence.groups
    if groups is None:
        return None
    many, least = scores.units(groups, len(groups)), clusters.enough(rule.confidence)
    few = f"with {counted(many, 'group')} in the holdout no candidate can pass; from {least} on one can"
    return few if many < least else None


def _power(rule: AgainstChampion, test: Paired) -> str | None:
    """What the test could not have shown: Liu et al. (2002), by `statistics.power`."""
    from leptonflow.statistics import power

    if test.b is None or test.c is None or rule.margin >= 1:
        return None
    if not rule.margin:
        return (
            "without a margin only a better candidate passes: an equally accurate one would pass in at most "
            f"{1 - rule.confidence:.2g} of cases, on a holdout of any size"
        )
    discordance = (test.b + test.c) / test.n
    if rule.test == "superiority":
        chance = power.pass_rate(0.0, discordance, test.n, -rule.margin, rule.confidence) if discordance else 0.0
        return (
            f"only a candidate that is better by more than {rule.margin:g} is likely to pass: with {test.n} "
            f"examples and {discordance:.1%} discordant, an equally accurate one would pass in {chance:.1%} of cases, "
            "and no holdout size changes that"
        )
    if not discordance:
        return _too_few(rule, test)
    chance = power.pass_rate(0.0, discordance, test.n, rule.margin, rule.confidence)
    if chance >= 0.5:
        return None
    size = power.needed(0.0, discordance, rule.margin, rule.confidence, POWER)
    more = (
        f"a holdout of {size} would let it pass in {POWER:.0%}" if size
        else "no holdout size changes that"
    )  # fmt: skip
    return (
        f"with {counted(test.n, 'example')} and {discordance:.1%} discordant, an equally accurate candidate "
        f"would pass in {chance:.0%} of cases; {more}"
    )


def _too_few(rule: AgainstChampion, test: Paired) -> str | None:
    """Where even two versions with the same predictions cannot pass: the examples from which on they do.

    Without a discordant pair Tango's score is sqrt(n margin / (1 - margin)), which has to exceed z_confidence.
    """
    from scipy.special import ndtri

    if test.p_value < 1 - rule.confidence:
        return None
    size = math.floor(float(ndtri(rule.confidence)) ** 2 * (1 - rule.margin) / rule.margin) + 1
    return (
        f"with {counted(test.n, 'example')} even a candidate with the same right and wrong predictions cannot pass; "
        f"from {size} examples on it would"
    )


def _folds(rule: AgainstChampion, case: Case) -> RuleResult:
    """The corrected resampled t-test (Nadeau and Bengio 2003) over folds that both were scored on.

    False where the candidate is significantly worse than the bound, true where it is significantly
    better, null where neither is shown and where the folds are not the same ones.
    """
    from leptonflow.statistics import folds

    name, bound, evidence = "against_champion_cv", _bound(rule), case.evidence

    def told(value: float | None, passed: bool | None, sentence: str, count: int | None = None) -> RuleResult:
        method = "corrected t" if count else None
        return result(
            name, rule.metric, value, bound, passed, sentence,
            confidence=rule.confidence if count else None, n=count, method=method,
        )  # fmt: skip

    decides = "the paired test on the holdout decides"
    if evidence.champion_cv is None or evidence.other_folds is not None:
        why = evidence.other_folds or "the champion's cross-validation is not known"
        return told(None, None, f"not comparable: {why}; {decides}")
    mine = list((case.cv.get(rule.metric) or {}).get("folds") or ())
    theirs = list((evidence.champion_cv.get(rule.metric) or {}).get("folds") or ())
    if len(mine) != len(theirs) or len(mine) < 2 or None in mine or None in theirs:
        return told(None, None, f"not comparable: {rule.metric} does not have a value in each fold of both; {decides}")
    sign = -1.0 if lower_is_better(rule.metric) else 1.0
    differences = [sign * (float(a) - float(b)) for a, b in zip(mine, theirs, strict=True)]
    if not all(map(math.isfinite, differences)):
        return told(None, False, f"{rule.metric} over the folds is not a finite number")
    count = len(differences)
    # Only the ratio of training to test examples matters, and that is k - 1 to 1.
    _, p = folds.corrected_t([d - bound for d in differences], count - 1, 1, 0.0)
    passed = True if p < 1 - rule.confidence else False if p > rule.confidence else None
    mean = math.fsum(differences) / count
    direction, required = gap(mean, bound)
    shown = {True: "this is shown", False: "the opposite is shown", None: f"neither is shown; {decides}"}[passed]
    start = f"{rule.metric} over the same {count} folds is on average {direction} than the champion's"
    start = start.replace("no different than", "no different from")
    return told(mean, passed, f"{start}; required: {required}; with {rule.confidence:g} confidence {shown}", count)

"""`at_least`, `at_most` and `fold_spread`: a metric against a number of the YAML."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from leptonflow.gate.rules import scores
from leptonflow.gate.rules.case import Case, Evaluated
from leptonflow.gate.rules.words import clustered, figures, finite, reaches, result
from leptonflow.workloads.base import Scores, named
from schemas.rules import AtLeast, AtMost, FoldSpread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.statistics.intervals import Interval


def evaluate(rule: AtLeast | AtMost | FoldSpread, case: Case) -> Evaluated:
    """One row. value: the metric (mean or standard deviation over the folds, or on the holdout).

    With `confidence` the lower (at_most: upper) end of the two-sided interval decides: Wilson's (1927)
    for accuracy, recall[cat] and precision[cat], which are proportions, the BCa bootstrap (Efron 1987)
    for the rest; for `on: cv` over the pooled out-of-fold predictions, whose metric `value` then is. Where examples
    come in groups, all of them have the BCa bootstrap over the groups.
    """
    measured: float | None
    if isinstance(rule, FoldSpread) or rule.on == "cv":
        over = case.cv.get(rule.metric) or {}
        statistic = "std" if isinstance(rule, FoldSpread) else "mean"
        measured, where = over.get(statistic), f"over {len(over.get('folds') or ())} folds"
        why = "a fold has no value for it"
    else:
        measured, where = case.evaluation.candidate_scores.metrics.get(rule.metric), "on the holdout"
        why = "no example there counts towards it"
    subject = f"{rule.metric} {where}"
    broken = where == "on the holdout" and not finite(case.evidence.candidate)
    if broken or (measured is not None and not math.isfinite(measured)):
        return _row(rule, None, False, f"{subject} is not a finite number")
    if measured is None:
        subject = rule.metric if where.startswith("over") else subject
        return _row(rule, None, None, f"{subject} cannot be computed: {why}")
    if not isinstance(rule, FoldSpread) and rule.confidence is not None:
        return _interval(rule, case, subject)
    passed = reaches(measured, rule.value) if isinstance(rule, AtLeast) else reaches(rule.value, measured)
    value, bound = figures(measured, rule.value)
    if isinstance(rule, FoldSpread):
        told = f"{subject} has a standard deviation of {value}"
    else:
        told = f"{subject} is {value}{' on average' if rule.on == 'cv' else ''}"
    return _row(rule, measured, passed, f"{told}, {_side(rule)} {bound} is required")


def _side(rule: AtLeast | AtMost | FoldSpread) -> str:
    return "at least" if isinstance(rule, AtLeast) else "at most"


def _row(
    rule: AtLeast | AtMost | FoldSpread, value: float | None, passed: bool | None, sentence: str,
    interval: Interval | None = None,
) -> Evaluated:  # fmt: skip
    shown = vars(interval) if interval is not None else {}
    return Evaluated((result(rule.rule, rule.metric, value, rule.value, passed, sentence, **shown),))


def _interval(rule: AtLeast | AtMost, case: Case, subject: str) -> Evaluated:
    import numpy as np

    assert rule.confidence is not None
    evidence = case.evidence
    found, groups, outputs = evidence.mine, evidence.groups, evidence.candidate
    if rule.on == "cv":
        if evidence.oof is None:
            return _row(rule, None, None, f"{subject} has no interval: its out-of-fold predictions are not there")
        found, groups, outputs = evidence.scores(*evidence.oof), evidence.oof_groups, evidence.oof[1]
        subject = f"{rule.metric} over the {len(found)} out-of-fold predictions"
    if not finite(outputs):
        return _row(rule, None, False, f"{subject} is not a finite number")
    value = scores.statistic(named(found, rule.metric), found)(np.arange(len(found)))
    interval = _around(rule, case, found, groups) if math.isfinite(value) else None
    if interval is None:
        return _row(rule, None, None, f"{subject} cannot be computed: no example there counts towards it")
    end = interval.low if isinstance(rule, AtLeast) else interval.high
    passed = reaches(end, rule.value) if isinstance(rule, AtLeast) else reaches(rule.value, end)
    shown, bound = figures(end, rule.value)
    side = "lower" if isinstance(rule, AtLeast) else "upper"
    told = f"{subject} is {figures(value, value)[0]}; the {side} end of its {rule.confidence:g} interval is {shown}"
    told += clustered(groups)
    return _row(rule, value, passed, f"{told}, {_side(rule)} {bound} is required", interval)


def _around(rule: AtLeast | AtMost, case: Case, found: Scores, groups: NDArray[np.int64] | None) -> Interval:
    from leptonflow.statistics import clusters, intervals

    assert rule.confidence is not None
    metric, seed = named(found, rule.metric), case.seed(rule.rule, rule.on, rule.metric)
    counted = found.proportion(metric)
    if counted is not None:
        among, hits = counted
        if not among.any():  # precision of a class that is never predicted: anything may be true
            return intervals.Interval(0.0, 1.0, rule.confidence, "wilson", 0)
        if groups is not None:
            return clusters.share(hits[among], groups[among], rule.confidence, seed=seed)
        return intervals.wilson(int(hits.sum()), int(among.sum()), rule.confidence)
    measured, examples = scores.statistic(metric, found), scores.members(groups)
    interval = intervals.bootstrap(
        lambda drawn: measured(examples(drawn)), scores.units(groups, len(found)), rule.confidence, seed=seed,
        few=groups is not None,
    )  # fmt: skip
    return interval if groups is None else replace(interval, method=clusters.METHOD, n=len(found))

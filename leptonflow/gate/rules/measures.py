"""`calibration`, `baseline`, `overfit`, `latency` and `size`: what the candidate is by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from leptonflow.gate.rules import scores
from leptonflow.gate.rules.case import Case, Evaluated
from leptonflow.gate.rules.words import clustered, figure, figures, finite, reaches, result
from schemas.records import RuleResult
from schemas.rules import Baseline, Calibration, Latency, Overfit, Size
from schemas.workloads import lower_is_better

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 10
RESAMPLES = 2000
CONFIDENCE = 0.95  # of calibration's interval where the rule names none: it is shown and decides nothing


def calibration(rule: Calibration, case: Case) -> Evaluated:
    """value: the expected calibration error over 10 bins (Naeini et al. 2015), with a percentile bootstrap interval.

    With `confidence` the interval's upper end is held against the bound, else the value itself. Resampling
    adds to the error of each bin, so nearly every resample lies above the value: BCa's bias correction
    (Efron 1987) would then collapse the interval onto the value, and a well calibrated sample would seem to
    prove a well calibrated model. The percentiles (Efron and Tibshirani 1993, chapter 13), widened to hold
    the value, err towards refusing.
    """
    import numpy as np

    from leptonflow.statistics import intervals
    from leptonflow.statistics.calibration import expected_error

    name, evidence, subject = "expected_calibration_error", case.evidence, "the expected calibration error"
    if not len(evidence.labels):
        row = result(rule.rule, name, None, rule.value, None, f"{subject} cannot be computed: the holdout is empty")
        return Evaluated((row,))
    if not finite(evidence.candidate):
        return Evaluated((result(rule.rule, name, None, rule.value, False, f"{subject} is not a finite number"),))
    given, right = evidence.mine.confidence, evidence.mine.correct
    if given is None or right is None:
        why = "these predictions have no probability to be held against"
        return Evaluated((result(rule.rule, name, None, rule.value, None, why),))
    value = expected_error(given, right, BINS)
    confidence = rule.confidence or CONFIDENCE

    examples, groups = scores.members(evidence.groups), evidence.groups

    def over(drawn: NDArray[np.int64]) -> float:
        indices = examples(drawn)
        return expected_error(given[indices], right[indices], BINS)

    drawn = intervals.draw(
        over, scores.units(groups, len(given)), seed=case.seed(rule.rule), resamples=RESAMPLES, few=groups is not None
    )
    levels = [intervals.widened(level, drawn.units) for level in ((1 - confidence) / 2, (1 + confidence) / 2)]
    low, high = np.quantile(drawn.resampled, levels)
    method = "percentile bootstrap" if groups is None else "cluster percentile bootstrap"
    interval = intervals.Interval(min(value, float(low)), max(value, float(high)), confidence, method, len(given))
    held = value if rule.confidence is None else interval.high
    shown, bound = figures(held, rule.value)
    told = f"{subject} on the holdout is {shown if rule.confidence is None else figure(value)}"
    if rule.confidence is not None:
        told += f", the upper end of its {confidence:g} interval {shown}{clustered(groups)}"
    row = result(
        rule.rule, name, value, rule.value, reaches(rule.value, held), f"{told}; at most {bound} is required",
        **vars(interval),
    )  # fmt: skip
    return Evaluated((row,))


def baseline(rule: Baseline, case: Case) -> Evaluated:
    """value: the candidate's metric on the holdout; bound: the better baseline's, moved by `margin`.

    Null without a margin where neither a baseline nor the candidate makes a mistake: nothing tells them apart.
    """
    mine = case.evaluation.candidate_scores.metrics.get(rule.metric)
    subject, n = f"{rule.metric} on the holdout", case.evaluation.candidate_scores.examples
    known = {name: found.get(rule.metric) for name, found in case.evidence.baselines.items()}
    there = {name: value for name, value in known.items() if value is not None and math.isfinite(value)}
    if not finite(case.evidence.candidate) or (mine is not None and not math.isfinite(mine)):
        return Evaluated((result(rule.rule, rule.metric, None, None, False, f"{subject} is not a finite number"),))
    if mine is None or not there:
        why = "no example there counts towards it" if mine is None else "no baseline has a value for it"
        return Evaluated((result(rule.rule, rule.metric, mine, None, None, f"{subject} cannot be evaluated: {why}"),))
    lower = lower_is_better(rule.metric)
    best = (min if lower else max)(there.values())
    bound = best - rule.margin if lower else best + rule.margin
    passed = mine < bound - 1e-12 if lower else mine > bound + 1e-12
    told = ", ".join(
        f"{case.evidence.baseline_words.get(name, name)} has {figure(value)}" for name, value in there.items()
    )
    shown, required = figures(mine, bound)
    sentence = f"{subject} is {shown}; {told}: {'less' if lower else 'more'} than {required} is required"
    beyond = bound <= 0 if lower else bound >= 1
    if beyond and not rule.margin and not lower and mine >= bound:
        why = f"{told}, and no candidate can have more: this holdout cannot separate them"
        return Evaluated((result(rule.rule, rule.metric, mine, bound, None, f"{subject} is {shown}; {why}", n=n),))
    if beyond:
        sentence += f", which no candidate can reach: lower the rule's margin of {rule.margin:g}"
    return Evaluated((result(rule.rule, rule.metric, mine, bound, passed, sentence, n=n),))


def overfit(rule: Overfit, case: Case) -> Evaluated:
    """value: the metric on training examples - on the holdout, signed so that positive is better in training."""
    mine, measured = case.evaluation.candidate_scores.metrics.get(rule.metric), case.evidence.training
    training = None if measured is None else measured.get(rule.metric)
    # Training examples always have some metric, unless a prediction is no number.
    broken = bool(measured) and all(value is None for value in (measured or {}).values())
    broken = broken or not finite(case.evidence.candidate)
    broken = broken or any(value is not None and not math.isfinite(value) for value in (mine, training))

    def told(value: float | None, passed: bool | None, sentence: str) -> Evaluated:
        return Evaluated((result(rule.rule, rule.metric, value, rule.value, passed, sentence),))

    if broken:
        return told(None, False, f"{rule.metric} on the holdout or in training is not a finite number")
    if mine is None or training is None:
        where = "on the holdout" if mine is None else "on training examples"
        return told(None, None, f"{rule.metric} {where} cannot be computed: no example there counts towards it")
    value = mine - training if lower_is_better(rule.metric) else training - mine
    shown, bound = figures(value, rule.value)
    sentence = (
        f"{rule.metric} is {figure(training)} on training examples and {figure(mine)} on the holdout: "
        f"a difference of {shown}, at most {bound} is required"
    )
    return told(value, reaches(rule.value, value), sentence)


def latency(rule: Latency, case: Case) -> Evaluated:
    """value: milliseconds that 95 of 100 predictions took at most in the fresh process, one example at a time."""
    return Evaluated((_budget(rule, case.evidence.latency_ms, "ms", "95 of 100 predictions take at most"),))


def size(rule: Size, case: Case) -> Evaluated:
    """value: megabytes (10^6 bytes) of the package's files together."""
    found = case.evidence.package_bytes
    return Evaluated((_budget(rule, None if found is None else found / 1e6, "MB", "the package has"),))


def _budget(rule: Latency | Size, value: float | None, unit: str, subject: str) -> RuleResult:
    if value is None:
        return result(rule.rule, None, None, rule.value, None, f"{rule.rule} was not measured: see infra_validate")
    if not math.isfinite(value):
        return result(rule.rule, None, None, rule.value, False, f"{rule.rule} is not a finite number")
    shown, bound = figures(value, rule.value)
    passed = reaches(rule.value, value)
    sentence = f"{subject} {shown} {unit}, at most {bound} {unit} is required"
    return result(rule.rule, None, value, rule.value, passed, sentence)

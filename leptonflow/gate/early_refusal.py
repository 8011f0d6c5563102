"""Whether the first folds show that a candidate is hopeless: `stop_early_if`. Pure, like the gate's own rules.

What does not belong here: ending the other folds (flows), and recording the run (runs.early_refusals).
"""

from __future__ import annotations

from collections.abc import Sequence

from leptonflow.gate.explanation import EARLY
from leptonflow.gate.rules.words import figures, result
from leptonflow.statistics import folds
from schemas.config import Pipeline
from schemas.constants import REFUSED
from schemas.records import FitResult, RuleResult, Verdict


def judged(config: Pipeline, fits: Sequence[FitResult]) -> RuleResult | None:
    """The row that refuses the candidate by these folds, in whatever order; None while they leave it a chance.

    The interval is that of the mean over folds (`statistics.folds.interval`), which counts folds as dependent. Each
    fold by itself has to be on the wrong side too, so that two folds of one score by chance decide nothing.
    """
    rule, count = config.stop_early_if, config.training.folds
    if rule is None or not rule.folds <= len(fits) < count:
        return None
    done = sorted(fits, key=lambda fit: fit.fold or 0)
    values = [fit.metrics.get(rule.metric) for fit in done]
    known = [value for value in values if value is not None]
    if len(known) < len(values):  # nothing is shown by a fold without a value
        return None
    found = folds.interval(known, count - 1, 1, rule.confidence)
    low = rule.below is not None
    if any((value >= rule.bound) if low else (value <= rule.bound) for value in known):
        return None
    end = found.high if low else found.low
    if (end >= rule.bound) if low else (end <= rule.bound):
        return None
    mean = sum(known) / len(known)
    numbers = ", ".join(str((fit.fold or 0) + 1) for fit in done)
    shown, bound = figures(end, rule.bound)
    told = (
        f"{rule.metric} is {figures(mean, mean)[0]} on average in folds {numbers} of {count}; the "
        f"{'upper' if low else 'lower'} end of its {rule.confidence:g} interval is {shown}, "
        f"{'below' if low else 'above'} {bound}"
    )
    return result(
        EARLY, rule.metric, mean, rule.bound, False, told, low=found.low, high=found.high, confidence=rule.confidence,
        n=len(known), method=found.method,
    )  # fmt: skip


def verdict(run_id: str, version: str, row: RuleResult, champion: str | None, against: int, looks: int) -> Verdict:
    """The decision of a run that was stopped: it looked at no holdout and made no package."""
    stays = "; the champion stays" if champion else ""
    return Verdict(
        run_id=run_id, version=version, verdict=REFUSED, rules=(row,), champion=champion, against=against, looks=looks,
        sentence=f"stopped early and refused by {row.rule}: {row.sentence}{stays}",
    )  # fmt: skip

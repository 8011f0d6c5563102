"""What to try after the gate refused a first candidate, or one for `baseline`: what it lacks, and the folds' curves.

What does not belong here: why it was refused and which number would have passed (gate.explanation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from schemas.records import FitResult, RuleResult, Verdict
from schemas.text import counted

LEARNED = 0.25  # of the first epoch's loss: where less is left, the training examples are known
FIRST = ("baseline", "at_least", "fold_spread")  # what mostly refuses where there is no champion yet
PAGE = "See `A first small dataset` in docs/bring-your-own-data.md"


def advice(store: Store, pipeline: str, verdict: Verdict) -> str | None:
    """Some sentences in one line; None where it is another refusal, or nothing is known of the folds."""
    wanted = FIRST if verdict.champion is None else FIRST[:1]
    failed = {rule.rule: rule for rule in verdict.rules if rule.passed is False and rule.rule in wanted}
    if not failed:
        return None
    fits: list[FitResult] = []
    while (fit := model_fits.fit_result(store, pipeline, verdict.version, len(fits))) is not None:
        fits.append(fit)
    told = [each for each in (_short(failed.get("baseline")), _curves(fits)) if each]
    return f"{'. '.join(each[:1].upper() + each[1:] for each in (*told, PAGE))}." if told else None


def _short(row: RuleResult | None) -> str | None:
    """How many examples it lacks, of an accuracy."""
    if row is None or row.metric != "accuracy" or row.value is None or row.bound is None or not row.n:
        return None
    right, needed = round(row.value * row.n), math.floor(row.bound * row.n + 1e-9) + 1
    if needed > row.n:
        return None
    return f"the candidate predicts {right} of {counted(row.n, 'holdout example')} correctly, and {needed} are required"


def _curves(fits: Sequence[FitResult]) -> str | None:
    """Whether the folds were still learning when they ended: by their mean losses, of both kinds of examples."""
    training, others = (_curve(fits, metric) for metric in ("loss", "val_loss"))
    if len(training) < 2 or len(others) != len(training):
        return None
    count, ends = len(training), f"from {_three(training[0])} to {_three(training[-1])}"
    if training[-1] > LEARNED * training[0] and others[-1] <= min(others):
        return (
            f"the folds were still learning when they ended after {counted(count, 'epoch')} (the loss of their "
            f"training examples fell {ends}, that of the others was falling too): try more `training.epochs` first"
        )
    learned = "had learned their training examples" if training[-1] <= LEARNED * training[0] else "no longer improved"
    return (
        f"the folds {learned} when they ended (the loss of their training examples fell {ends}, that of the others was "
        f"{_three(min(others))} at best and {_three(others[-1])} at the end): more epochs hardly help; more examples, "
        f"`training.augment` or a pretrained model may"
    )


def _curve(fits: Sequence[FitResult], metric: str) -> list[float]:
    """The mean over the folds after each epoch that all of them have."""
    curves = [[each.value for each in fit.epochs if each.metric == metric] for fit in fits]
    return [sum(values) / len(values) for values in zip(*curves, strict=False)]


def _three(value: float) -> str:
    return f"{value:.3g}"

"""The key `stop_early_if` of a pipeline's YAML: when the first folds show that a candidate is hopeless.

Keys, bounds and defaults belong here. How it is found out: `leptonflow.gate.early_refusal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from schemas.metrics import class_of
from schemas.rules import Confidence, Count, Frozen, Metric, Number, wrong
from schemas.training import Training
from schemas.workloads import Sections, lower_is_better


class StopEarly(Frozen):
    """The run ends as refused where the interval of the folds so far lies wholly on the wrong side of a bound.

    metric      as a rule names it
    below       the bound of a metric that is better when higher; above: of one that is better when lower
    folds       so many have to be finished before it is looked at
    confidence  of the interval, two-sided as those of the gate
    """

    metric: Metric
    below: Number | None = None
    above: Number | None = None
    folds: Annotated[Count, Field(ge=3)] = 3
    confidence: Confidence = 0.99

    @model_validator(mode="after")
    def _one_bound(self) -> StopEarly:
        if (self.below is None) == (self.above is None):
            raise wrong("stop_early_if", "one of below and above", "both" if self.below is not None else "neither")
        return self

    @property
    def bound(self) -> float:
        """The number that stands there."""
        found = self.below if self.below is not None else self.above
        assert found is not None
        return found


def check(rule: StopEarly, training: Training, sections: Sections, classes: Sequence[str] | None) -> None:
    """Raise a `wrong` error where the workload has no such metric, the classes no such class, or no fold is left."""
    name, fault = class_of(rule.metric), sections.metrics.fault(rule.metric)
    if fault:
        raise wrong("stop_early_if.metric", fault, rule.metric)
    if name is not None and classes is not None and name not in classes:
        raise wrong("stop_early_if.metric", f"a metric of one of the classes {', '.join(classes)}", rule.metric)
    better, worse = ("above", "below") if lower_is_better(rule.metric) else ("below", "above")
    if getattr(rule, worse) is not None:
        told = "lower" if better == "above" else "higher"
        raise wrong(f"stop_early_if.{worse}", f"{better}: {rule.metric} is better when {told}", rule.bound)
    if rule.folds >= training.folds:
        raise wrong("stop_early_if.folds", f"fewer than training.folds, {training.folds}", rule.folds)

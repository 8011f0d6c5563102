"""The best value that any candidate can have of what a rule looks at: beyond it no number would have passed. Pure.

What does not belong here: which value would have passed (explanation).
"""

from __future__ import annotations

from collections.abc import Mapping

from schemas.constants import BEST
from schemas.metrics import CLASSIFICATION
from schemas.records import RuleResult
from schemas.workloads import lower_is_better

TOLERANCE = 1e-12


def best(rule: RuleResult, sign: int, measured: Mapping[str, float | None]) -> float | None:
    """The largest (sign 1) or smallest (sign -1) value; None where there is no such bound, or none is known.

    measured: the candidate's metrics on the holdout, by which the champion's are known.
    """
    name = (rule.metric or "").partition("[")[0]
    share = name in CLASSIFICATION.names and name not in CLASSIFICATION.lower
    if sign < 0:
        return None if rule.rule == "overfit" else 0.0
    if rule.rule in ("at_least", "baseline"):
        return 1.0 if share else None
    mine = measured.get(rule.metric or "") if rule.rule in ("against_champion", BEST) else None
    if mine is None or rule.value is None:
        return 1.0 if share else None
    if lower_is_better(rule.metric):
        return mine + rule.value  # the champion's: nothing is below 0
    return 1.0 - (mine - rule.value) if share else None


def beyond(value: float, limit: float, sign: int, strict: bool = False) -> bool:
    """Whether no candidate can have this value, or with `strict` a better one."""
    return sign * (value - limit) > (-TOLERANCE if strict else TOLERANCE)

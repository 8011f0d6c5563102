"""Figures, bounds and sentences, told in one way by every rule. What a rule decides does not belong here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leptonflow.gate.rules.case import Case
from leptonflow.gate.rules.scores import units
from schemas.records import RuleResult
from schemas.text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# 0.95 - 0.96 is -0.010000000000000009: a bound that is met in decimals is met here too.
TOLERANCE = 1e-12


def promote_command(pipeline: str, version: str) -> str:
    """The command by which a person makes `version` champion, in backticks."""
    return f"`leptonflow promote {pipeline} --version {version} --reason TEXT`"


def approve_command(pipeline: str, run_id: str) -> str:
    """The commands by which a person decides about a run that waits for approval."""
    approve = f"`leptonflow approve {pipeline} {run_id}` makes it the champion"
    return f"{approve}, `leptonflow reject {pipeline} {run_id} --reason TEXT` does not"


def result(
    rule: str,
    metric: str | None,
    value: float | None,
    bound: float | None,
    passed: bool | None,
    sentence: str,
    *,
    slice: str | None = None,
    low: float | None = None,
    high: float | None = None,
    confidence: float | None = None,
    n: int | None = None,
    method: str | None = None,
) -> RuleResult:
    """A row. A reason that a person typed may hold newlines; a sentence is one line."""
    return RuleResult(
        rule=rule, metric=metric, value=value, bound=bound, passed=passed, sentence=" ".join(sentence.split()),
        slice=slice, low=low, high=high, confidence=confidence, n=n, method=method,
    )  # fmt: skip


def reaches(value: float, bound: float) -> bool:
    """value >= bound, in decimals."""
    return value >= bound - TOLERANCE


def figures(value: float, bound: float) -> tuple[str, str]:
    """Both with 4 significant digits, or as many as it takes to tell two different numbers apart."""
    for digits in range(4, 17):
        shown = tuple(f"{number:#.{digits}g}".rstrip(".") for number in (value, bound))
        if shown[0] != shown[1] or abs(value - bound) <= TOLERANCE:
            break
    return shown[0], shown[1]


def figure(value: float) -> str:
    """With 4 significant digits."""
    return figures(value, value)[0]


def gap(better: float, bound: float) -> tuple[str, str]:
    """How a difference and the bound that it is held to are told: `0.01000 worse`, `at most 0.02000 worse`."""
    shown, limit = figures(abs(better), abs(bound))
    direction = f"{shown} worse" if better < 0 else f"{shown} better" if better > 0 else "no different"
    return direction, f"at most {limit} worse" if bound < 0 else f"more than {limit} better" if bound > 0 else "better"


def incomparable(case: Case) -> tuple[bool | None, str] | None:
    """(passed, why) where there is nothing to compare the candidate with; None where there is.

    Null without a champion and where the candidate is the champion itself; false, with the way out,
    where the champion cannot be scored on the current holdout or it is not proven that neither was trained
    on it.
    """
    champion = case.champion
    if champion is None:
        return None, "there is no champion to compare with yet"
    if champion.version == case.version:
        return None, f"the candidate is the champion {champion.version} itself"
    why = case.evaluation.not_comparable or case.evidence.disjoint
    if why is None and (case.evaluation.champion_scores is None or case.evidence.champion is None):
        why = f"the champion {champion.version} has no scores on this holdout"
    if why is None and not len(case.evidence.labels):
        why = "the holdout is empty"
    if why is None:
        return None
    return False, f"not comparable: {why.rstrip('.')}; {way_out(case)}"


def way_out(case: Case) -> str:
    """How a person makes the candidate champion where the gate cannot."""
    return f"to make the candidate champion anyway: {promote_command(case.pipeline, case.version)}"


def clustered(groups: NDArray[np.int64] | None, floor: bool = False) -> str:
    """What a sentence adds where examples come in groups, which are then what is resampled.

    floor: whether its number is that of the test for independent examples, the stricter of the two.
    """
    if groups is None:
        return ""
    why = "examples of one group are not independent"
    if floor:
        why = "the test for independent examples, than which it is never more certain, decides here"
    return f" (by the cluster bootstrap over {counted(units(groups, len(groups)), 'group')}: {why})"


def finite(rows: NDArray[np.float64] | None) -> bool:
    """Whether every prediction is a number."""
    import numpy as np

    return rows is None or bool(np.isfinite(rows).all())

"""Why a run's candidate was promoted or refused, and what would have changed it, as sentences.

Made of the verdict's rules alone: nothing is measured again. `paragraph`, `summary` and `would_change` are pure.
What does not belong here: deciding (gate), and each rule's own sentence, which is only repeated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from leptonflow.gate import reachable
from leptonflow.gate.rules.words import approve_command, promote_command
from schemas.constants import PROMOTED, WAITING
from schemas.records import Record, RuleResult, Verdict
from schemas.workloads import lower_is_better

# Which side of its bound a rule wants its value on; the lower or the upper end of an interval, where there is one.
AT_MOST = frozenset({"at_most", "fold_spread", "calibration", "overfit", "latency", "size", "infra_validate"})
AT_LEAST = frozenset(
    {"at_least", "against_champion", "against_best_champion", "against_champion_cv", "baseline", "slices"}
)
STRICT = frozenset({"baseline"})  # a value that is equal to the bound fails
PASSED = (PROMOTED, WAITING)
# In every verdict, never in a YAML.
ALWAYS = frozenset({"infra_validate", "same-predictions", "stale-snapshot", "rolled-back"})
EARLY = "stop_early_if"  # the one rule of a run that its first folds ended
CANARY = "waiting for labelled predictions"  # how the sentence of a canary's verdict begins
AS_SAID = "what its sentence requires"
Measured = Mapping[str, float | None]
NOTHING: Measured = MappingProxyType({})
BY_HAND = "a person can still make it the champion"


class Change(Record):
    """What would have turned one rule over.

    needed    the value at which it would have: the bound, or for a rule that looks at an end of its interval the
              value whose interval of the same width just reaches the bound; null where no number would have,
              and where no candidate can have that value (then `reachable` is false)
    by        how far `value` is from it, never negative
    needed_n  where the value is on the right side and only its interval reaches over the bound: about how many
              examples would have been enough at the same value, else null
    """

    rule: str
    metric: str | None
    slice: str | None
    value: float | None
    bound: float | None
    low: float | None
    high: float | None
    n: int | None
    method: str | None
    needed: float | None
    by: float | None
    needed_n: int | None
    sentence: str
    reachable: bool = True


def paragraph(pipeline: str, verdict: Verdict, measured: Measured = NOTHING) -> str:
    """Why, what would have changed it, and what a person can do: some sentences, one line.

    measured: the candidate's metrics on the holdout, which tell what no candidate can reach.
    """
    promoted = verdict.verdict in PASSED
    same = verdict.champion == verdict.version
    if any(rule.rule == EARLY for rule in verdict.rules):
        return _stopped(verdict)
    opening = f"Run {verdict.run_id} evaluated version {verdict.version} "
    if verdict.champion is None:
        opening += "while there was no champion"
    elif same:
        opening += "again, which was already the champion"
    else:
        opening += f"against the champion {verdict.champion}"
    decided = "promoted it" if promoted and not same else "kept it" if promoted else "refused it"
    decided = f"passed it, which waits for {_awaited(verdict)}" if verdict.verdict == WAITING else decided
    sentences = [f"{opening} and {decided}", *_reasons(verdict, promoted)]
    sentences += _changes(verdict, promoted, measured)
    if not promoted:
        sentences.append(_way_out(pipeline, verdict))
    said = " ".join(sentences)
    sentences += [told for warning in verdict.warnings if (told := warning.rstrip(".")) not in said]
    if verdict.groups is not None:
        sentences.append(f"the examples of the holdout are {verdict.groups} groups, which every test resamples")
    if verdict.looks:
        times = "once" if verdict.looks == 1 else f"{verdict.looks} times"
        sentences.append(f"this holdout had been used {times} before")
    text = ". ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences if sentence)
    return " ".join(text.split()) + "."


def summary(pipeline: str, verdict: Verdict, measured: Measured = NOTHING) -> str:
    """The verdict, the reason that decided and what would change it: at most three sentences, one line."""
    promoted = verdict.verdict in PASSED
    turn = _turn(pipeline, verdict, promoted, measured)
    sentences = [_outcome(verdict, promoted), _decisive(verdict, promoted), turn]
    # A rule's sentence may hold several; here it is a part of one.
    plain = [" ".join(each.rstrip(".").replace(". ", "; ").split()) for each in sentences if each]
    return " ".join(f"{each[:1].upper()}{each[1:]}." for each in plain)


def would_change(verdict: Verdict, measured: Measured = NOTHING) -> list[Change]:
    """Of a refused run each rule that failed; of a promoted one each that held, the nearest to failing first.

    A verdict refused without a failed rule lists those of the YAML that did not apply: one had to hold.
    """
    if verdict.verdict in PASSED:
        held = [_change(rule, measured) for rule in verdict.rules if rule.passed and rule.rule not in ALWAYS]
        return sorted((c for c in held if c.by is not None), key=_slack)
    failed = [rule for rule in verdict.rules if rule.passed is False]
    idle = [rule for rule in verdict.rules if rule.passed is None and rule.rule not in ALWAYS]
    return [_change(rule, measured) for rule in failed or idle]


def _stopped(verdict: Verdict) -> str:
    kept = f"the champion {verdict.champion} stays" if verdict.champion else "there is no champion"
    told = [f"Run {verdict.run_id} was stopped early and refused", *(rule.sentence for rule in verdict.rules), kept]
    told.append("no package was made, and the holdout was not read")
    told.append("Without stop_early_if in the YAML the same command goes on with the folds that are left")
    return " ".join(f"{each[:1].upper()}{each[1:].rstrip('.')}." for each in told)


def _outcome(verdict: Verdict, promoted: bool) -> str:
    version, champion = verdict.version, verdict.champion
    if champion == version:
        passes = "passes its gate again and stays" if promoted else "was refused by its gate, and stays"
        return f"the champion {version} {passes}"
    if verdict.verdict == WAITING:
        stays = f"the champion {champion} stays until then" if champion else "there is no champion"
        return f"version {version} passed its gate and waits for {_awaited(verdict)}; {stays}"
    if champion is None:
        ended = "was promoted, the first champion" if promoted else "was refused; there is no champion"
        return f"version {version} {ended}"
    ended = f"was promoted over the champion {champion}" if promoted else f"was refused; the champion {champion} stays"
    return f"version {version} {ended}"


def _awaited(verdict: Verdict) -> str:
    """A person's approval, or the labels of a canary: the verdict's sentence says which."""
    return "labelled predictions" if verdict.sentence.startswith(CANARY) else "approval"


def _failed(verdict: Verdict) -> list[RuleResult]:
    """The rules that failed, the one that decided first: a package that does not load comes before every score."""
    return sorted((r for r in verdict.rules if r.passed is False), key=lambda r: r.rule != "infra_validate")


def _decisive(verdict: Verdict, promoted: bool) -> str:
    idle = [rule for rule in verdict.rules if rule.passed is None]
    if promoted:
        passed = f"{len(verdict.rules) - len(idle)} of {len(verdict.rules)} rules passed"
        return passed + (f" and {len(idle)} did not apply" if idle else "")
    failed = _failed(verdict)
    if not failed:
        own = [f"{rule.rule}: {rule.sentence}" for rule in idle if rule.rule not in ALWAYS]
        return f"none of the gate's own rules applied ({'; '.join(own)})"
    others = [name for name in dict.fromkeys(rule.rule for rule in failed) if name != failed[0].rule]
    more = f"; {', '.join(others)} failed too" if others else ""
    return f"the candidate failed {_named(failed[0]).removeprefix('the rule ')}{more}"


def _turn(pipeline: str, verdict: Verdict, promoted: bool, measured: Measured) -> str:
    """What would have changed the outcome, and what a person can do."""
    if verdict.verdict == WAITING:
        return approve_command(pipeline, verdict.run_id)
    if promoted:
        return "".join(_changes(verdict, promoted, measured))
    failed, way = _failed(verdict), _way_out(pipeline, verdict)
    found = _change(failed[0], measured) if failed else None
    if found is None or (found.needed is None and found.reachable):
        return way
    return f"it would have passed {_title(found)} with {found.sentence}; {way}"


def _title(found: RuleResult | Change) -> str:
    return f"{found.rule} on {found.slice}" if found.slice else found.rule


def _reasons(verdict: Verdict, promoted: bool) -> list[str]:
    names = {True: "passed", False: "failed", None: "did not apply"}
    by_outcome = {passed: [r for r in verdict.rules if r.passed is passed] for passed in names}
    counts = ", ".join(f"{len(by_outcome[p])} {word}" for p, word in names.items() if by_outcome[p])
    told = [f"of {len(verdict.rules)} rules {counts}"]
    if promoted:
        own = [r for r in by_outcome[True] if r.rule not in ALWAYS]
        told += [_named(rule) for rule in own if rule.slice is None]
        slices = sum(rule.slice is not None for rule in own)
        told += [f"no loss beyond the margin was shown on {slices} slices of the holdout"] if slices else []
    else:
        told += [f"{_named(rule)}{_evidence(rule)}" for rule in by_outcome[False]]
    # Rules that did not apply are always named.
    told += [f"{_named(rule)} (did not apply)" for rule in by_outcome[None] if rule.rule not in ALWAYS]
    return told


def _named(rule: RuleResult) -> str:
    return f"the rule {_title(rule)}: {rule.sentence.rstrip('.')}"


def _evidence(rule: RuleResult) -> str:
    parts = [f"n = {rule.n}"] if rule.n is not None else []
    if rule.low is not None and rule.high is not None:
        level = f"{rule.confidence:g} " if rule.confidence is not None else ""
        parts.append(f"{level}interval {_figure(rule.low)} to {_figure(rule.high)}")
    if rule.method:
        parts.append(rule.method)
    return f" ({', '.join(parts)})" if parts else ""


def _changes(verdict: Verdict, promoted: bool, measured: Measured) -> list[str]:
    changes = would_change(verdict, measured)
    if promoted:
        return [f"nearest to failing was {changes[0].rule}: {changes[0].sentence}"] if changes else []
    failed = any(rule.passed is False for rule in verdict.rules)  # then each one's sentence has been said already
    told = [c for c in changes if not (failed and c.needed is None and c.reachable)]
    return [f"it would have passed {_title(c)} with {c.sentence}" for c in told]


def _way_out(pipeline: str, verdict: Verdict) -> str:
    if any(rule.rule == "infra_validate" and rule.passed is False for rule in verdict.rules):
        return (
            "no override skips the infra-validation: `leptonflow retrain` with --force makes another package of the "
            "same data"
        )
    if verdict.champion == verdict.version:
        return "it was already the champion, and stays"
    return f"{BY_HAND}: {promote_command(pipeline, verdict.version)}"


def _change(rule: RuleResult, measured: Measured) -> Change:
    needed, by, needed_n = _needed(rule)
    sentence, sign, can = _what(rule, needed, by, needed_n), _sign(rule), True
    limit = reachable.best(rule, sign, measured) if sign is not None and not rule.passed else None
    strict = rule.rule in STRICT
    if needed is not None and sign is not None and limit is not None and reachable.beyond(needed, limit, sign, strict):
        sentence, can = _out_of_reach(rule, needed, limit, needed_n), False
        needed = by = None
    return Change(
        rule=rule.rule, metric=rule.metric, slice=rule.slice, value=rule.value, bound=rule.bound, low=rule.low,
        high=rule.high, n=rule.n, method=rule.method, needed=needed, by=by, needed_n=needed_n, sentence=sentence,
        reachable=can,
    )  # fmt: skip


def _out_of_reach(rule: RuleResult, needed: float, limit: float, needed_n: int | None) -> str:
    """What would have to be otherwise where no candidate could have passed."""
    sign, of = _sign(rule) or 1, _subject(rule)
    side, most = _side(rule), f"no candidate can have {'more' if sign > 0 else 'less'} than {_figure(limit)}"
    assert rule.bound is not None
    if reachable.beyond(rule.bound, limit, sign, rule.rule in STRICT):
        return f"another bound: {of} of {side} {_figure(rule.bound)} is required, and {most}"
    more = "groups" if "cluster" in (rule.method or "") else "examples"
    about = f", about {needed_n} examples instead of {rule.n}" if needed_n else ""
    with_these = f"with these {rule.n} examples" if rule.n else "with these examples"
    return f"more {more}{about}: {with_these} it takes {of} of {side} about {_figure(needed)}, and {most}"


def _needed(rule: RuleResult) -> tuple[float | None, float | None, int | None]:
    """(needed, by, needed_n) of Change."""
    sign = _sign(rule)
    if sign is None or not _number(rule.value) or not _number(rule.bound):
        return None, None, None
    assert rule.value is not None and rule.bound is not None
    # The end that was held against the bound; a slice fails only where even the better end is beyond it. A rule may
    # show an interval that did not decide: then the value did. Where neither explains the outcome, its test is another.
    worse, better = (rule.low, rule.high) if sign > 0 else (rule.high, rule.low)
    shown = better if rule.rule == "slices" else worse
    ends = [end for end in (shown, rule.value) if end is not None and math.isfinite(end)]
    end = next((each for each in ends if (sign * (rule.bound - each) > 0) != bool(rule.passed)), None)
    if end is None:
        return None, None, None
    short = sign * (rule.bound - end)
    needed_n = None
    width, room = sign * (rule.value - end), sign * (rule.value - rule.bound)
    if not rule.passed and rule.n and width > 0 and room > 0:
        needed_n = math.ceil(rule.n * (width / room) ** 2)  # a standard error falls with the root of n
    return rule.bound if end == rule.value else rule.value + sign * short, abs(short), needed_n


def _sign(rule: RuleResult) -> int | None:
    """1 where a larger value is better for the rule, -1 where a smaller one is; null where it holds no number."""
    if rule.rule in AT_MOST or (rule.rule == "baseline" and lower_is_better(rule.metric)):
        return -1
    if rule.rule in AT_LEAST:
        return 1
    return None


def _what(rule: RuleResult, needed: float | None, by: float | None, needed_n: int | None) -> str:
    if needed is None or by is None:
        if rule.passed is None:
            return f"something to compare ({rule.sentence.rstrip('.')})"
        return f"{AS_SAID} ({rule.sentence.rstrip('.')})"
    of = _subject(rule)
    about = "" if needed == rule.bound else "about "  # an interval keeps its width only about
    assert rule.value is not None
    if rule.passed:
        word = "below" if _sign(rule) == 1 else "above"
        if rule.rule in STRICT:
            word = "of at most" if _sign(rule) == 1 else "of at least"
        return f"{of} {word} {about}{_figure(needed)} would have refused it; it was {_figure(rule.value)}"
    told = f"{of} of {_side(rule)} {about}{_figure(needed)} instead of {_figure(rule.value)}, {_figure(by)} more"
    told = told if _sign(rule) == 1 else told.removesuffix(" more") + " less"
    more = "examples in more groups" if "cluster" in (rule.method or "") else "examples"
    return told + (f", or with about {needed_n} {more} at the same value instead of {rule.n}" if needed_n else "")


def _side(rule: RuleResult) -> str:
    """On which side of its bound a value passes."""
    if rule.rule in STRICT:
        return "more than" if _sign(rule) == 1 else "less than"
    return "at least" if _sign(rule) == 1 else "at most"


def _subject(rule: RuleResult) -> str:
    if rule.rule.startswith("against_") or rule.rule in ("slices", "overfit"):
        return f"a difference in {rule.metric}"
    if rule.rule == "fold_spread":
        return f"a standard deviation of {rule.metric}"
    return {"infra_validate": "a largest difference"}.get(rule.rule, rule.metric or rule.rule)


def _slack(change: Change) -> float:
    """How near to failing, so that metrics of different scales can be ordered: the distance as a part of the bound."""
    assert change.by is not None and change.bound is not None
    return change.by / max(abs(change.bound), 1e-3)


def _number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _figure(value: float) -> str:
    return f"{value:.4g}"

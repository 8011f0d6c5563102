"""The gate: a candidate's scores beside the champion's -> a Verdict. Pure: no store, no clock, no environment.

Every rule of a verdict belongs here, with its value, its bound and a sentence that a person
understands. Measuring (evaluation, infra) and acting on a verdict (registry) do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.config import AgainstChampion, AtLeast, AtMost, FoldSpread, Pipeline
from schemas.errors import ConfigurationError, LeptonflowError
from schemas.records import Evaluation, InfraResult, RuleResult, Verdict

if TYPE_CHECKING:
    from leptonflow.log import Log
    from leptonflow.registry import Champion

PROMOTED, REFUSED = "promoted", "refused"
LOWER_IS_BETTER = frozenset({"log_loss"})
# 0.95 - 0.96 is -0.010000000000000009: a bound that is met in decimals is met here too.
TOLERANCE = 1e-12


def decide(
    config: Pipeline,
    *,
    run_id: str,
    version: str,
    cv: Mapping[str, Mapping[str, Any]],
    evaluation: Evaluation,
    infra: InfraResult,
    champion: Champion | None,
    against: int,
    history: Log,
    snapshot_number: int,
    champion_snapshot_number: int | None,
) -> Verdict:
    """Weigh the candidate `version` against record `against` of the promotions log `history`.

    cv          metric: {"mean", "std" (ddof 1), "folds"} over the folds; a value may be null
    evaluation  candidate and champion on the same holdout
    infra       whether the packaged candidate reproduced its own predictions

    The verdict is `promoted` iff no rule is false and at least one of the YAML's own rules is true.
    Raises LeptonflowError where the measurements are not of this candidate and this champion.
    """
    _same_subject(version, champion, evaluation, infra)
    own = tuple(_weigh(rule, config.name, version, cv, evaluation, champion) for rule in config.gate)
    always = (
        _infra_validate(infra),
        _stale_snapshot(version, champion, snapshot_number, champion_snapshot_number),
        _rolled_back(config.name, version, history),
    )
    rules = own + always
    promoted = all(r.passed is not False for r in rules) and any(r.passed for r in own)
    return Verdict(
        run_id=run_id,
        version=version,
        verdict=PROMOTED if promoted else REFUSED,
        rules=rules,
        sentence=_sentence(config.name, version, own, rules, promoted, champion),
        champion=champion.version if champion else None,
        against=against,
    )


def check_metrics(config: Pipeline, classes: Sequence[str]) -> None:
    """Raise ConfigurationError where a rule names a class that the dataset does not have.

    To be asked before any training: a rule that can never be weighed would refuse only at the end.
    """
    for number, rule in enumerate(config.gate):
        found = re.fullmatch(r"\w+\[(.+)\]", rule.metric)
        if found and found[1] not in classes:
            raise ConfigurationError(
                f"gate.{number}.metric names a class that the dataset does not have",
                expected=f"one of {', '.join(classes)}",
                received=rule.metric,
                hint=f"Mend gate.{number}.metric",
            )


def _same_subject(version: str, champion: Champion | None, evaluation: Evaluation, infra: InfraResult) -> None:
    """A verdict on another model's numbers would be worse than none."""
    expected = (version, version, champion.version if champion else None)
    received = (evaluation.version, infra.version, evaluation.champion)
    if received != expected:
        raise LeptonflowError(
            "the measurements are of other versions than those that the gate weighs",
            expected="evaluation of {}, infra-validation of {}, champion {}".format(*expected),
            received="evaluation of {}, infra-validation of {}, champion {}".format(*received),
            hint="Run `leptonflow retrain` again",
        )


# --- the YAML's own rules ------------------------------------------------------------------------


def _weigh(
    rule: AtLeast | AtMost | FoldSpread | AgainstChampion,
    pipeline: str,
    version: str,
    cv: Mapping[str, Mapping[str, Any]],
    evaluation: Evaluation,
    champion: Champion | None,
) -> RuleResult:
    if isinstance(rule, AgainstChampion):
        return _against_champion(rule, pipeline, version, evaluation, champion)
    measured: float | None
    if isinstance(rule, FoldSpread) or rule.on == "cv":
        over = cv.get(rule.metric) or {}
        statistic = "std" if isinstance(rule, FoldSpread) else "mean"
        measured, where = over.get(statistic), f"over {len(over.get('folds') or ())} folds"
    else:
        measured, where = evaluation.candidate_scores.metrics.get(rule.metric), "on the holdout"
    subject = f"{rule.metric} {where}" if measured is not None or where == "on the holdout" else rule.metric
    if measured is None:
        why = "no example there counts towards it" if where == "on the holdout" else "a fold has no value for it"
        return _result(rule.rule, rule.metric, None, rule.value, None, f"{subject} cannot be computed: {why}")
    if not math.isfinite(measured):
        return _result(rule.rule, rule.metric, None, rule.value, False, f"{subject} is not a finite number")
    passed = _reaches(measured, rule.value) if isinstance(rule, AtLeast) else _reaches(rule.value, measured)
    value, bound = _figures(measured, rule.value)
    if isinstance(rule, FoldSpread):
        told = f"{subject} has a standard deviation of {value}"
    else:
        told = f"{subject} is {value}{' on average' if rule.on == 'cv' else ''}"
    asked = "at least" if isinstance(rule, AtLeast) else "at most"
    return _result(rule.rule, rule.metric, measured, rule.value, passed, f"{told}, {asked} {bound} was asked")


def _against_champion(
    rule: AgainstChampion, pipeline: str, version: str, evaluation: Evaluation, champion: Champion | None
) -> RuleResult:
    """value: candidate - champion on the holdout, signed so that positive is better; bound: -margin."""
    bound = 0.0 - rule.margin

    def told(value: float | None, passed: bool | None, sentence: str) -> RuleResult:
        return _result(rule.rule, rule.metric, value, bound, passed, sentence)

    if champion is None:
        return told(None, None, "there is no champion to compare with yet")
    if champion.version == version:
        return told(None, None, f"the candidate is the champion {version} itself")
    way_out = f"to make the candidate champion all the same, {promote_command(pipeline, version)}"
    if evaluation.not_comparable is not None or evaluation.champion_scores is None:
        why = evaluation.not_comparable or f"the champion {champion.version} has no scores on this holdout"
        return told(None, False, f"not comparable: {why.rstrip('.')}; {way_out}")
    candidates = evaluation.candidate_scores.metrics.get(rule.metric)
    champions = evaluation.champion_scores.metrics.get(rule.metric)
    subject = f"{rule.metric} on the holdout"
    if candidates is None or champions is None:
        return told(None, None, f"{subject} cannot be computed: no example there counts towards it")
    if not math.isfinite(candidates):
        return told(None, False, f"{subject} is not a finite number")
    if not math.isfinite(champions):
        return told(None, False, f"the champion's {subject} is not a finite number; {way_out}")
    better = champions - candidates if rule.metric in LOWER_IS_BETTER else candidates - champions
    passed = _reaches(better, bound)
    mine, theirs = _figures(candidates, champions)
    gap, margin = _figures(abs(better), rule.margin)
    direction = f"{gap} worse" if better < 0 else f"{gap} better" if better > 0 else "no different"
    asked = f"at most {margin} worse was asked" if rule.margin else "no worse was asked"
    sentence = f"{subject} is {mine}, that of the champion {champion.version} {theirs}: {direction}, {asked}"
    return told(better, passed, sentence)


# --- the rules of every verdict ------------------------------------------------------------------


def _infra_validate(infra: InfraResult) -> RuleResult:
    sentence = infra.sentence.rstrip(".")
    return _result("infra_validate", None, infra.largest_difference, infra.tolerance, infra.passed, sentence)


def _stale_snapshot(version: str, champion: Champion | None, mine: int, theirs: int | None) -> RuleResult:
    """A champion that learned from newer data is never replaced by one that learned from older."""
    name = "stale-snapshot"
    if champion is None or theirs is None:
        return _result(name, None, mine, None, None, "there is no champion whose data could be newer")
    if champion.version == version:
        return _result(name, None, mine, theirs, True, f"the candidate is the champion {version} itself")
    if theirs > mine:
        sentence = f"the champion {champion.version} learned from snapshot {theirs}, newer than the candidate's {mine}"
        return _result(name, None, mine, theirs, False, f"{sentence}; `leptonflow retrain` again uses the newest")
    sentence = f"the candidate learned from snapshot {mine}, the champion {champion.version} from {theirs}"
    return _result(name, None, mine, theirs, True, sentence)


def _rolled_back(pipeline: str, version: str, history: Log) -> RuleResult:
    """What a person took down comes back only by a person: the newest of their records on it decides."""
    down: int | None = None
    for entry in history.entries:
        if entry.kind == "rollback" and entry.body.get("previous") == version:
            down = entry.number
        elif entry.kind in ("override", "rollback") and entry.body.get("version") == version:
            down = None
    if down is None:
        return _result("rolled-back", None, None, None, True, "no person has taken this version down")
    entry = history.entries[down - 1]
    sentence = f"{entry.who} took this version down in record {down} ({entry.why}); only a person brings it back"
    return _result("rolled-back", None, None, None, False, f"{sentence}: {promote_command(pipeline, version)}")


# --- words ---------------------------------------------------------------------------------------


def promote_command(pipeline: str, version: str) -> str:
    """The command by which a person makes `version` champion, in backticks."""
    return f"`leptonflow promote {pipeline} --version {version} --reason TEXT`"


def _sentence(
    pipeline: str,
    version: str,
    own: Sequence[RuleResult],
    rules: Sequence[RuleResult],
    promoted: bool,
    champion: Champion | None,
) -> str:
    """Why, in one line."""
    same = champion is not None and champion.version == version
    stays = "; the champion stays" if champion else ""
    failed = [f"{r.rule}: {r.sentence}" for r in rules if r.passed is False]
    if failed:
        return f"refused by {'; '.join(failed)}{stays}"
    if not promoted:
        why = f"refused: none of the gate's own rules could be weighed ({'; '.join(r.sentence for r in own)})"
        way_out = "add an `at_least` rule to the gate"
        return f"{why}; {way_out}" + ("" if same else f" or run {promote_command(pipeline, version)}") + stays
    idle = sum(r.passed is None for r in rules)
    passed = f"{len(rules) - idle} of {len(rules)} rules passed" + (f", {idle} did not apply" if idle else "")
    if same:
        return f"the champion {version} passes its gate again and stays: {passed}"
    return f"promoted over {champion.version}: {passed}" if champion else f"promoted, the first champion: {passed}"


def _result(
    rule: str, metric: str | None, value: float | None, bound: float | None, passed: bool | None, sentence: str
) -> RuleResult:
    sentence = " ".join(sentence.split())  # a reason that a person typed may hold newlines; a sentence is one line
    return RuleResult(rule=rule, metric=metric, value=value, bound=bound, passed=passed, sentence=sentence)


def _reaches(value: float, bound: float) -> bool:
    return value >= bound - TOLERANCE


def _figures(value: float, bound: float) -> tuple[str, str]:
    """Both with 4 significant digits, or as many as it takes to tell two different numbers apart."""
    for digits in range(4, 17):
        shown = tuple(f"{number:#.{digits}g}".rstrip(".") for number in (value, bound))
        if shown[0] != shown[1] or abs(value - bound) <= TOLERANCE:
            break
    return shown[0], shown[1]

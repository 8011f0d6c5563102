"""The gate: a candidate's scores beside the champion's -> a Verdict. Pure: no store, no clock, no environment.

Evaluating every rule of a verdict and what they decide together belongs here; how one rule is evaluated is
in `rules`. Measuring (evaluation, load_check), gathering (evidence) and acting on a verdict (registry) do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.gate.rules import against, always, bounds, measures, slicing
from leptonflow.gate.rules.case import Case, Evaluated
from leptonflow.gate.rules.scores import units
from leptonflow.gate.rules.words import promote_command
from schemas import rules as yaml_rules
from schemas.config import Pipeline
from schemas.constants import PROMOTED, REFUSED, WAITING
from schemas.errors import ConfigurationError, LeptonflowError
from schemas.metrics import class_of
from schemas.records import Evaluation, InfraResult, RuleResult, Verdict

if TYPE_CHECKING:
    from leptonflow.gate.evidence import Evidence
    from leptonflow.registry.champion_log import Champion
    from leptonflow.storage.commit_log import Log

EVALUATE: dict[type, Callable[[Any, Case], Evaluated]] = {
    yaml_rules.AtLeast: bounds.evaluate,
    yaml_rules.AtMost: bounds.evaluate,
    yaml_rules.FoldSpread: bounds.evaluate,
    yaml_rules.AgainstChampion: against.evaluate,
    yaml_rules.Slices: slicing.evaluate,
    yaml_rules.Calibration: measures.calibration,
    yaml_rules.Baseline: measures.baseline,
    yaml_rules.Overfit: measures.overfit,
    yaml_rules.Latency: measures.latency,
    yaml_rules.Size: measures.size,
}


def decide(
    config: Pipeline,
    *,
    run_id: str,
    version: str,
    cv: Mapping[str, Mapping[str, Any]],
    evaluation: Evaluation,
    infra: InfraResult,
    evidence: Evidence,
    champion: Champion | None,
    against: int,
    history: Log,
    snapshot_number: int,
    champion_snapshot_number: int | None,
    proven: Mapping[str, Champion] | None = None,
) -> Verdict:
    """Evaluate the candidate `version` against record `against` of the promotions log `history`.

    cv          metric: {"mean", "std" (ddof 1), "folds"} over the folds; a value may be null
    evaluation  candidate and champion on the same holdout; evidence: the same, example by example
    infra       whether the packaged candidate reproduced its own predictions
    proven      metric: the best proven champion by it (registry.proven_champions), where that is not the last

    The verdict is `promoted` iff no rule is false and at least one of the YAML's own rules is true; `waiting` instead
    where the YAML has `promotion`, or `serving.canary` and there is a champion, and another version would become it.
    Raises LeptonflowError where the measurements are not of this candidate and this champion.
    """
    _same_subject(version, champion, evaluation, infra)
    case = Case(config.name, version, cv, evaluation, infra, champion, evidence, proven or {})
    evaluated = [EVALUATE[type(rule)](rule, case) for rule in config.gate]
    own = tuple(row for found in evaluated for row in found.rows)
    rules = (
        *own,
        always.infra_validate(case),
        always.same_predictions(case),
        always.stale_snapshot(case, snapshot_number, champion_snapshot_number),
        always.rolled_back(case, history),
    )
    passed = all(r.passed is not False for r in rules) and any(r.passed for r in own)
    asks = config.promotion is not None or (config.serving.canary is not None and champion is not None)
    waits = passed and asks and not (champion and champion.version == version)
    warnings = (*dict.fromkeys(w.note for w in evaluated if w.note), *_worn(evidence.looks, config.looks.warn))
    word = WAITING if waits else PROMOTED if passed else REFUSED
    sentence = _sentence(config, version, own, rules, word, champion)
    return Verdict(
        run_id=run_id,
        version=version,
        verdict=word,
        rules=rules,
        sentence="; ".join([sentence, *_unsaid(warnings, sentence, own if passed else ())]),
        champion=champion.version if champion else None,
        against=against,
        looks=evidence.looks,
        warnings=warnings,
        groups=None if evidence.groups is None else units(evidence.groups, len(evidence.labels)),
    )


def check_metrics(config: Pipeline, classes: Sequence[str]) -> None:
    """Raise ConfigurationError where a rule names a class that the dataset does not have.

    To be called before any training: a rule that can never be evaluated would refuse only at the end.
    """
    for number, rule in enumerate(config.gate):
        metric = getattr(rule, "metric", None)
        name = class_of(metric)
        if name is not None and name not in classes:
            raise ConfigurationError(
                f"gate.{number}.metric names a class that the dataset does not have",
                expected=f"one of {', '.join(classes)}",
                received=metric,
                hint=f"Fix gate.{number}.metric",
            )


def _same_subject(version: str, champion: Champion | None, evaluation: Evaluation, infra: InfraResult) -> None:
    """A verdict on another model's numbers would be worse than none."""
    expected = (version, version, champion.version if champion else None)
    received = (evaluation.version, infra.version, evaluation.champion)
    if received != expected:
        raise LeptonflowError(
            "the measurements are of other versions than those that the gate compares",
            expected="evaluation of {}, infra-validation of {}, champion {}".format(*expected),
            received="evaluation of {}, infra-validation of {}, champion {}".format(*received),
            hint="Run `leptonflow retrain` again",
        )


# --- words ---------------------------------------------------------------------------------------


def _sentence(
    config: Pipeline,
    version: str,
    own: Sequence[RuleResult],
    rules: Sequence[RuleResult],
    verdict: str,
    champion: Champion | None,
) -> str:
    """Why, in one line."""
    same = champion is not None and champion.version == version
    stays = "; the champion stays" if champion else ""
    failed = [f"{r.rule}: {r.sentence}" for r in rules if r.passed is False]
    if failed:
        return f"refused by {'; '.join(failed)}{stays}"
    if verdict == REFUSED:
        why = f"refused: none of the gate's own rules could be evaluated ({'; '.join(r.sentence for r in own)})"
        way_out = "add an `at_least` rule to the gate"
        return f"{why}; {way_out}" + ("" if same else f" or run {promote_command(config.name, version)}") + stays
    idle = sum(r.passed is None for r in rules)
    passed = f"{len(rules) - idle} of {len(rules)} rules passed" + (f", {idle} did not apply" if idle else "")
    if same:
        return f"the champion {version} passes its gate again and stays: {passed}"
    if verdict == WAITING:
        over = f"to replace the champion {champion.version}" if champion else "to be the first champion"
        what = "approval" if config.promotion is not None else "labelled predictions"
        return f"waiting for {what} {over}: {passed}"
    return f"promoted over {champion.version}: {passed}" if champion else f"promoted, the first champion: {passed}"


def _unsaid(warnings: Sequence[str], sentence: str, passed: Sequence[RuleResult]) -> list[str]:
    """The warnings that the verdict's sentence must add; none that a rule which passed says in its own."""
    said = [sentence, *(rule.sentence for rule in passed)]
    return [warning for warning in warnings if not any(warning in each for each in said)]


def _worn(looks: int, warn: int) -> tuple[str, ...]:
    """A holdout leaks a little with each evaluation: a warning where there were more than `looks.warn` of them."""
    if looks <= warn:
        return ()
    return (
        f"{looks} earlier verdicts evaluated on this holdout, more than {warn}: choosing by it overfits it, and "
        "only new batches bring fresh holdout examples",
    )

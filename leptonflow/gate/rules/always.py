"""The rules of every verdict, never written in a YAML: they can refuse, and promote nothing."""

from __future__ import annotations

from leptonflow.gate.rules.case import Case
from leptonflow.gate.rules.words import promote_command, result
from leptonflow.storage.commit_log import Log
from schemas.records import RuleResult


def infra_validate(case: Case) -> RuleResult:
    """Whether the packaged candidate reproduced its own predictions in a fresh process."""
    infra = case.infra
    sentence = infra.sentence.rstrip(".")
    return result(
        "infra_validate", None, infra.largest_difference, infra.tolerance, infra.passed, sentence, n=infra.examples
    )


def same_predictions(case: Case) -> RuleResult:
    """A candidate that predicts what the champion predicts is no reason to change the champion."""
    import numpy as np

    name, champion, bound = "same-predictions", case.champion, case.infra.tolerance
    if champion is None or champion.version == case.version:
        sentence = "there is no champion yet" if champion is None else "the candidate is the champion itself"
        return result(name, None, None, None, None, sentence)
    mine, theirs = case.evidence.candidate, case.evidence.champion
    if theirs is None or not len(mine) or not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        return result(name, None, None, bound, None, f"the champion {champion.version} has no predictions to compare")
    difference = float(np.abs(mine - theirs).max())
    if difference <= bound:
        sentence = f"the candidate predicts what the champion {champion.version} predicts, on every holdout example"
        return result(name, None, difference, bound, False, sentence, n=len(mine))
    sentence = f"two predictions differ by up to {difference:.2g} from those of the champion {champion.version}"
    return result(name, None, difference, bound, True, sentence, n=len(mine))


def stale_snapshot(case: Case, mine: int, theirs: int | None) -> RuleResult:
    """A champion that learned from newer data is never replaced by one that learned from older."""
    name, champion = "stale-snapshot", case.champion
    if champion is None or theirs is None:
        return result(name, None, mine, None, None, "there is no champion whose data could be newer")
    if champion.version == case.version:
        return result(name, None, mine, theirs, True, f"the candidate is the champion {case.version} itself")
    if theirs > mine:
        sentence = f"the champion {champion.version} learned from snapshot {theirs}, newer than the candidate's {mine}"
        return result(name, None, mine, theirs, False, f"{sentence}; `leptonflow retrain` again uses the newest")
    sentence = f"the candidate learned from snapshot {mine}, the champion {champion.version} from {theirs}"
    return result(name, None, mine, theirs, True, sentence)


def rolled_back(case: Case, history: Log) -> RuleResult:
    """A version that a person rolled back is promoted again only by a person: the newest record about it decides."""
    down: int | None = None
    for entry in history.entries:
        if entry.kind == "rollback" and entry.body.get("previous") == case.version:
            down = entry.number
        elif entry.kind in ("override", "rollback") and entry.body.get("version") == case.version:
            down = None
    if down is None:
        return result("rolled-back", None, None, None, True, "nobody has rolled this version back")
    entry = history.entries[down - 1]
    sentence = f"{entry.who} rolled this version back in record {down} ({entry.why}); only a person can promote it"
    return result("rolled-back", None, None, None, False, f"{sentence}: {promote_command(case.pipeline, case.version)}")

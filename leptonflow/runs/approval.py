"""A person approves or rejects a run that waits: the gate decides once more, against the champion of today.

The decision is one object that is created once, so that of several people one decides; then the promotions log gets its
record. Whatever was interrupted between the two, the same command completes. What does not belong here: which runs wait
(approvals), and the rules (gate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leptonflow.core import person, store_keys
from leptonflow.core.hashing import canonical
from leptonflow.evaluation import holdout_evaluation, load_check
from leptonflow.registry import champion_log, lineage, packages, proven_champions
from leptonflow.runs import approvals, verdicts
from leptonflow.runs.approvals import APPROVED, REJECTED, UNDECIDED, Approval
from leptonflow.runs.verdicts import Opponent
from leptonflow.storage.commit_log import Log, LostRace
from leptonflow.storage.objects import adopt
from leptonflow.storage.store import Store
from schemas.approvals import ApprovalDecision, ApprovalRequest
from schemas.config import Pipeline
from schemas.constants import PROMOTED, REFUSED, WAITING
from schemas.errors import LeptonflowError, NotFound, UsageError
from schemas.records import PackageRef, Plan, Verdict

ATTEMPTS = 3


@dataclass(frozen=True)
class Case:
    """A run that waits, and what the gate needs to decide about it again."""

    config: Pipeline
    approval: Approval
    plan: Plan
    package: PackageRef

    @property
    def request(self) -> ApprovalRequest:
        return self.approval.request


def approve(
    store: Store, config: Pipeline, run_id: str, who: str, reason: str, now: str, *, evaluates: bool = True
) -> dict[str, Any]:
    """Make the run's version the champion, if its gate passes against the champion of today. Safe to repeat.

    now        as `clock.now` gives it; evaluates: whether this process may load models, where the promotions log has
               got records since the run: a server may not

    Returns {run_id, version, outcome (promoted, refused), champion, record (the new row of `history`, null where there
    is none), who, reason, at, gate (the rules), sentence}. A run that was approved before is told with who approved it.
    Raises NotFound for a run that never waited; UsageError for a person who may not; LeptonflowError for a run that
    waits no more, a package that is damaged, and where the YAML's gate has changed; Overtaken after three lost races.
    """
    approval = _open(store, config, run_id, who, now)
    if approval.state == PROMOTED:
        return _document(store, approval, None, None)
    case = case_of(store, config, approval)
    log = champion_log.promotions(store, config.name, complete=True)
    for attempt in range(ATTEMPTS):
        champion = champion_log.champion(log)
        if champion is not None and champion.version == case.request.version:  # by another's command, meanwhile
            return _document(store, approvals.every(store, config.name, now)[run_id], None, None)
        verdict = _decided(store, case, log, evaluates)
        if verdict.verdict == REFUSED:
            return _refused(store, case, verdict, who, reason, now)
        sentence = _words("approved", who, reason)
        decision = approvals.decide(store, case.request, APPROVED, who, reason, now, sentence, verdict)
        if decision.outcome != APPROVED:
            raise _too_late(config.name, approvals.every(store, config.name, now)[run_id])
        try:
            record = _committed(store, case, log, verdict, decision)
        except LostRace as lost:
            if attempt == ATTEMPTS - 1:
                raise
            log = lost.log
            continue
        return _document(store, approvals.every(store, config.name, now)[run_id], record, verdict)
    raise AssertionError("the loop returns or raises")


def reject(store: Store, config: Pipeline, run_id: str, who: str, reason: str, now: str) -> dict[str, Any]:
    """End the wait of a run: its version does not become the champion. The document is that of `approve`.

    Raises as `approve` does, and UsageError without a reason.
    """
    reason = person.reason(reason)
    approval = _open(store, config, run_id, who, now)
    if approval.state == WAITING:
        sentence = _words("rejected", who, reason)
        decision = approvals.decide(store, approval.request, REJECTED, who, reason, now, sentence)
        approval = approvals.every(store, config.name, now)[run_id]
        if decision.outcome == REJECTED:
            return _document(store, approval, None, None)
    raise _too_late(config.name, approval)


def _open(store: Store, config: Pipeline, run_id: str, who: str, now: str) -> Approval:
    """The run's approval: waiting, approved and not completed, or promoted. Raises for any other."""
    approvals.close(store, config.name, now)
    found = approvals.every(store, config.name, now)
    if run_id not in found:
        waits = [each.request.run_id for each in found.values() if each.state in UNDECIDED]
        raise NotFound(
            f"no run {run_id or repr(run_id)} of the pipeline {config.name} waits for approval",
            expected=f"the run {waits[0]}" if waits else "a run that waits, and there is none",
            received=run_id or "an empty name",
            hint=f"`leptonflow runs {config.name}` lists the runs",
        )
    people = config.promotion.approve if config.promotion is not None else ()
    if people and who not in people:
        raise UsageError(
            f"{who} may not decide about the promotions of {config.name}",
            expected=f"one of {', '.join(people)} (promotion.approve in the pipeline's YAML)",
            received=who,
            hint="LEPTONFLOW_USER is the name that a command acts under",
        )
    approval = found[run_id]
    if approval.state not in (*UNDECIDED, PROMOTED):
        raise _too_late(config.name, approval)
    return approval


def _too_late(pipeline: str, approval: Approval) -> LeptonflowError:
    version, told = approval.request.version, approval.sentence
    by_hand = f"`leptonflow promote {pipeline} --version {version} --reason TEXT` makes it the champion all the same"
    return LeptonflowError(
        f"the run {approval.request.run_id} does not wait for approval any more",
        expected="a run that waits",
        received=f"{approval.state}: {told}",
        hint=f"`leptonflow rollback {pipeline} --reason TEXT` takes a promotion back"
        if approval.state in (PROMOTED, APPROVED)
        else by_hand,
    )


def case_of(store: Store, config: Pipeline, approval: Approval) -> Case:
    """Raises LeptonflowError where the YAML asks for another gate than the one that the run passed."""
    request = approval.request
    manifest = packages.manifest(store, config.name, request.version)
    snapshot = lineage.snapshot_of(store, config, manifest, request.snapshot_number)
    if approvals.configuration(config, snapshot.content) != request.configuration:
        raise LeptonflowError(
            f"the gate, the input or the model of {config.name} is no longer that of the run {request.run_id}",
            expected="the YAML under which the run passed its gate",
            received="another one",
            hint=f"`leptonflow retrain {config.name}` decides by the current one",
        )
    plan = Plan(
        pipeline=config.name, attempt=0, version=request.version, run_id=request.run_id, snapshot=snapshot, waiting=(),
        trained=True, finished=True,
    )  # fmt: skip
    return Case(config, approval, plan, packages.reference(store, config.name, request.version))


def _decided(store: Store, case: Case, log: Log, evaluates: bool) -> Verdict:
    """The gate's verdict against the head of the log; the recorded one where that has not moved since.

    Raises LeptonflowError where the package is damaged or does not reproduce its predictions.
    """
    config, request = case.config, case.request
    infra = load_check.validate(store, config, request.version, case.package.manifest_sha256)
    if not infra.passed:
        raise LeptonflowError(
            f"the version {request.version} does not pass its infra-validation",
            expected="its own predictions, reproduced in a fresh process",
            received=infra.sentence,
        )
    if log.number == request.against:
        recorded = champion_log.decision(store, config.name, request.run_id, request.against)
        return recorded.model_copy(update={"verdict": PROMOTED})
    if not evaluates:
        raise LeptonflowError(
            f"the promotions log has changed since the run {request.run_id}, and this process loads no models",
            expected=f"record {request.against} as the last one",
            received=f"record {log.number}",
            hint=f"`leptonflow approve {config.name} {request.run_id}` evaluates the version again",
        )
    champion = champion_log.champion(log)
    best = proven_champions.champions(store, config, log)
    opponent = Opponent(against=log.number, champion=champion, verdict=None, told=False, proven=best)
    evaluation = holdout_evaluation.evaluate(store, config, case.plan, champion, opponent.rivals)
    return verdicts.decide(store, unasked(config), case.plan, opponent, evaluation, infra)


def unasked(config: Pipeline) -> Pipeline:
    """The pipeline with nobody to ask once its gate has passed a candidate."""
    serving = config.serving.model_copy(update={"canary": None})
    return config.model_copy(update={"promotion": None, "serving": serving})


def _committed(store: Store, case: Case, log: Log, verdict: Verdict, decision: ApprovalDecision) -> dict[str, Any]:
    """The new row of `history`. Raises LostRace."""
    who = decision.who or case.request.run_id
    why = f"{decision.sentence}; its run was {verdict.sentence}"
    number = log.number
    log = champion_log.approve(store, case.plan, log, verdict, case.package.manifest_sha256, who, why)
    return champion_log.history(log)[number]


def _refused(store: Store, case: Case, verdict: Verdict, who: str, reason: str, now: str) -> dict[str, Any]:
    """The gate refuses the version against today's champion: that ends the wait, whoever had approved it."""
    request = case.request
    sentence = f"refused as {who} approved it: {verdict.sentence}"
    decision = approvals.decide(store, request, REFUSED, who, reason, now, sentence, verdict)
    if decision.outcome == APPROVED:
        key = store_keys.approval_key(request.pipeline, request.run_id, approvals.REFUSAL)
        adopt(store, key, canonical(verdict))
    approval = approvals.every(store, request.pipeline, now)[request.run_id]
    if approval.state != REFUSED:
        raise _too_late(request.pipeline, approval)
    return _document(store, approval, None, verdict)


def _document(
    store: Store, approval: Approval, record: dict[str, Any] | None, verdict: Verdict | None
) -> dict[str, Any]:
    request = approval.request
    return {
        "run_id": request.run_id,
        "version": request.version,
        "outcome": approval.state,
        "champion": champion_log.current_version(store, request.pipeline),
        "record": record,
        "who": approval.who,
        "reason": approval.reason,
        "at": approval.decided_at,
        "gate": None if verdict is None else [rule.model_dump() for rule in verdict.rules],
        "sentence": approval.sentence,
    }


def _words(what: str, who: str, reason: str) -> str:
    plain = " ".join(reason.split())
    return f"{what} by {who}" + (f": {plain}" if plain else "")

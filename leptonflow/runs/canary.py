"""A canary: a candidate that its gate passed answers a share of the requests, and their labels decide about it.

It is an approval whose approver is the gate itself, on labelled requests that the champion predicted too. Every
decision is an object that is created once; whoever asks again gets the same. What does not belong here: answering
requests (serving) and what the gate argues from (live_evidence).
"""

from __future__ import annotations

from typing import Any

from leptonflow.core import store_keys
from leptonflow.core.hashing import canonical
from leptonflow.evaluation import holdout_evaluation, load_check
from leptonflow.gate import decision, evidence
from leptonflow.registry import champion_log, packages
from leptonflow.runs import approval, approvals, live_evidence, recording
from leptonflow.runs.approvals import Approval
from leptonflow.runs.live_evidence import Labelled
from leptonflow.storage.commit_log import Log
from leptonflow.storage.objects import adopt, read_model
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.constants import PROMOTED, REFUSED, WAITING
from schemas.errors import Damaged, NotFound
from schemas.records import Verdict
from schemas.text import counted

WHO = "canary"
LIVE = "live.json"


def waiting(store: Store, config: Pipeline, now: str) -> str | None:
    """The version that answers a share of the requests and waits for labels. now: as `clock.now` gives it."""
    newest = _current(store, config, now)
    return newest.request.version if newest is not None and newest.state in approvals.UNDECIDED else None


def _current(store: Store, config: Pipeline, now: str) -> Approval | None:
    """The canary that is decided about: one before it whose promotion was interrupted waits for a person."""
    found = [each for each in approvals.every(store, config.name, now).values() if each.request.labels is not None]
    return found[-1] if found else None


def newest(store: Store, config: Pipeline) -> str | None:
    """The version of the newest finished run, None where that is the champion: what `shadow: candidate` is."""
    champion = champion_log.champion(champion_log.promotions(store, config.name))
    finished = [run for run in recording.runs(store, config.name) if run["verdict"] in (PROMOTED, REFUSED, WAITING)]
    version = finished[-1]["version"] if finished else None
    return None if champion is None or version == champion.version else version


def decide(store: Store, config: Pipeline, now: str) -> dict[str, Any]:
    """Promote the canary or take it back, if its labels or its time say so. Safe to repeat, at once too.

    {pipeline, run_id, version, champion, state, labelled, needed, expires_at, gate, sentence}: `state` is that of the
    approval; run_id is null where no canary is or was. Raises what reading and committing raise.
    """
    approvals.close(store, config.name, now)
    newest = _current(store, config, now)
    if newest is None:
        return _document(config, None, 0, None)
    found = _labelled(store, config, newest)
    count = 0 if found is None else len(found.labels)
    if newest.state not in approvals.UNDECIDED:
        return _document(config, newest, count, _recorded(store, newest))
    log = champion_log.promotions(store, config.name, complete=True)
    why: str | None
    if log.number != newest.request.against:
        why = "another champion came while it answered"
    elif found is None:
        why = "the champion has other classes: their answers cannot be compared"
    elif count < (newest.request.labels or 0):
        return _document(config, newest, count, None)
    else:
        why = _act(store, approval.case_of(store, config, newest), log, found, now)
    if why is not None:
        _take_back(store, config, newest, why, now)
    ended = approvals.every(store, config.name, now)[newest.request.run_id]
    return _document(config, ended, count, _recorded(store, newest))


def _take_back(store: Store, config: Pipeline, newest: Approval, why: str, now: str) -> None:
    """End the wait. One that was approved is refused: its promotion was interrupted, and another champion came."""
    request = newest.request
    if newest.state == WAITING:
        approval.reject(store, config, request.run_id, WHO, why, now)
        return
    by_a_person = champion_log.decision(store, config.name, request.run_id, request.against)
    key = store_keys.approval_key(config.name, request.run_id, approvals.REFUSAL)
    adopt(store, key, canonical(_recorded(store, newest) or by_a_person))


def _act(store: Store, case: approval.Case, log: Log, found: Labelled, now: str) -> str | None:
    """Let the gate decide on the labels, and promote if it says so; else why the canary is taken back."""
    request = case.request
    key = store_keys.approval_key(request.pipeline, request.run_id, LIVE)
    if store.size(key) is None:
        adopt(store, key, canonical(_verdict(store, case, log, found)))
    verdict = read_model(Verdict, key, store.get(key), "the verdict on a canary")
    if verdict.verdict != PROMOTED:
        return verdict.sentence
    approval.approve(store, case.config, request.run_id, WHO, verdict.sentence, now, evaluates=False)
    return None


def _verdict(store: Store, case: approval.Case, log: Log, found: Labelled) -> Verdict:
    """The gate's own rules on the labelled requests."""
    config, request, plan = live_evidence.asked(approval.unasked(case.config)), case.request, case.plan
    champion = champion_log.champion(log)
    assert champion is not None and plan.snapshot is not None
    infra = load_check.validate(store, config, request.version, case.package.manifest_sha256)
    evaluation = holdout_evaluation.evaluate(store, config, plan, champion)  # as the run recorded it
    gathered = evidence.gather(store, config, plan, champion, evaluation, infra)
    manifest = packages.manifest(store, config.name, request.version)
    live, scored = live_evidence.in_place_of_holdout(gathered, evaluation, found, config, manifest.classes)
    verdict = decision.decide(
        config, run_id=request.run_id, version=request.version, cv=manifest.cv, evaluation=scored, infra=infra,
        evidence=live, champion=champion, against=log.number, history=log, snapshot_number=plan.snapshot.number,
        champion_snapshot_number=champion.snapshot_number,
    )  # fmt: skip
    told = live_evidence.worded(verdict)
    return told.model_copy(update={"sentence": f"on {counted(len(found.labels), 'labelled request')}: {told.sentence}"})


def _labelled(store: Store, config: Pipeline, newest: Approval) -> Labelled | None:
    """None where the two versions cannot be compared, one that cannot be read among them."""
    request = newest.request
    try:
        both = [packages.manifest(store, config.name, each) for each in (request.version, request.champion or "")]
    except (NotFound, Damaged):
        return None
    return live_evidence.labelled(store, config.name, *both)


def _recorded(store: Store, newest: Approval) -> Verdict | None:
    key = store_keys.approval_key(newest.request.pipeline, newest.request.run_id, LIVE)
    return None if store.size(key) is None else read_model(Verdict, key, store.get(key), "the verdict on a canary")


def _document(config: Pipeline, newest: Approval | None, count: int, verdict: Verdict | None) -> dict[str, Any]:
    request = newest.request if newest else None
    needed = request.labels if request else None
    sentence = newest.sentence if newest else "no canary has answered yet"
    if newest is not None and newest.state == WAITING:
        sentence = f"{count} of {needed} labelled requests so far; {sentence}"
    return {
        "pipeline": config.name,
        "run_id": request.run_id if request else None,
        "version": request.version if request else None,
        "champion": request.champion if request else None,
        "state": newest.state if newest else None,
        "labelled": count,
        "needed": needed,
        "expires_at": request.expires_at if request else None,
        "gate": None if verdict is None else [rule.model_dump() for rule in verdict.rules],
        "sentence": sentence,
    }

"""The champion and its history: a commit log per pipeline, and how a run's verdict becomes a record of it.

Reading the promotions log and settling a run's decision belongs here. What a person decides is
`overrides`; what lies in a package is `packages`; deciding is `gate`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from leptonflow.core import store_keys
from leptonflow.core.hashing import canonical, digest
from leptonflow.storage import commit_log
from leptonflow.storage.commit_log import Entry, Log, LostRace
from leptonflow.storage.objects import adopt, steady
from leptonflow.storage.store import Store
from schemas.constants import PROMOTED
from schemas.errors import Damaged, LeptonflowError, NotFound
from schemas.records import Plan, Record, Verdict
from schemas.text import counted

PROMOTION, OVERRIDE, ROLLBACK = KINDS = ("promotion", "override", "rollback")


class Promotion(Record):
    """The body of one record of a promotions log. `run_id` is the run that decided, null for a person."""

    version: str
    previous: str | None  # the champion before
    run_id: str | None
    manifest_sha256: str
    snapshot: str
    snapshot_number: int


@dataclass(frozen=True)
class Champion:
    """The version that the last record names. `number` and `since` are that record's."""

    version: str
    number: int
    manifest_sha256: str
    since: str
    run_id: str | None
    kind: str
    previous: str | None
    snapshot: str
    snapshot_number: int


def promotions(store: Store, pipeline: str, complete: bool = False) -> Log:
    """The pipeline's promotions log. Raises Damaged on a gap, a broken chain or garbage.

    complete: held against a listing too, for whoever shows the champion or decides about it.
    """
    return (commit_log.complete if complete else commit_log.read)(store, store_keys.promotions_log(pipeline))


def promotion(log: Log, entry: Entry) -> Promotion:
    """What a record of a promotions log says. Raises Damaged, naming the key, where it is no promotion."""
    try:
        body = Promotion.model_validate(entry.body)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        received = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    else:
        if entry.kind in KINDS:
            return body
        received = f"kind {entry.kind!r}"
    raise Damaged(
        f"{store_keys.record_key(log.prefix, entry.number)} is not a record of a promotions log",
        expected=f"one of {', '.join(KINDS)} with {', '.join(Promotion.model_fields)}",
        received=received,
        hint="No earlier champion replaces it: put the object back from a backup",
    ) from None


def champion(log: Log) -> Champion | None:
    """The version that the log's last record names, None while the log is empty."""
    if log.head is None:
        return None
    body = promotion(log, log.head)
    return Champion(number=log.number, since=log.head.at, kind=log.head.kind, **body.model_dump())


def current_version(store: Store, pipeline: str) -> str | None:
    """The version that is champion now; None where there is none. Raises Damaged."""
    now = champion(promotions(store, pipeline, complete=True))
    return now.version if now else None


def history(log: Log) -> list[dict[str, Any]]:
    """Every record, oldest first. `against` is the record that it was decided against; 0: none yet.

    A record is only ever committed right after the one that its decision had read, whose sha256 it names.
    """
    return [_row(log, entry) for entry in log.entries]


def _row(log: Log, entry: Entry) -> dict[str, Any]:
    body = promotion(log, entry)
    return {
        "number": entry.number,
        "version": body.version,
        "previous": body.previous,
        "run_id": body.run_id,
        "kind": entry.kind,
        "who": entry.who,
        "reason": entry.why,
        "at": entry.at,
        "against": entry.number - 1,
    }


def way_down(log: Log) -> list[str]:
    """The champions that a rollback goes back through, the current one last.

    A promotion, by a run or a person, adds a version; a rollback takes off all that came after its target. So a
    rollback after a rollback goes one further back, and a `promote` of an earlier champion can be undone.
    """
    line: list[str] = []
    for entry in log.entries:
        version = promotion(log, entry).version
        if entry.kind == ROLLBACK and version in line:
            del line[len(line) - line[::-1].index(version) :]
        else:
            line.append(version)
    return line


def write_conflict(log: Log, number: int, what: str) -> LostRace:
    """The error for a decision that record `number` of the log has made void before it was tried."""
    first = log.entries[number - 1]
    winner = f"{first.who} committed record {number}, {first.kind}, at {first.at} ({first.why})"
    error = LostRace(
        f"this {what} lost a write conflict: {winner}",
        expected=f"record {number - 1} as the last one",
        received=f"record {log.number} as the last one",
        hint="Run the command again: it then decides on the new state",
    )
    error.log = log
    return error


# --- a run's decision ----------------------------------------------------------------------------


def settle(
    store: Store, plan: Plan, verdict: Verdict, manifest_sha256: str, who: str | None = None
) -> tuple[Verdict, Log]:
    """Record a run's decision, and commit it where it makes its version champion. Safe to repeat.

    Returns the decision that stands and the log with it. It is another one than `verdict` where
    another process of the same run decided first. A refused verdict, and one on the champion
    itself, commits nothing. Raises Overtaken (with the new `log`) where the champion is no longer
    the one that was compared: evaluate and decide again.
    """
    log = promotions(store, plan.pipeline, complete=True)
    number, own = verdict.against, digest("promotion", verdict.run_id, verdict.against)
    if log.number < number:
        raise Damaged(
            f"{log.prefix} is shorter than it was",
            expected=f"at least {counted(number, 'record')}, which the run {verdict.run_id} has read",
            received=counted(log.number, "record"),
            hint="Put the missing records back from a backup",
        )
    if log.number > number and log.entries[number].id != own:
        raise write_conflict(log, number + 1, f"decision of run {verdict.run_id}")
    # The decision lies there before its commit, so that a kill between the two cannot change it.
    key = store_keys.decision_key(plan.pipeline, verdict.run_id, number)
    verdict = _decision(key, adopt(store, key, canonical(verdict)), verdict.run_id, number)
    if verdict.verdict != PROMOTED or verdict.version == verdict.champion or log.number > number:
        return verdict, log
    log = _promoted(store, plan, log, verdict, manifest_sha256, who or f"run {verdict.run_id}", verdict.sentence)
    return verdict, log


def approve(store: Store, plan: Plan, log: Log, verdict: Verdict, manifest_sha256: str, who: str, why: str) -> Log:
    """Make the version of a run champion that a person approved, by its verdict against the head of `log`.

    Safe to repeat. Returns the log with the record. Raises LostRace where another record came after that head.
    """
    adopt(store, store_keys.decision_key(plan.pipeline, verdict.run_id, log.number), canonical(verdict))
    return _promoted(store, plan, log, verdict, manifest_sha256, who, why)


def _promoted(store: Store, plan: Plan, log: Log, verdict: Verdict, manifest_sha256: str, who: str, why: str) -> Log:
    body = Promotion(
        version=verdict.version,
        previous=verdict.champion,
        run_id=verdict.run_id,
        manifest_sha256=manifest_sha256,
        **_data(plan),
    )
    id = digest("promotion", verdict.run_id, log.number)
    return commit_log.commit(store, log, id=id, kind=PROMOTION, body=body.model_dump(mode="json"), who=who, why=why)


def standing_decision(store: Store, plan: Plan, log: Log) -> Verdict | None:
    """The decision of an earlier, killed attempt of this run that still stands, else None.

    One that reached the log stands whatever followed. One that did not stands while the head it
    was made against is the head. The caller settles it again: that adds only what is missing.
    """
    if plan.run_id is None:
        return None
    for entry in reversed(log.entries):
        if promotion(log, entry).run_id == plan.run_id:
            return decision(store, plan.pipeline, plan.run_id, entry.number - 1)
    try:
        return decision(store, plan.pipeline, plan.run_id, log.number)
    except NotFound:
        return None


def decision(store: Store, pipeline: str, run_id: str, number: int) -> Verdict:
    """A run's decision against record `number` of the promotions log. Raises NotFound, and Damaged for garbage."""
    key = store_keys.decision_key(pipeline, run_id, number)
    return _decision(key, steady(store, key), run_id, number)


def _decision(key: str, data: bytes, run_id: str, number: int) -> Verdict:
    verdict: Verdict | None = None
    with suppress(ValidationError):
        verdict = Verdict.model_validate_json(data)
    if verdict is None or (verdict.run_id, verdict.against) != (run_id, number):
        raise Damaged(
            f"{key} is not the decision that this run recorded",
            expected=f"the verdict of run {run_id} against record {number}",
            received="something else" if verdict else "bytes that are no verdict",
            hint="Put the object back from a backup",
        )
    return verdict


def _data(plan: Plan) -> dict[str, Any]:
    if plan.snapshot is None:
        raise LeptonflowError("a run without a snapshot has nothing to promote", expected="a plan with a snapshot")
    return {"snapshot": plan.snapshot.snapshot, "snapshot_number": plan.snapshot.number}

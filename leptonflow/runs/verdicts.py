"""One run's way to its verdict: its start, what it is compared with, and the decision that stands.

A killed run's decision is found again here, so that its resumption adds only what is missing.
What does not belong here: the rules (gate), the log's records (registry), scores (evaluation).
"""

from __future__ import annotations

import json
from dataclasses import replace

from pydantic import Field

from leptonflow.core import clock, store_keys
from leptonflow.core.hashing import canonical
from leptonflow.gate import decision, evidence
from leptonflow.registry import champion_log, packages, proven_champions
from leptonflow.registry.champion_log import Champion
from leptonflow.runs import recording
from leptonflow.storage.objects import adopt
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.records import Evaluation, InfraResult, PackageRef, Plan, Record, Verdict


class Opponent(Record):
    """What the candidate is compared with: record `against` of the promotions log, and its champion.

    verdict  the decision of an earlier, killed attempt of this run that stands, else None
    told     whether that decision was settled and recorded, so that it is not settled again
    proven   metric: the best proven champion by it, where that is not the last one
    """

    against: int
    champion: Champion | None
    verdict: Verdict | None
    told: bool
    proven: dict[str, Champion] = Field(default_factory=dict)

    @property
    def rivals(self) -> list[Champion]:
        """Each of the best proven champions once."""
        return list({champion.version: champion for champion in self.proven.values()}.values())


def begin(store: Store, config: Pipeline, plan: Plan) -> str:
    """Mark the run as begun, and return since when (UTC): its first beginning where it is resumed.

    Raises ConfigurationError where the gate names a class or metadata that the dataset does not have.
    """
    assert plan.run_id is not None and plan.snapshot is not None
    decision.check_metrics(config, plan.snapshot.classes)
    evidence.check_facts(store, config, plan.snapshot)
    key = store_keys.run_key(config.name, plan.run_id, "started.json")
    begun = {"started_at": clock.now(), "version": plan.version, "attempt": plan.attempt}
    number = sum(each.endswith("/started.json") for each in store.keys(store_keys.runs_folder(config.name))) + 1
    began = adopt(store, key, canonical({**begun, "number": number}))
    return str(json.loads(began)["started_at"])


def opponent(store: Store, config: Pipeline, plan: Plan) -> Opponent:
    """Today's champion; or, where a decision of this run stands, the one that it was made against."""
    assert plan.run_id is not None
    log = champion_log.promotions(store, plan.pipeline, complete=True)
    told = recording.standing(store, plan.pipeline, plan.run_id)
    verdict = told or champion_log.standing_decision(store, plan, log)
    against = log.number if verdict is None else verdict.against
    read = replace(log, entries=log.entries[:against])
    champion = champion_log.champion(read)
    best = {} if verdict else proven_champions.champions(store, config, read)
    return Opponent(against=against, champion=champion, verdict=verdict, told=told is not None, proven=best)


def decide(
    store: Store, config: Pipeline, plan: Plan, opponent: Opponent, evaluation: Evaluation, infra: InfraResult
) -> Verdict:
    """The decision that stands, else the gate's on these scores."""
    if opponent.verdict is not None:
        return opponent.verdict
    assert plan.run_id is not None and plan.version is not None and plan.snapshot is not None
    log = champion_log.promotions(store, config.name)
    champion = opponent.champion
    return decision.decide(
        config,
        run_id=plan.run_id,
        version=plan.version,
        cv=packages.manifest(store, config.name, plan.version).cv,
        evaluation=evaluation,
        infra=infra,
        evidence=evidence.gather(store, config, plan, champion, evaluation, infra),
        champion=champion,
        against=opponent.against,
        history=replace(log, entries=log.entries[: opponent.against]),
        snapshot_number=plan.snapshot.number,
        champion_snapshot_number=champion.snapshot_number if champion else None,
        proven=opponent.proven,
    )


def settle(store: Store, plan: Plan, opponent: Opponent, verdict: Verdict, package: PackageRef) -> Verdict:
    """Record the decision, and promote where it says so; the decision that stands.

    Raises Overtaken where the champion changed meanwhile.
    """
    if opponent.told:
        return verdict
    settled, _ = champion_log.settle(store, plan, verdict, package.manifest_sha256)
    return settled

"""What a person decides about the champion: promote a version, or roll back to an earlier champion.

Both hash every file of the version again and require its infra-validation; nothing skips that.
What a run decides is `registry.settle`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from leptonflow.core import person
from leptonflow.core.hashing import digest
from leptonflow.registry import intact_champions, packages
from leptonflow.registry.champion_log import (
    OVERRIDE,
    ROLLBACK,
    Champion,
    Promotion,
    champion,
    history,
    promotions,
    way_down,
    write_conflict,
)
from leptonflow.storage import commit_log
from leptonflow.storage.commit_log import Log
from leptonflow.storage.store import Store
from schemas.errors import Damaged, LeptonflowError, NotFound
from schemas.records import InfraResult

ATTEMPTS = 3

# (version, manifest_sha256) -> the recorded pass of that package, or one made on the spot
EnsureInfra = Callable[[str, str], InfraResult]


def promote(
    store: Store, pipeline: str, version: str, reason: str, who: str, ensure_infra: EnsureInfra
) -> dict[str, Any]:
    """Make `version` the champion, whatever the gate said of it.

    Returns {"champion": version, "record": the new row of `history`, null where it is the champion
    already and whole}. Raises UsageError for no name and no reason, NotFound for an unknown version,
    Damaged where a file of it is not what was recorded, LeptonflowError where its infra-validation fails,
    Overtaken where others committed first three times.
    """
    reason = person.reason(reason)
    with suppress(Damaged):  # told below, with the way back
        packages.known(store, pipeline, version, "--version")

    def choose(log: Log) -> str | None:
        now = champion(log)
        return None if now and now.version == version else version

    return _decide(store, pipeline, OVERRIDE, choose, reason, who, ensure_infra)


def rollback(
    store: Store,
    pipeline: str,
    to: str | None,
    reason: str,
    who: str,
    ensure_infra: EnsureInfra,
    *,
    away_from: str | None = None,
) -> dict[str, Any]:
    """Make an earlier champion the champion again: `to`, else the one before the current (`registry.way_down`).

    away_from  the champion that is meant: where it is one no more, nothing is left to do, so that the same
               call, repeated after a kill or made by several people at once, goes back once

    Returns the same as `promote`. Raises LeptonflowError where there is none or it is not whole, and
    names the newest earlier champion that is; Overtaken like `promote`, and without `to` or `away_from` at
    once where another version has become champion meanwhile: that one was never meant.
    """
    for option, value in (("--to", to), ("--from", away_from)):
        if value is not None:
            packages.named(option, value)
    reason = person.reason(reason)
    meant = champion(promotions(store, pipeline, complete=True))

    def choose(log: Log) -> str | None:
        now = champion(log)
        if now is None:
            raise LeptonflowError(
                f"the pipeline {pipeline} has no champion to roll back",
                expected="a champion",
                received="an empty history",
                hint=f"Run `leptonflow retrain {pipeline}`",
            )
        if away_from is not None and now.version != away_from:
            _was_champion(pipeline, log, away_from)
            return None
        if to is not None:
            return _earlier(pipeline, log, now, to)
        if away_from is None and (meant is None or now.version != meant.version):
            raise write_conflict(log, now.number, f"rollback of {meant.version if meant else 'no champion'}")
        earlier = way_down(log)[:-1]
        if not earlier:
            raise LeptonflowError(
                f"the champion {now.version} replaced no earlier champion",
                expected="a champion that replaced another one",
                received=f"{now.version}, the first champion",
                hint=intact_champions.way_back(store, pipeline, log, now.version),
            )
        return earlier[-1]

    return _decide(store, pipeline, ROLLBACK, choose, reason, who, ensure_infra)


def _was_champion(pipeline: str, log: Log, version: str) -> None:
    """Raise LeptonflowError where `version` was never the champion: it cannot have been rolled back already."""
    if version not in intact_champions.champions(log):
        raise LeptonflowError(
            f"{version} was never the champion of {pipeline}",
            expected=f"--from with a champion: {packages.listed(intact_champions.champions(log))}",
            received=version,
            hint=f"`leptonflow history {pipeline}` lists them",
        )


def _decide(
    store: Store,
    pipeline: str,
    kind: str,
    choose: Callable[[Log], str | None],
    reason: str,
    who: str,
    ensure_infra: EnsureInfra,
) -> dict[str, Any]:
    """Choose, check, commit; after a lost race again against the new head, three times at most."""
    call = uuid.uuid4().hex  # two persons who decide the same at once have decided twice

    def once() -> dict[str, Any]:
        log = promotions(store, pipeline, complete=True)
        now, version = champion(log), choose(log)
        if version is None:
            if damage := intact_champions.champion_damage(store, pipeline, log):
                raise damage
            return {"champion": now.version if now else None, "record": None}
        body = _body(store, pipeline, log, kind, version, ensure_infra)
        id = digest(kind, version, log.number, call)
        log = commit_log.commit(store, log, id=id, kind=kind, body=body.model_dump(mode="json"), who=who, why=reason)
        record = next(row for row, entry in zip(history(log), log.entries, strict=True) if entry.id == id)
        return {"champion": version, "record": record}

    return commit_log.retried(ATTEMPTS, once)


def _body(store: Store, pipeline: str, log: Log, kind: str, version: str, ensure_infra: EnsureInfra) -> Promotion:
    """The record's body, after every file was hashed and the package has passed its infra-validation."""
    now = champion(log)
    try:
        manifest, manifest_sha256 = intact_champions.verified(store, pipeline, log, version)
    except (Damaged, NotFound) as error:
        if now is None:
            raise
        # Who rolls back means to leave the champion: the way back leads past it.
        hint = intact_champions.way_back(store, pipeline, log, version, *([now.version] if kind == ROLLBACK else []))
        raise Damaged(
            f"the package of {version} is damaged: {error.message}",
            expected=error.expected,
            received=error.received,
            hint=hint,
        ) from error
    infra = ensure_infra(version, manifest_sha256)
    if not infra.passed:
        raise LeptonflowError(
            f"the version {version} does not pass its infra-validation",
            expected="its own predictions, reproduced in a fresh process",
            received=infra.sentence,
            hint=intact_champions.way_back(store, pipeline, log, now.version, version)
            if kind == ROLLBACK and now
            else None,
        )
    return Promotion(
        version=version,
        previous=now.version if now else None,
        run_id=None,
        manifest_sha256=manifest_sha256,
        snapshot=manifest.snapshot,
        snapshot_number=manifest.snapshot_number,
    )


def _earlier(pipeline: str, log: Log, now: Champion, to: str) -> str:
    earlier = intact_champions.champions(log, now.version)
    if to in earlier:
        return to
    command = f"`leptonflow promote {pipeline} --version VERSION --reason TEXT` makes any version the champion"
    raise LeptonflowError(
        f"{to} is already the champion" if to == now.version else f"{to} was never the champion of {pipeline}",
        expected=f"an earlier champion: {packages.listed(earlier)}"
        if earlier
        else "an earlier champion, and there is none",
        received=to,
        hint=command if to != now.version or not earlier else f"`leptonflow history {pipeline}` lists them",
    )

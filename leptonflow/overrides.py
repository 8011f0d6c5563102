"""What a person decides about the champion: promote a version, or roll back to an earlier champion.

Both hash every file of the version again and require its infra-validation; nothing skips that.
What a run decides is `registry.settle`.
"""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Callable
from typing import Any

from leptonflow import log as commits
from leptonflow import packages
from leptonflow.digests import digest
from leptonflow.log import Log, LostRace
from leptonflow.registry import (
    OVERRIDE,
    ROLLBACK,
    Champion,
    Promotion,
    champion,
    history,
    overtaken,
    promotion,
    promotions,
)
from leptonflow.store import Store
from schemas.config import NAME
from schemas.errors import Damaged, LeptonflowError, NotFound, UsageError
from schemas.records import InfraResult, ModelManifest

ATTEMPTS = 3

# (version, manifest_sha256) -> the recorded pass of that package, or one made on the spot
EnsureInfra = Callable[[str, str], InfraResult]


def person() -> str:
    """Who is at the keyboard: LEPTONFLOW_USER, else user@host."""
    given = os.environ.get("LEPTONFLOW_USER", "").strip()
    if given:
        return given
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def promote(
    store: Store, pipeline: str, version: str, reason: str, who: str, ensure_infra: EnsureInfra
) -> dict[str, Any]:
    """Make `version` the champion, whatever the gate said of it.

    Returns {"champion": version, "record": the new row of `history`, null where it is the champion
    already}. Raises UsageError for no name and no reason, NotFound for an unknown version, Damaged
    where a file of it is not what was recorded, LeptonflowError where its infra-validation fails,
    Overtaken where others committed first three times.
    """
    _checked("--version", version, reason)
    try:
        packages.manifest(store, pipeline, version)
    except NotFound:
        known = [m.version for m in reversed(packages.versions(store, pipeline))]
        raise NotFound(
            f"the pipeline {pipeline} has no version {version}",
            expected=f"one of {_listed(known)}" if known else "a version, and there is none yet",
            received=version,
            hint=f"`leptonflow models {pipeline}` lists them" if known else f"Run `leptonflow retrain {pipeline}`",
        ) from None

    def choose(log: Log) -> str | None:
        now = champion(log)
        return None if now and now.version == version else version

    return _decide(store, pipeline, promotions(store, pipeline), OVERRIDE, choose, reason, who, ensure_infra)


def rollback(
    store: Store, pipeline: str, to: str | None, reason: str, who: str, ensure_infra: EnsureInfra
) -> dict[str, Any]:
    """Make an earlier champion the champion again: `to`, else the one that the champion first replaced.

    "First" is the record that first made it champion, so that twice goes from C over B to A.
    Returns the same as `promote`. Raises LeptonflowError where there is none or it is not whole, and
    names the newest earlier champion that is; Overtaken like `promote`, and without `to` at once
    where another version has become champion meanwhile: that one was never meant.
    """
    _checked("--to", to, reason)
    log = promotions(store, pipeline)
    meant = champion(log)

    def choose(log: Log) -> str | None:
        now = champion(log)
        if now is None:
            raise LeptonflowError(
                f"the pipeline {pipeline} has no champion to roll back",
                expected="a champion",
                received="an empty history",
                hint=f"Run `leptonflow retrain {pipeline}`",
            )
        if to is not None:
            return _earlier(pipeline, log, now, to)
        if meant is None or now.version != meant.version:
            raise overtaken(log, now.number, f"rollback of {meant.version if meant else 'no champion'}")
        first = next(row for row in history(log) if row["version"] == now.version)
        if first["previous"] is None:
            raise LeptonflowError(
                f"the champion {now.version} replaced no earlier champion",
                expected="a champion that replaced another one",
                received=f"record {first['number']}, which made {now.version} the first champion",
                hint=_newest_whole(store, pipeline, log, now.version),
            )
        return str(first["previous"])

    return _decide(store, pipeline, log, ROLLBACK, choose, reason, who, ensure_infra)


def _checked(option: str, version: str | None, reason: str) -> None:
    if version is not None and not NAME.fullmatch(version):
        raise UsageError(
            f"{option} is not a version's name", expected=f"a name that matches {NAME.pattern}", received=repr(version)
        )
    if not reason.strip():
        raise UsageError(
            "--reason is empty",
            expected="a few words that tell the next reader of `history` why",
            received=repr(reason),
        )


def _decide(
    store: Store,
    pipeline: str,
    log: Log,
    kind: str,
    choose: Callable[[Log], str | None],
    reason: str,
    who: str,
    ensure_infra: EnsureInfra,
) -> dict[str, Any]:
    """Choose, check, commit; after a lost race again against the new head, three times at most."""
    call = uuid.uuid4().hex  # two persons who decide the same at once have decided twice
    attempt = 1
    while True:
        now, version = champion(log), choose(log)
        if version is None:
            return {"champion": now.version if now else None, "record": None}
        body = _body(store, pipeline, log, kind, version, ensure_infra)
        id = digest(kind, version, log.number, call)
        try:
            log = commits.commit(
                store, log, id=id, kind=kind, body=body.model_dump(mode="json"), who=who, why=reason.strip()
            )
        except LostRace as lost:
            if attempt == ATTEMPTS:
                raise
            log, attempt = lost.log, attempt + 1
            continue
        record = next(row for row, entry in zip(history(log), log.entries, strict=True) if entry.id == id)
        return {"champion": version, "record": record}


def _body(
    store: Store, pipeline: str, log: Log, kind: str, version: str, ensure_infra: EnsureInfra
) -> Promotion:
    """The record's body, after every file was hashed and the package has passed its infra-validation."""
    now = champion(log)
    try:
        manifest, manifest_sha256 = _verified(store, pipeline, log, version)
    except (Damaged, NotFound) as error:
        if kind != ROLLBACK or now is None:
            raise
        raise Damaged(
            f"the package of {version} is not whole: {error.message}",
            expected=error.expected,
            received=error.received,
            hint=_newest_whole(store, pipeline, log, now.version, version),
        ) from error
    infra = ensure_infra(version, manifest_sha256)
    if not infra.passed:
        raise LeptonflowError(
            f"the version {version} does not pass its infra-validation",
            expected="its own predictions, reproduced in a fresh process",
            received=infra.sentence,
            hint=_newest_whole(store, pipeline, log, now.version, version) if kind == ROLLBACK and now else None,
        )
    return Promotion(
        version=version,
        previous=now.version if now else None,
        run_id=None,
        manifest_sha256=manifest_sha256,
        snapshot=manifest.snapshot,
        snapshot_number=manifest.snapshot_number,
    )


def _verified(store: Store, pipeline: str, log: Log, version: str) -> tuple[ModelManifest, str]:
    """The version's manifest and its sha256, after every file it names was hashed.

    A version that was champion before must still have the manifest that its record names.
    """
    recorded = [body.manifest_sha256 for e in log.entries if (body := promotion(log, e)).version == version]
    sha256 = recorded[-1] if recorded else packages.reference(store, pipeline, version).manifest_sha256
    return packages.verify(store, pipeline, version, sha256), sha256


def _earlier(pipeline: str, log: Log, now: Champion, to: str) -> str:
    earlier = _champions(log, now.version)
    if to in earlier:
        return to
    command = f"`leptonflow promote {pipeline} --version VERSION --reason TEXT` makes any version the champion"
    raise LeptonflowError(
        f"{to} is already the champion" if to == now.version else f"{to} was never the champion of {pipeline}",
        expected=f"an earlier champion: {_listed(earlier)}" if earlier else "an earlier champion, and there is none",
        received=to,
        hint=command if to != now.version or not earlier else f"`leptonflow history {pipeline}` lists them",
    )


def _champions(log: Log, *without: str) -> list[str]:
    """Every version that was ever champion, the newest record first."""
    versions = dict.fromkeys(promotion(log, entry).version for entry in reversed(log.entries))
    return [v for v in versions if v not in without]


def _newest_whole(store: Store, pipeline: str, log: Log, *without: str) -> str:
    """A hint: the newest earlier champion whose package is whole."""
    for version in _champions(log, *without):
        try:
            _verified(store, pipeline, log, version)
        except (Damaged, NotFound):
            continue
        return f"The newest whole one is {version}: `leptonflow rollback {pipeline} --to {version} --reason TEXT`"
    return f"No other earlier champion is whole; `leptonflow models {pipeline}` lists every version"


def _listed(versions: list[str], most: int = 10) -> str:
    more = f" and {len(versions) - most} older" if len(versions) > most else ""
    return ", ".join(versions[:most]) + more

"""Which champions are still whole: every file of their package the one that was recorded when they became champion.

Asked before a person's decision, and wherever a damaged champion is met, so that the way back is named
at once. What does not belong here: the files of a package (packages), and who is champion (registry).
"""

from __future__ import annotations

from leptonflow.registry import packages
from leptonflow.registry.champion_log import champion, promotion
from leptonflow.storage.commit_log import Log
from leptonflow.storage.store import Store
from schemas.errors import Damaged, NotFound
from schemas.records import ModelManifest


def verified(store: Store, pipeline: str, log: Log, version: str) -> tuple[ModelManifest, str]:
    """The version's manifest and its sha256, after every file it names was hashed.

    A version that was champion before must still have the manifest that its record names. Raises
    NotFound and Damaged.
    """
    recorded = [body.manifest_sha256 for e in log.entries if (body := promotion(log, e)).version == version]
    sha256 = recorded[-1] if recorded else packages.reference(store, pipeline, version).manifest_sha256
    return packages.verify(store, pipeline, version, sha256), sha256


def champions(log: Log, *without: str) -> list[str]:
    """Every version that was ever champion, the newest record first."""
    versions = dict.fromkeys(promotion(log, entry).version for entry in reversed(log.entries))
    return [v for v in versions if v not in without]


def newest(store: Store, pipeline: str, log: Log, *without: str) -> str | None:
    """The newest champion whose package is whole, None where no other is."""
    for version in champions(log, *without):
        try:
            verified(store, pipeline, log, version)
        except (Damaged, NotFound):
            continue
        return version
    return None


def way_back(store: Store, pipeline: str, log: Log, *without: str) -> str:
    """A hint that names the newest whole champion and the command that goes back to it."""
    version = newest(store, pipeline, log, *without)
    if version is None:
        return f"No other earlier champion is undamaged; `leptonflow models {pipeline}` lists every version"
    now = champion(log)
    if now is not None and now.version == version:
        return f"The champion {version} is undamaged, and stays"
    return f"The newest undamaged one is {version}: `leptonflow rollback {pipeline} --to {version} --reason TEXT`"


def damaged(store: Store, pipeline: str, log: Log, version: str, error: Damaged | NotFound) -> Damaged:
    """The same error, for whoever needed this version, with the way back as its hint."""
    return Damaged(
        f"the package of {version} is damaged: {error.message}",
        expected=error.expected,
        received=error.received,
        hint=way_back(store, pipeline, log, version),
    )


def champion_damage(store: Store, pipeline: str, log: Log) -> Damaged | None:
    """What is wrong with the champion's package, with the way back; None where it is whole or there is none."""
    now = champion(log)
    if now is None:
        return None
    try:
        packages.verify(store, pipeline, now.version, now.manifest_sha256)
    except (Damaged, NotFound) as error:
        return damaged(store, pipeline, log, now.version, error)
    return None

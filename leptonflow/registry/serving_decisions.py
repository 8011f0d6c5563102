"""Versions that a person has served in the champion's place (`serve --pin`): a commit log of its own per pipeline.

The champion stays who it is (champion_log). What is served at this moment does not belong here: the server tells it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leptonflow.core import person, store_keys
from leptonflow.core.hashing import digest
from leptonflow.registry import champion_log, packages
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store

PIN = "pin"
ATTEMPTS = 3


@dataclass(frozen=True)
class Pin:
    """The version that is served, whatever the champion is."""

    version: str
    who: str
    reason: str


def checked(version: str, who: str, reason: str) -> Pin:
    """Raises UsageError for no version's name, and for no reason."""
    packages.named("--pin", version)
    return Pin(version, who, person.reason(reason))


def record(store: Store, pipeline: str, pin: Pin) -> None:
    """Write down that it is served, unless the last record says so. Raises NotFound, Damaged, Overtaken."""

    def once() -> None:
        log = commit_log.read(store, store_keys.pins_log(pipeline))
        head = log.head
        if head is not None and (head.body.get("version"), head.who, head.why) == (pin.version, pin.who, pin.reason):
            return
        body = {
            "version": pin.version,
            "manifest_sha256": packages.reference(store, pipeline, pin.version).manifest_sha256,
            "champion": champion_log.current_version(store, pipeline),
        }
        id = digest(PIN, pin.version, pin.who, pin.reason, log.number)
        commit_log.commit(store, log, id=id, kind=PIN, body=body, who=pin.who, why=pin.reason)

    commit_log.retried(ATTEMPTS, once)


def history(store: Store, pipeline: str) -> list[dict[str, Any]]:
    """Every pin, oldest first: number, version, champion (then), who, reason, at."""
    log = commit_log.read(store, store_keys.pins_log(pipeline))
    return [
        {"number": each.number, "version": each.body.get("version"), "champion": each.body.get("champion"),
         "who": each.who, "reason": each.why, "at": each.at}
        for each in log.entries
    ]  # fmt: skip

"""The newest drift record of a pipeline, as far as the pages show it. Measuring drift does not belong here."""

from __future__ import annotations

from dataclasses import dataclass

from leptonflow.storage.store import Store


@dataclass(frozen=True)
class DriftRecord:
    """found: whether it is an alarm. key: of the record's page on the store, where there is one."""

    found: bool
    sentence: str
    at: str


def newest(store: Store, pipeline: str) -> DriftRecord | None:
    return None

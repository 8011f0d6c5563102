"""Which versions the newest predictions of the prediction log came from, whoever served them.

What this process serves itself, and pins, do not belong here (pipeline_records).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from leptonflow.core import store_keys
from leptonflow.monitoring import served_log
from leptonflow.storage.store import Store
from schemas.errors import Damaged


@dataclass(frozen=True)
class ServedVersion:
    """predictions: in the newest file of the log; last: when the newest of them was asked for."""

    version: str
    predictions: int
    last: datetime


def newest(store: Store, pipeline: str) -> list[ServedVersion]:
    """The versions of the newest file, the one that predicted last first; none where nothing was served.

    Raises Damaged where the file cannot be read.
    """
    try:
        tables = list(served_log.newest(store, pipeline, ("at", "version"), 1))
    except (ValueError, KeyError, OSError) as error:  # of pyarrow
        raise Damaged(
            f"the newest file of {store_keys.served_folder(pipeline)} cannot be read", expected="the prediction log",
            received=str(error).splitlines()[0],
        ) from None  # fmt: skip
    rows = [row for table in tables for row in table.to_pylist()]
    found: dict[str, list[datetime]] = {}
    for row in rows:
        found.setdefault(row["version"], []).append(row["at"])
    served = [ServedVersion(version, len(times), max(times)) for version, times in found.items()]
    return sorted(served, key=lambda each: each.last, reverse=True)

"""Records that are dated in the future: the clock of the machine that wrote them was ahead.

Which record of a log, which run and which batch is the newest is told by their numbers, whatever the clocks say. A time
decides in two places: of several labels of a request the latest counts, and a wait for approval ends at its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from leptonflow.core import clock, store_keys
from leptonflow.runs import approvals
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store
from leptonflow.tables import table_sources

TOLERANCE = 300.0  # seconds by which the clocks of several machines may differ


def found(store: Store, now: str) -> list[str]:
    """What is dated later than now, a few words each. now: as `clock.now` gives it. Raises Damaged."""
    latest = datetime.fromisoformat(clock.after(now, TOLERANCE))
    return [f"{what} at {at}" for what, at in _times(store, now) if datetime.fromisoformat(at) > latest]


def _times(store: Store, now: str) -> Iterator[tuple[str, str]]:
    """(what it is, its time) of the last record of each log, of each run that waits, and of the latest labels."""
    for kind in (store_keys.SNAPSHOTS, store_keys.PROMOTIONS, store_keys.PINS):
        for name in store.folders(kind):
            head = commit_log.newest(store, f"{kind}/{name}/log")
            if head is not None:
                yield f"record {head.number} of {kind}/{name}", head.at
    for name in store.folders(store_keys.APPROVALS):
        waiting = approvals.pending(store, name, now)
        if waiting is not None:
            yield f"the run {waiting.request.run_id} of {name}, which waits for approval,", waiting.request.at
    labels = table_sources.in_memory(store, "labels", table_sources.files(store, "labels"))
    last = labels.group_by("pipeline").aggregate([("at", "max")]).to_pylist()
    yield from ((f"labels of {row['pipeline']}", row["at_max"].isoformat()) for row in last)

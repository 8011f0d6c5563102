"""Reading the prediction log: the rows of some requests, or the newest rows. Writing it belongs to `prediction_log`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import clock, parquet, store_keys
from leptonflow.storage.store import Store
from schemas.errors import NotFound
from schemas.served import date_of, requested_at

if TYPE_CHECKING:
    import pyarrow as pa

AHEAD = timedelta(minutes=10)  # how far the clock of a server may be ahead of this one
_LATEST = 253_402_300_799_000  # the last second of the year 9999, after which there is no date
PREDICTED = ("request_id", "at", "version", "predicted", "probability", "outputs", "metadata")


class File(NamedTuple):
    """A file of the log, with the times of its first and last request in milliseconds since 1970."""

    key: str
    first: int
    last: int


def files(store: Store, pipeline: str, date: str, table: str = store_keys.SERVED) -> list[File]:
    """The files of one date, in the order of their first requests; what is named otherwise is not the log's."""
    found = []
    for key in store.keys(store_keys.served_folder(pipeline, date, table)):
        first, _, rest = key.rsplit("/", 1)[1].partition("-")
        last = rest.partition("-")[0]
        if key.endswith(".parquet") and first.isdecimal() and last.isdecimal():
            found.append(File(key, int(first), int(last)))
    return sorted(found, key=lambda each: (each.first, each.key))


def find(
    store: Store,
    pipeline: str,
    request_ids: Sequence[str],
    columns: Sequence[str] = PREDICTED,
    table: str = store_keys.SERVED,
) -> dict[str, dict[str, Any]]:
    """The row of each request that the log has, by its id. Ids are well-formed; whether they are forged is told here.

    A file is read only where the time in an id lies within it, so that ids that were made up cost next to nothing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = sorted(set(request_ids))
    times = [requested_at(each) for each in wanted]  # sorted too: the time comes first in an id
    found: dict[str, dict[str, Any]] = {}
    there = set(store.folders(store_keys.served_folder(pipeline, table=table)))
    for date in sorted({date_of(each) for each in times if each < _LATEST}):
        if f"date={date}" not in there:
            continue
        for file in files(store, pipeline, date, table):
            inside = wanted[bisect_left(times, file.first) : bisect_left(times, file.last + 1)]
            if inside:
                rows = _read(store, file.key, columns)
                chosen = rows.filter(pc.is_in(rows["request_id"], value_set=pa.array(inside, pa.string())))
                found |= {row["request_id"]: row for row in chosen.to_pylist()}
    return found


def newest(
    store: Store, pipeline: str, columns: Sequence[str], most: int, since: int = 0, version: str | None = None
) -> Iterator[pa.Table]:
    """The newest rows, the newest files first, until there are `most`; none of requests before `since` (milliseconds).

    Each table is of one file, and the last may go beyond `most`. version: of this one alone; `columns` has it then.
    What a wrong clock dated far ahead waits for its time: it would be the newest until then.
    """
    import pyarrow.compute as pc

    left, until = most, latest()
    dates = [name.removeprefix("date=") for name in store.folders(store_keys.served_folder(pipeline))]
    for date in sorted((each for each in dates if date_of(since) <= each <= date_of(until)), reverse=True):
        for file in reversed(files(store, pipeline, date)):
            if left <= 0:
                return
            if file.last < since or file.first > until:
                continue
            rows = _read(store, file.key, dict.fromkeys((*columns, "request_id")))
            if file.first < since or file.last > until:
                own = pc.utf8_slice_codeunits(rows["request_id"], 0, 12)
                inside = pc.and_(pc.greater_equal(own, f"{since:012x}"), pc.less_equal(own, f"{until:012x}"))
                rows = rows.filter(inside)
            if version is not None:
                rows = rows.filter(pc.equal(rows["version"], version))
            left -= len(rows)
            yield rows.select(list(columns))


def latest() -> int:
    """Until when a prediction can be dated now, in milliseconds."""
    return int((datetime.fromisoformat(clock.now()) + AHEAD).timestamp() * 1000)


def last(store: Store, pipeline: str) -> int | None:
    """The time of the newest request, in milliseconds; None where nothing was served."""
    dates = store.folders(store_keys.served_folder(pipeline))
    for date in sorted((name.removeprefix("date=") for name in dates), reverse=True):
        if there := files(store, pipeline, date):
            return max(file.last for file in there)
    return None


def _read(store: Store, key: str, columns: Iterable[str]) -> pa.Table:
    """These columns of a file, null where it is of a release that had none; no row where it has just been deleted."""
    import pyarrow as pa

    from schemas.tables import schema

    none = schema("served").empty_table().select(list(columns))
    try:
        data = store.get(key)
    except NotFound:
        return none
    there = set(parquet.layout(data)[1].names)
    return pa.concat_tables(
        [none, parquet.read(data, [each for each in columns if each in there])], promote_options="default"
    )

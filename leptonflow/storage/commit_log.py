"""An append-only, numbered commit log on a store: promotions and snapshots are both kept by it.

Record N+1 is committed by creating `<prefix>/<N+1>.json`. The store lets one writer win; the last record is the state,
the records are the history. Each names its predecessor's sha256 and carries a digest of its own, so that the last one
is verified as well; records of a store of format 1 have none. A reading that does not verify is repeated before it is
refused. What does not belong here: what a record's body means, and deciding again after a lost race.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import EllipsisType
from typing import Any, TypeVar

from leptonflow.core.concurrency import in_order
from leptonflow.core.hashing import canonical, sha256
from leptonflow.core.store_keys import record_key
from leptonflow.storage.objects import repeated
from leptonflow.storage.store import STORE_KEY, Store
from leptonflow.storage.store_identity import known_id, store_id
from schemas.errors import AlreadyExists, Damaged, NotFound, Overtaken

WINDOW = 16
RECORD = re.compile(r"(\d{8,})\.json", re.ASCII)  # a record's name in its folder
MIXED = (
    "Two stores were mixed up: put this store's own record back, and copy a store only whole, with its store.json; "
    "nothing commits until then"
)
ORIGINAL = "Put the original back from a backup or the bucket's versions; nothing commits until then"
Decided = TypeVar("Decided")
_FIELDS = {"number", "id", "kind", "who", "why", "at", "previous", "store", "body"}  # and "digest"


@dataclass(frozen=True)
class Entry:
    """One record. `sha256` is of its bytes on the store; the next record's `previous` repeats it."""

    number: int  # from 1
    id: str  # derived from the decision, so that a writer knows its own
    kind: str
    who: str
    why: str
    at: str  # UTC, ISO 8601 with milliseconds and a Z
    previous: str | None  # None for the first record
    store: str  # the id of the store it was committed to
    body: dict[str, Any]
    sha256: str
    digest: str | None = None  # of the record's other fields; None in a record of a store of format 1


@dataclass(frozen=True)
class Log:
    """A verified log as it was read: every record from 1 to the head."""

    prefix: str
    entries: tuple[Entry, ...]

    @property
    def head(self) -> Entry | None:
        """The last record, which is the state; None for an empty log."""
        return self.entries[-1] if self.entries else None

    @property
    def number(self) -> int:
        """The head's number, 0 for an empty log."""
        return len(self.entries)


class LostRace(Overtaken):
    """Another writer committed first. `log` is the log with its record, to decide again against."""

    log: Log

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"log": self.log})


# What this process has verified, by store and prefix: a later read begins at its head.
_verified: dict[tuple[str, str], Log] = {}
_verified_lock = threading.Lock()


def read(store: Store, prefix: str) -> Log:
    """The whole log under `prefix`, its chain verified.

    Raises Damaged, naming the key, for a gap, a broken chain, a record of another store or garbage.
    """
    return repeated(lambda: _read(store, prefix))


def _read(store: Store, prefix: str) -> Log:
    entries = list(_known(store, prefix).entries)
    identity: str | None = None
    while True:
        numbers = range(len(entries) + 1, len(entries) + 1 + WINDOW)
        window = _get_window(store, [record_key(prefix, number) for number in numbers])
        later = [number for number, data in zip(numbers, window, strict=True) if data is not None]
        if not later:
            break
        if window[0] is None:
            _gap_or_race(store, prefix, numbers[0], later[-1])
            continue
        identity = identity or known_id(store) or store_id(store)
        for number, data in zip(numbers, window, strict=True):
            if data is None:
                break
            previous = entries[-1] if entries else None
            entries.append(_entry(store, record_key(prefix, number), data, number, previous, identity))
    log = Log(prefix, tuple(entries))
    _remember(store, log)
    return log


def complete(store: Store, prefix: str) -> Log:
    """What `read` gives, held against a listing of the folder: no record lies beyond the head.

    `read` looks WINDOW records ahead, so that a longer gap hides what follows it. One listing more, for whoever shows
    the state or decides on it. Raises what `read` raises.
    """
    log = read(store, prefix)
    while (last := last_number(store, prefix)) > log.number:
        _gap_or_race(store, prefix, log.number + 1, last)
        log = read(store, prefix)
    return log


def newest(store: Store, prefix: str) -> Entry | None:
    """The record with the highest number alone, for a reader to whom an older state would do; None where there is none.

    A listing and one object, however long the log is. The chain before it is not verified, and nothing can be committed
    on it: that takes `read`. Raises Damaged, naming the key, for garbage or a record of another store.
    """
    last = last_number(store, prefix)
    return records(store, prefix, [last])[0] if last else None


def records(store: Store, prefix: str, numbers: Sequence[int]) -> list[Entry]:
    """The records of these numbers, in their order, each verified by itself. Raises Damaged, also for a missing one."""
    return repeated(lambda: _records(store, prefix, numbers))


def _records(store: Store, prefix: str, numbers: Sequence[int]) -> list[Entry]:
    identity = known_id(store) or store_id(store)
    keys = [record_key(prefix, number) for number in numbers]
    found = []
    for number, key, data in zip(numbers, keys, _get_window(store, keys), strict=True):
        if data is None:
            raise Damaged(f"{store.uri}: {key} is missing", hint="Put the record back from a backup")
        found.append(_entry(store, key, data, number, ..., identity))
    return found


def commit(store: Store, log: Log, *, id: str, kind: str, body: Mapping[str, Any], who: str, why: str) -> Log:
    """One attempt to add a record after `log`'s head; returns the log with it.

    `id` is derived from the decision. Where N+1 is taken and carries this id, it is our own, its reply lost: success,
    and the log that is returned may go on past it. Where it carries another, LostRace (an Overtaken) tells who was
    first, and its `log` is the new state. Damaged, before anything is written, where records lie beyond a gap after the
    head. StoreUnreachable leaves open whether the record was written.
    """
    number = log.number + 1
    key = record_key(log.prefix, number)
    if (last := last_number(store, log.prefix)) > log.number:
        _gap_or_race(store, log.prefix, number, last)
    identity = store_id(store)
    _confirm(store, log, identity)
    record: dict[str, Any] = {
        "number": number,
        "id": id,
        "kind": kind,
        "who": _text(who),
        "why": _text(why),
        "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "previous": log.head.sha256 if log.head else None,
        "store": identity,
        "body": dict(body),
    }
    record["digest"] = sha256(canonical(record))
    data = canonical(record)
    try:
        store.create(key, data)
    except AlreadyExists:
        now = read(store, log.prefix)
        first = now.entries[number - 1] if now.number >= number else None
        if first is not None and first.id == id:
            return now
        raise _lost(key, number, kind, first, now) from None
    # Parsed from its own bytes, so that the writer and every reader hold equal entries.
    entry = Entry(**json.loads(data), sha256=sha256(data))
    new = Log(log.prefix, (*log.entries, entry))
    _remember(store, new)
    return new


def retried(attempts: int, decide: Callable[[], Decided]) -> Decided:
    """What `decide` gives, which reads a log and commits to it: called again after a lost race, so often in all."""
    for _ in range(attempts - 1):
        try:
            return decide()
        except Overtaken:
            continue
    return decide()


def _confirm(store: Store, log: Log, identity: str) -> None:
    """Nothing is committed on a head that was read wrong, or under an id that was: no backup could undo that.

    Raises Damaged. A head with a digest of its own was verified as it was read.
    """
    head = log.head
    if head is None:
        return
    key = record_key(log.prefix, head.number)
    if head.store != identity:
        raise Damaged(
            f"{store.uri}: {key} names another store than {STORE_KEY}",
            expected=f"store {head.store}", received=f"id {identity}", hint=MIXED,
        )  # fmt: skip
    if head.digest is None and (data := _get_window(store, [key])[0]) is not None and sha256(data) != head.sha256:
        with _verified_lock:
            _verified.pop((store.uri, log.prefix), None)
        raise Damaged(
            f"{store.uri}: {key} changed between two reads",
            expected=f"the record with sha256 {head.sha256}",
            received=f"one with sha256 {sha256(data)}",
            hint="Run the command again; if it stays so, put the record back from a backup",
        )


def still(store: Store, log: Log, what: str) -> None:
    """Raises LostRace where `log` has got another record since: for a decision that is not itself committed to it."""
    now = read(store, log.prefix)
    if now.number > log.number:
        number = log.number + 1
        raise _lost(record_key(log.prefix, number), number, what, now.entries[log.number], now)


def _lost(key: str, number: int, kind: str, first: Entry | None, now: Log) -> LostRace:
    if first is None:  # S3 may answer a conditional put with a conflict and keep neither
        winner = "the store refused it and holds no such record"
    else:
        winner = f"{first.who} committed record {number}, a {first.kind}, at {first.at} ({first.why})"
    error = LostRace(
        f"this {kind} lost a write conflict: {winner}",
        received=key,
        hint="Run the command again: it then decides on the new state",
    )
    error.log = now
    return error


def _gap_or_race(store: Store, prefix: str, missing: int, later: int) -> None:
    """Damaged, unless the record that was missing a moment ago is there by now.

    Two writers may have committed between our two looks; record N+1 is always created before N+2.
    """
    key = record_key(prefix, missing)
    if _get_window(store, [key]) == [None]:
        raise Damaged(
            f"{store.uri}: {key} is missing, though record {later} is there",
            expected="records without a gap",
            hint="Put the missing record back from a backup or the bucket's versions; nothing commits until then",
        )


def last_number(store: Store, prefix: str) -> int:
    """The highest number of the records that a listing shows, 0 where there is none."""
    names = (RECORD.fullmatch(key, len(prefix) + 1) for key in store.keys(prefix))
    return max((int(name[1]) for name in names if name), default=0)


def _known(store: Store, prefix: str) -> Log:
    """What this process verified before, if its head still lies there byte for byte; else an empty log."""
    with _verified_lock:
        known = _verified.get((store.uri, prefix))
    if known is None or known.head is None:
        return Log(prefix, ())
    key = record_key(prefix, known.number)
    (data,) = _get_window(store, [key])
    if data is not None and sha256(data) == known.head.sha256:
        return known
    if known_id(store) != known.head.store:  # another store lies at this address now
        return Log(prefix, ())
    raise Damaged(
        f"{store.uri}: {key} is {'missing' if data is None else 'changed'}, though this process has read it before",
        expected=f"the record with sha256 {known.head.sha256}",
        received=None if data is None else f"one with sha256 {sha256(data)}",
        hint="Put the record back from a backup or the bucket's versions",
    )


def _remember(store: Store, log: Log) -> None:
    with _verified_lock:
        known = _verified.get((store.uri, log.prefix))
        if known is None or known.number < log.number or not _extends(known, log):
            _verified[store.uri, log.prefix] = log


def _extends(known: Log, log: Log) -> bool:
    """Whether `known`, the longer one, goes on where `log` ends. If not, it was of another store."""
    return known.entries[: log.number] == log.entries


def _entry(
    store: Store, key: str, data: bytes, number: int, previous: Entry | EllipsisType | None, identity: str
) -> Entry:
    """The record in `data`, if it is what must stand at `key`; an ellipsis for `previous` leaves that open."""
    try:
        record = json.loads(data)
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.keys() - {"digest"} != _FIELDS or not isinstance(record["body"], dict):
        raise Damaged(
            f"{store.uri}: {key} is not a record of a commit log",
            expected=f"a JSON object with {', '.join(sorted(_FIELDS))} and digest",
            received=repr(data[:120]),
            hint=ORIGINAL,
        )
    expected: dict[str, Any] = {"number": number, "store": identity}
    if not isinstance(previous, EllipsisType):
        expected["previous"] = previous.sha256 if previous else None
    if "digest" in record or (isinstance(previous, Entry) and previous.digest is not None):
        expected["digest"] = sha256(canonical({name: record[name] for name in _FIELDS}))
    for name, value in expected.items():
        if record.get(name) != value:
            changed = name == "digest"
            raise Damaged(
                f"{store.uri}: the record {key} {'was changed' if changed else 'does not belong here'}",
                expected=f"{name} {value}",
                received=f"{name} {record.get(name)}",
                hint=MIXED if name == "store" else ORIGINAL,
            )
    return Entry(**record, sha256=sha256(data))


def _get_window(store: Store, keys: list[str]) -> list[bytes | None]:
    def one(key: str) -> bytes | None:
        try:
            return store.get(key)
        except NotFound:
            return None

    if len(keys) == 1 or store.path(keys[0]) is not None:  # a file that is not there costs less than a thread
        return [one(key) for key in keys]
    return list(in_order(one, keys))


def _text(value: str) -> str:
    """A command line's bytes that are no UTF-8 become escapes: a record is UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode()

"""The one boundary to storage: a small verb set over a directory, a memory or an S3 bucket.

Nothing is overwritten and nothing is deleted; `store.json` alone is replaced, when a store of an older format is first
written to. `create` is the only thing that concurrency relies on: of any number of writers of one key, exactly one
succeeds, and a reader sees the whole object or none. What was written is trusted, never what is read back: a digest
that is recorded is of bytes in memory, and what is read is held against its record, read again where it differs, and
then refused. What does not belong here: what the objects mean, and in which order they are written.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from leptonflow.core.hashing import sha256
from leptonflow.core.store_keys import Names, checked_key, checked_prefix, new_key
from schemas.errors import AlreadyExists, Damaged, NotFound, StoreRefused
from schemas.settings import checked_uri

STORE_KEY = "store.json"
STORE_FORMAT = 2  # 1: no record of a log has a digest of its own
OLDEST_FORMAT = 1
PAUSES = (0.05, 0.2)  # seconds before bytes that are not what was recorded are read once more
BACK = "Put the original object back from a copy of the store"
ID = re.compile("[0-9a-f]{32}")
LOGS = ("snapshots", "promotions")  # where every store that was used has commit logs, and nothing else

Parsed = TypeVar("Parsed")


class Store(Protocol):
    """Objects under keys. Every verb raises StoreUnreachable where the store cannot be reached, read or written."""

    uri: str

    def create(self, key: str, data: bytes) -> None:
        """Write an object that does not exist yet: atomic, and durable when this returns.

        Raises AlreadyExists where the key exists, whatever its bytes. On S3 a client that retries after a lost reply
        can be told this of its own object: use `adopt`, or an id inside the bytes, where that matters.
        """

    def replace_identity(self, data: bytes) -> None:
        """Overwrite `store.json`, and nothing else: atomic, and durable when this returns."""

    def create_many(self, items: Iterable[tuple[str, bytes]]) -> Names:
        """Write many objects at once; returns the keys that existed already, which are left as they are.

        Durable when this returns. After a failure or a kill some are there, each of them whole.
        """

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound, also for what resolves outside the store or is no regular file."""

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """The bytes of each key, in the order of `keys`. Raises NotFound at the first missing one."""

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where `get` would say NotFound."""

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(key, size) of all objects under `prefix`/, sorted by key; "" lists the whole store.

        Whatever others put there is listed by its exact name. A link is listed, never followed.
        """

    def keys(self, prefix: str) -> Names:
        """The keys of `list`, in its order: for who needs no sizes, which a directory store asks of each file."""

    def folders(self, prefix: str) -> Names:
        """The names of the folders directly under `prefix`/, sorted."""

    def check_writable(self) -> None:
        """Raises StoreUnreachable where nothing can be written and `create` of a key that exists would not show it."""

    def modified(self, prefix: str) -> datetime | None:
        """When the newest object under `prefix`/ was written; None where there is none, or the store does not say."""

    def path(self, key: str) -> Path | None:
        """The local file or folder of `key` on a directory store, there or not; None on every other store.

        "" is the store's root.
        """


class MemoryStore:
    """A store in this process, for tests of the engine."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def create(self, key: str, data: bytes) -> None:
        new_key(key)
        with self._lock:
            if key in self._objects:
                raise already_exists(self.uri, key)
            self._objects[key] = bytes(data)

    def replace_identity(self, data: bytes) -> None:
        with self._lock:
            self._objects[STORE_KEY] = bytes(data)

    def create_many(self, items: Iterable[tuple[str, bytes]]) -> Names:
        existing = []
        for key, data in items:
            try:
                self.create(key, data)
            except AlreadyExists:
                existing.append(key)
        return existing

    def get(self, key: str) -> bytes:
        try:
            return self._objects[checked_key(key)]
        except KeyError:
            raise not_found(self.uri, key) from None

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        return (self.get(key) for key in keys)

    def size(self, key: str) -> int | None:
        data = self._objects.get(checked_key(key))
        return None if data is None else len(data)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        start = _start(prefix)
        with self._lock:
            found = [(key, len(data)) for key, data in self._objects.items() if key.startswith(start)]
        return iter(sorted(found))

    def keys(self, prefix: str) -> Names:
        return [key for key, _ in self.list(prefix)]

    def folders(self, prefix: str) -> Names:
        start = _start(prefix)
        rest = (key.removeprefix(start) for key in self.keys(prefix))
        return sorted({name.split("/")[0] for name in rest if "/" in name})

    def check_writable(self) -> None:
        return

    def modified(self, prefix: str) -> datetime | None:
        checked_prefix(prefix)
        return None

    def path(self, key: str) -> Path | None:
        checked_prefix(key)
        return None


_memories: dict[str, MemoryStore] = {}
_memories_lock = threading.Lock()


def open_store(uri: str) -> Store:
    """The store at `uri`: file:///folder (or a plain path), s3://bucket/prefix, or memory://name.

    Nothing is read or written yet. One memory:// name is one store within a process.
    Raises UsageError for any other URI.
    """
    uri = checked_uri(uri)
    if uri.startswith("memory://"):
        with _memories_lock:
            return _memories.setdefault(uri, MemoryStore(uri))
    if uri.startswith("s3://"):
        from leptonflow.object_store import ObjectStore

        return ObjectStore(uri)
    from leptonflow.directory_store import DirectoryStore

    return DirectoryStore(uri)


# --- what was written, and what is read back -----------------------------------------------------


def adopt(store: Store, key: str, data: bytes) -> bytes:
    """Create `key`, or take what another writer created there first: returns the bytes that lie on the store.

    They are `data`, or the same in two readings: their digest can be recorded.
    """
    try:
        store.create(key, data)
    except AlreadyExists:
        found = store.get(key)
        return data if found == data else steady(store, key)
    return data


def place(store: Store, key: str, data: bytes, hint: str = BACK) -> None:
    """Create a key that is named after the digest of its bytes. Raises Damaged where other bytes lie there."""
    try:
        store.create(key, data)
    except AlreadyExists:
        recorded(store, key, sha256(data), hint)


def steady(store: Store, key: str) -> bytes:
    """An object that no record has a digest of, read until two readings agree. Raises NotFound, Damaged."""
    found = store.get(key)
    for pause in (*PAUSES, None):
        again = store.get(key)
        if again == found:
            return found
        found = again
        if pause is not None:
            time.sleep(pause)
    raise Damaged(f"{key} reads differently each time", expected="the same bytes twice", hint="Check the store's disk")


def recorded(store: Store, key: str, digest: str, hint: str = BACK) -> bytes:
    """The object whose sha256 is on record. Raises Damaged, naming the key, where it is another or gone.

    Bytes that differ are read again before they are refused: a reading can be wrong, and the object right.
    """
    for pause in (*PAUSES, None):
        try:
            data = store.get(key)
        except NotFound:
            received = "no such object"
            break
        if (found := sha256(data)) == digest:
            return data
        received = f"sha256 {found}"
        if pause is not None:
            time.sleep(pause)
    raise Damaged(f"{key} is not what was recorded", expected=f"sha256 {digest}", received=received, hint=hint)


def parsed(store: Store, key: str, parse: Callable[[bytes], Parsed]) -> Parsed:
    """`parse` of an object's bytes, which are read again where it raises ValueError or Damaged, then raised."""
    for pause in PAUSES:
        try:
            return parse(store.get(key))
        except (ValueError, Damaged):
            time.sleep(pause)
    return parse(store.get(key))


# --- the store's identity ------------------------------------------------------------------------


def store_id(store: Store) -> str:
    """The store's id, 32 hex digits, which a copied or moved store keeps: for who is about to write.

    Created on the first call. A store of an older format gets today's, so that releases which do not know it write
    nothing beside this one; what it holds stays as it is. Raises Damaged where store.json is not what a leptonflow
    wrote, or is missing though commit logs are there: their records name the id that it had, and another one would
    disown them for good.
    """
    try:
        identity, form = parsed(store, STORE_KEY, lambda data: _identity(store, data))
    except NotFound:
        return _first_id(store)
    if form < STORE_FORMAT:
        identity, _ = _identity(store, steady(store, STORE_KEY))  # what is read here once is written for good
        store.replace_identity(_identity_of(identity, STORE_FORMAT))
    return identity


def upgrade(store: Store) -> None:
    """Before a command's first write: a store of an older format becomes one of today's; a new one stays nameless."""
    if known_id(store) is not None:
        store_id(store)


def exists(store: Store) -> bool:
    """Whether a store lies at its address: its identity, or batches that were landed before anything read them."""
    return known_id(store) is not None or bool(store.folders("landing"))


def known_id(store: Store) -> str | None:
    """The store's id, None where it has none yet. Raises Damaged like `store_id`; writes nothing."""
    try:
        return parsed(store, STORE_KEY, lambda data: _identity(store, data))[0]
    except NotFound:
        return None


def _first_id(store: Store) -> str:
    if any(store.folders(name) for name in LOGS):
        known = known_id(store)  # another writer may have made both since
        if known is None:
            raise Damaged(
                f"{store.uri}: {STORE_KEY} is missing, though the store holds commit logs",
                expected="the identity that their records name",
                received="no such object",
                hint=f"Put {STORE_KEY} back from a copy of the store, or write it anew as "
                f'{{"format":{STORE_FORMAT},"id":"<the `store` of any record in those logs>"}}; no other one is made',
            )
        return known
    return _identity(store, adopt(store, STORE_KEY, _identity_of(uuid.uuid4().hex, STORE_FORMAT)))[0]


def _identity_of(identity: str, form: int) -> bytes:
    return json.dumps({"id": identity, "format": form}, sort_keys=True, separators=(",", ":")).encode()


def _identity(store: Store, data: bytes) -> tuple[str, int]:
    """(the id, the format). Raises Damaged."""
    try:
        found = json.loads(data)
        identity, form = str(found["id"]), found["format"]
    except (ValueError, TypeError, KeyError):
        identity, form = "", None
    if isinstance(form, int) and form > STORE_FORMAT:
        raise Damaged(
            f"{store.uri}: the store was made by a newer leptonflow",
            expected=f"format {OLDEST_FORMAT} to {STORE_FORMAT}",
            received=f"format {form}",
            hint="Use that release, or a later one: nothing was read or written",
        )
    if form not in range(OLDEST_FORMAT, STORE_FORMAT + 1) or not ID.fullmatch(identity):
        raise Damaged(
            f"{store.uri}: {STORE_KEY} is not a store's identity that this leptonflow can read",
            expected=f'{{"format":{STORE_FORMAT},"id":"<32 hex digits>"}}',
            received=repr(data[:200]),
            hint="Put the original back, or use the leptonflow that wrote it",
        )
    return identity, form


def already_exists(uri: str, key: str) -> AlreadyExists:
    """The same sentence from every store."""
    return AlreadyExists(f"{uri}: {key!r} exists already, and nothing is overwritten")


def overwrites(uri: str) -> StoreRefused:
    """The error for a store on which `create` is not what it must be."""
    return StoreRefused(
        f"{uri} overwrote an object that existed",
        expected="a store whose conditional writes (If-None-Match) work",
        received="a second create of one key that succeeded",
        hint="Use a server that supports conditional writes, such as MinIO or SeaweedFS; nothing else is written to it",
    )


def not_found(uri: str, key: str, why: str = "no object has this key") -> NotFound:
    """The same sentence from every store."""
    return NotFound(f"{uri}: {key!r} was not found: {why}")


def _start(prefix: str) -> str:
    prefix = checked_prefix(prefix)
    return prefix + "/" if prefix else ""

"""The one boundary to storage: a small verb set over a directory, a memory or an S3 bucket.

Nothing is overwritten and nothing is deleted. `create` is the only thing that concurrency relies on: of any number of
writers of one key, exactly one succeeds, and a reader sees the whole object or none. What does not belong here: what
the objects mean, and in which order they are written.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from leptonflow.digests import sha256
from leptonflow.keys import Names, checked_key, checked_prefix, new_key
from schemas.errors import AlreadyExists, Damaged, NotFound
from schemas.settings import checked_uri

STORE_KEY = "store.json"
STORE_FORMAT = 1
BACK = "Put the original object back from a copy of the store"
LOGS = ("snapshots", "promotions")  # where every store that was used has commit logs, and nothing else


class Store(Protocol):
    """Objects under keys. Every verb raises StoreUnreachable where the store cannot be reached, read or written."""

    uri: str

    def create(self, key: str, data: bytes) -> None:
        """Write an object that does not exist yet: atomic, and durable when this returns.

        Raises AlreadyExists where the key exists, whatever its bytes. On S3 a client that retries after a lost reply
        can be told this of its own object: use `adopt`, or an id inside the bytes, where that matters.
        """

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


def adopt(store: Store, key: str, data: bytes) -> bytes:
    """Create `key`, or take what another writer created there first: returns the bytes that lie on the store."""
    try:
        store.create(key, data)
    except AlreadyExists:
        return store.get(key)
    return data


def recorded(store: Store, key: str, digest: str, hint: str = BACK) -> bytes:
    """The object whose sha256 is on record. Raises Damaged, naming the key, where it is another or gone."""
    try:
        data = store.get(key)
    except NotFound:
        received = "no such object"
    else:
        if (found := sha256(data)) == digest:
            return data
        received = f"sha256 {found}"
    raise Damaged(f"{key} is not what was recorded", expected=f"sha256 {digest}", received=received, hint=hint)


def store_id(store: Store) -> str:
    """The store's id, 32 hex digits, which a copied or moved store keeps. Created on the first call.

    Raises Damaged where store.json is not what a leptonflow wrote, or is missing though commit logs are there: their
    records name the id that it had, and another one would disown them for good.
    """
    known = known_id(store)
    if known is not None:
        return known
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
    fresh = {"id": uuid.uuid4().hex, "format": STORE_FORMAT}
    return _identity(store, adopt(store, STORE_KEY, json.dumps(fresh, sort_keys=True, separators=(",", ":")).encode()))


def known_id(store: Store) -> str | None:
    """The store's id, None where it has none yet. Raises Damaged like `store_id`; writes nothing."""
    try:
        return _identity(store, store.get(STORE_KEY))
    except NotFound:
        return None


def _identity(store: Store, data: bytes) -> str:
    try:
        found = json.loads(data)
        identity, form = str(found["id"]), found["format"]
    except (ValueError, TypeError, KeyError):
        identity, form = "", None
    if form != STORE_FORMAT or len(identity) != 32:
        raise Damaged(
            f"{store.uri}: {STORE_KEY} is not a store's identity that this leptonflow can read",
            expected=f'{{"format":{STORE_FORMAT},"id":"<32 hex digits>"}}',
            received=repr(data[:200]),
            hint="Put the original back, or use the leptonflow that wrote it",
        )
    return identity


def already_exists(uri: str, key: str) -> AlreadyExists:
    """The same sentence from every store."""
    return AlreadyExists(f"{uri}: {key!r} exists already, and nothing is overwritten")


def not_found(uri: str, key: str, why: str = "no object has this key") -> NotFound:
    """The same sentence from every store."""
    return NotFound(f"{uri}: {key!r} was not found: {why}")


def _start(prefix: str) -> str:
    prefix = checked_prefix(prefix)
    return prefix + "/" if prefix else ""

"""The one boundary to storage: a small verb set over a directory, a memory or an S3 bucket.

Nothing is overwritten and nothing is deleted, except what lies under `scratch/`, which no record names; `store.json`
alone is replaced, when a store of an older format is first written to. `create` is the only thing that concurrency
relies on: of any number of writers of one key, exactly one succeeds, and a reader sees the whole object or none. What
does not belong here: what the objects mean, and in which order they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from leptonflow.core.store_keys import Names
from schemas.errors import AlreadyExists, NotFound, StoreRefused

STORE_KEY = "store.json"


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

    def remove_scratch(self, key: str) -> None:
        """Remove an object under `scratch/`, if it is there. Raises UsageError for every other key."""

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

"""A store in this process's memory, for tests of the engine."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from leptonflow.core.store_keys import Names, checked_key, checked_prefix, new_key, scratch_key
from leptonflow.storage.store import STORE_KEY, already_exists, not_found
from schemas.errors import AlreadyExists


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

    def remove_scratch(self, key: str) -> None:
        with self._lock:
            self._objects.pop(scratch_key(key), None)

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


def _start(prefix: str) -> str:
    prefix = checked_prefix(prefix)
    return prefix + "/" if prefix else ""

"""The store at an address: a folder, an S3 bucket or, in tests, this process's memory."""

from __future__ import annotations

import threading

from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from schemas.settings import checked_uri

_memories: dict[str, MemoryStore] = {}  # by URI: such a store is the memory of its process
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
        from leptonflow.storage.object_store import ObjectStore

        return ObjectStore(uri)
    from leptonflow.storage.directory_store import DirectoryStore

    return DirectoryStore(uri)

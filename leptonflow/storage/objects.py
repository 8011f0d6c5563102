"""Objects as they were recorded: created once, adopted where they exist, held against their sha256 when read.

What was written is trusted, never what is read back: a digest that is recorded is of bytes in memory, and what is read
is held against its record, read again where it differs, and then refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from leptonflow.core.hashing import sha256
from leptonflow.storage.store import Store
from schemas.errors import AlreadyExists, Damaged, NotFound

if TYPE_CHECKING:
    from pydantic import BaseModel

PAUSES = (0.05, 0.2)  # seconds before bytes that are not what was recorded are read once more
BACK = "Put the original object back from a copy of the store"
Parsed = TypeVar("Parsed")
Model = TypeVar("Model", bound="BaseModel")


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
    return repeated(lambda: parse(store.get(key)))


def repeated(read: Callable[[], Parsed]) -> Parsed:
    """What `read` gives, tried again where it raises ValueError or Damaged: one wrong reading is no damage."""
    for pause in PAUSES:
        try:
            return read()
        except (ValueError, Damaged):
            time.sleep(pause)
    return read()


def read_model(kind: type[Model], key: str, data: bytes, what: str) -> Model:
    """The record in an object's bytes. Raises Damaged, naming the key and what it should be."""
    try:
        return kind.model_validate_json(data)
    except ValueError as error:  # pydantic's ValidationError is one
        raise Damaged(
            f"{key} is not {what}",
            expected=", ".join(kind.model_fields),
            received=str(error).splitlines()[0],
            hint=BACK,
        ) from None


def read_models(store: Store, kind: type[Model], keys: Sequence[str], what: str) -> list[Model]:
    """The records under these keys, in their order. Raises NotFound, Damaged as `read_model` does."""
    return [read_model(kind, key, data, what) for key, data in zip(keys, store.get_many(keys), strict=True)]


def location(store: Store, key: str) -> str:
    """Where a person finds an object: its path on a directory store, else its URI."""
    path = store.path(key)
    return str(path) if path is not None else f"{store.uri.rstrip('/')}/{key}"

"""The store's identity and format, in `store.json`."""

from __future__ import annotations

import json
import re
import uuid

from leptonflow.core.store_keys import LANDING, PROMOTIONS, SNAPSHOTS
from leptonflow.storage.objects import adopt, parsed, steady
from leptonflow.storage.store import STORE_KEY, Store
from schemas.errors import Damaged, LeptonflowError, NotFound

STORE_FORMAT = 2  # 1: no record of a log has a digest of its own

OLDEST_FORMAT = 1

ID = re.compile("[0-9a-f]{32}")

LOGS = (SNAPSHOTS, PROMOTIONS)  # where every store that was used has commit logs, and nothing else


def store_id(store: Store) -> str:
    """The store's id, 32 hex digits, which a copied or moved store keeps: for who is about to write.

    Created on the first call. A store of an older format gets the current one, so releases that do not know it write
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
    """Before a command's first write: a store of an older format gets the current one; a new store stays nameless."""
    if known_id(store) is not None:
        store_id(store)


def exists(store: Store) -> bool:
    """Whether a store lies at its address: its identity, or batches that were landed before anything read them."""
    return known_id(store) is not None or bool(store.folders(LANDING))


def require(store: Store) -> None:
    """Raises LeptonflowError where no store lies at the address, such as a folder whose disk is not mounted."""
    if not exists(store):
        raise missing(store)


def missing(store: Store) -> LeptonflowError:
    """The error where there is no store."""
    return LeptonflowError(
        f"there is no store at {store.uri}",
        expected="a store that leptonflow created, or batches in landing/",
        received="neither",
        hint="Check the store's address (--store, LEPTONFLOW_STORE); the first `leptonflow ingest` creates one",
    )


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

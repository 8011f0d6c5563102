"""Everything that a record names, read and held against its sha256. Reads, and writes nothing.

Few objects are in memory at once, whatever the store holds. What does not belong here: what records name (`inventory`),
what to do about damage (`intact_champions` knows the way back to a champion), and a machine's state (`doctor`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from leptonflow.core.concurrency import in_order
from leptonflow.core.hashing import sha256
from leptonflow.runs.inventory import GONE, Named, Verified, everything
from leptonflow.storage.objects import PAUSES
from leptonflow.storage.store import STORE_KEY, Store
from leptonflow.storage.store_identity import known_id
from schemas.errors import Damaged, NotFound

READERS = 4


def verify(store: Store, names: Sequence[str], report: Callable[[str, int, int], None]) -> dict[str, Any]:
    """{objects, bytes, damaged: [{key, expected, received}]} of all that the records of some pipelines name.

    Compacted tables hold rows of every pipeline, and are always looked at. Raises StoreUnreachable.
    """
    found = Verified()
    try:
        if known_id(store) is None and names:
            found.wrong(STORE_KEY, "the store's id", GONE)
    except Damaged as error:
        found.wrong(STORE_KEY, error.expected, error.received)
    if found.damaged:  # nothing can be told of the logs, whose records name it
        return found.document()

    def look(named: Named) -> tuple[Named, int, str | None]:
        return (named, *_look(store, named))

    for named, size, received in in_order(look, _once(everything(store, names, found)), READERS):
        found.objects += 1
        found.bytes += size
        if received is not None:
            found.wrong(named.key, f"sha256 {named.sha256}" if named.sha256 else named.expected, received)
        if found.objects % 64 == 0:
            report("verifying", found.objects, 0)
    return found.document()


def _look(store: Store, named: Named) -> tuple[int, str | None]:
    """(the object's size, what is wrong with it or None); what is wrong is read again."""
    for pause in (*PAUSES, None):
        try:
            data = store.get(named.key)
        except NotFound:
            return 0, GONE
        digest = sha256(data)
        wrong = named.problem(data) if named.sha256 is None else None if digest == named.sha256 else f"sha256 {digest}"
        if wrong is None or pause is None:
            break
        time.sleep(pause)
    return len(data), wrong


def _once(every: Iterable[Named]) -> Iterator[Named]:
    """Each key once; again where another sha256 is on record."""
    seen: dict[str, set[str]] = {}
    for named in every:
        digests = seen.get(named.key)
        if digests is None or (named.sha256 is not None and named.sha256 not in digests):
            seen.setdefault(named.key, set()).update({named.sha256} if named.sha256 else ())
            yield named

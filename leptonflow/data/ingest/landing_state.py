"""What lies in landing and is read by nobody: open batches, names that are none, files that came after the reading.

Looks and writes nothing. What does not belong here: which batches are pending (pending_batches), and
changed bytes (landed_changes).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from leptonflow.core.concurrency import in_order
from leptonflow.core.hashing import digest
from leptonflow.core.store_keys import INGEST, READY, batch_folder, landed_key, landing_folder
from leptonflow.data.ingest import discards, layouts
from leptonflow.storage.store import Store
from schemas.config import NAME
from schemas.errors import StoreUnreachable, UsageError
from schemas.records import Outcome, Seen
from schemas.text import counted

# What people write where `_READY` is meant. An example may be called so too: those endings are left out.
MARKER = re.compile(r"[\W_]*(ready|success|done|complete|closed)[\W_]*(\.(txt|flag|json|ok|tmp|md))?", re.IGNORECASE)


@dataclass(frozen=True)
class Open:
    """A folder without `_READY`. newest: when something in it last changed, None where the store does not say.

    note   what keeps it from being closed, where that can be seen
    wrong  whether it would never be read as it is
    """

    batch: str
    files: int
    newest: datetime | None
    note: str | None
    wrong: bool


@dataclass(frozen=True)
class Late:
    """A batch whose files are others than when it was read. files: how many more; negative: fewer."""

    batch: str
    files: int
    sentence: str


def named(names: Iterable[str]) -> Seen:
    """What `seen` gives for files of these names, relative to the batch's folder."""
    shown = sorted(layouts.shown(name) for name in names if not layouts.is_hidden(name) and not name.endswith("/"))
    return Seen(files=len(shown), names=digest("names", shown))


def readable(store: Store, pipeline: str, batch: str) -> bool:
    """Whether this user may look into a batch's folder: one that belongs to somebody else keeps no other waiting."""
    folder = store.path(batch_folder(pipeline, batch))
    return folder is None or not folder.is_dir() or os.access(folder, os.R_OK | os.X_OK)


def seen(store: Store, pipeline: str, batch: str) -> Seen | None:
    """The files of a batch as they lie there now: how many, and the digest of their names.

    None where a folder in it is closed to this user.
    """
    names = _names(store, pipeline, batch)
    return None if names is None else named(names)


def late(store: Store, pipeline: str, outcomes: Sequence[Outcome], most: int | None = None) -> list[Late]:
    """The batches among these that were read before all their files were there.

    most: look at the newest batches, until they had so many files in all. One that an earlier release read has no
    record of its files.
    """
    known = [outcome for outcome in reversed(outcomes) if outcome.seen is not None]
    totals = accumulate(outcome.seen.files for outcome in known if outcome.seen)
    looked_at = [outcome for outcome, total in zip(known, totals, strict=True) if most is None or total <= most]

    def one(outcome: Outcome) -> Late | None:
        now = seen(store, pipeline, outcome.batch)
        if now is None or outcome.seen is None or now == outcome.seen:
            return None
        if now.files == 0:  # whoever cleared it away knows
            return None
        more = now.files - outcome.seen.files
        told = "other files than when it was read"
        if more:
            told = f"{counted(abs(more), 'file')} {'added later' if more > 0 else 'taken away'}"
        return Late(outcome.batch, more, told)

    return [found for found in in_order(one, reversed(looked_at)) if found is not None]


def open_batches(store: Store, pipeline: str, besides: Collection[str] = ()) -> list[Open]:
    """The folders without `_READY` that nobody has discarded, also those that no batch can be named.

    besides: names that need not be asked for.
    """
    names = [name for name in store.folders(landing_folder(pipeline)) if name not in besides]
    discarded = discards.names(store, pipeline)
    return [
        found
        for found in in_order(lambda name: _open(store, pipeline, name), names)
        if found is not None and layouts.escape(found.batch) not in discarded
    ]


def _open(store: Store, pipeline: str, name: str) -> Open | None:
    ready = landed_key(pipeline, name, READY)
    try:
        if not readable(store, pipeline, name):
            return Open(layouts.shown(name), 0, None, _CLOSED_TO_US, True)
        if store.size(ready) is not None:
            return None
        names = _names(store, pipeline, name)
        if names is None:
            return Open(layouts.shown(name), 0, None, _CLOSED_TO_US, False)
        note, wrong = _note(name, names, _is_no_file(store, ready))
        return Open(layouts.shown(name), named(names).files, store.modified(batch_folder(pipeline, name)), note, wrong)
    except UsageError:  # a name that no key can have
        return Open(layouts.shown(name), 0, None, _MISNAMED, True)


_CLOSED_TO_US = "this user may not read its folder, or a folder in it"
_MISNAMED = f"no batch can have this name (expected: {NAME.pattern})"


def _is_no_file(store: Store, ready: str) -> bool:
    """Whether something is called `_READY` that closes nothing: a folder, or a link that leads nowhere or outside."""
    path = store.path(ready)
    return path is not None and os.path.lexists(path)


def _note(name: str, keys: Sequence[str], no_file: bool) -> tuple[str | None, bool]:
    if not NAME.fullmatch(name):
        return _MISNAMED, True
    if no_file:
        return f"its {READY} must be a file", True
    top = dict.fromkeys(key.partition("/")[0] for key in keys)
    marker = next((each for each in top if each not in (READY, INGEST) and MARKER.fullmatch(each)), None)
    if marker is not None:
        return f"its {layouts.shown(marker)} must be called {READY}", True
    if INGEST in top:
        return "its `ingest` has not finished: run the same command again, unless it is still running", False
    return None, False


def _names(store: Store, pipeline: str, batch: str) -> list[str] | None:
    prefix = batch_folder(pipeline, batch)
    try:
        return [key.removeprefix(f"{prefix}/") for key in store.keys(prefix)]
    except StoreUnreachable:
        if store.path("") is None:
            raise
        return None

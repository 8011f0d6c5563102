"""The keys of a store: which it takes. Plain functions, no store.

A key is relative to the store's root, its segments separated by `/`. What others put on a store may be named anything;
what we create may not. What does not belong here: any input or output.
"""

from __future__ import annotations

import re

from schemas.errors import UsageError

# Inside a class with a method `list` the word no longer names the type.
Names = list[str]

# A temporary file beside its final name. `list` never shows it, and no key may look like it.
TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{16}")
# obstore refuses control characters, SeaweedFS turns a backslash into a slash, lone surrogates are no UTF-8, a listing
# in XML cannot hold U+FFFE and U+FFFF, and U+FFFD is what a server says for a character that it cannot list.
_NOT_IN_NEW_KEYS = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff\ufffd-\uffff]")
LONGEST_SEGMENT = 255  # bytes: a file's name on disk, and MinIO keeps each segment as one


def checked_key(key: str) -> str:
    """`key`, if it can be asked for. UsageError where it is empty, absolute, or has a `.` or `..` segment or a NUL."""
    segments = key.split("/")
    if not key or key.startswith("/") or "\0" in key or "." in segments or ".." in segments:
        raise UsageError(
            "not a valid store key",
            expected="a path relative to the store's root, without . or .. in it",
            received=repr(key),
        )
    return key


def new_key(key: str) -> str:
    """`key`, if it may be created: every store and every server can name it, and nothing of ours hides it."""
    checked_key(key)
    if _NOT_IN_NEW_KEYS.search(key) or not all(_names_one(segment) for segment in key.split("/")):
        raise UsageError(
            "no object can be created under this key",
            expected="segments of 1 to 255 bytes of UTF-8 without control characters and backslashes",
            received=repr(key),
            hint="Names from outside are escaped before they become keys",
        )
    return key


def _names_one(segment: str) -> bool:
    return 0 < len(segment.encode()) <= LONGEST_SEGMENT and not TEMPORARY.fullmatch(segment)


def checked_prefix(prefix: str) -> str:
    """`prefix` without a slash at its end, if it can be listed; an empty one is the whole store."""
    return checked_key(prefix.rstrip("/")) if prefix else ""


READY = "_READY"

INGEST = "_INGEST"


def folder_key(pipeline: str, batch: str) -> str:
    """Where a batch lies."""
    return f"landing/{pipeline}/{batch}"


def outcome_key(pipeline: str, batch: str, contract: str) -> str:
    """Where a batch's outcome under one contract lies."""
    return f"batches/{pipeline}/{batch}/{contract}.json"


def run_key(pipeline: str, run_id: str, name: str) -> str:
    """The key of one of a run's objects."""
    return f"runs/{pipeline}/{run_id}/{name}"


def package_key(pipeline: str, version: str, name: str) -> str:
    """The key of one file of a package."""
    return f"models/{pipeline}/{version}/{name}"


def fit_key(pipeline: str, version: str, fold: int | None, name: str) -> str:
    """The key of one object of a fold (or, with None, of the final fit)."""
    return f"fits/{pipeline}/{version}/{'final' if fold is None else f'fold-{fold}'}/{name}"


def decision_key(pipeline: str, run_id: str, number: int) -> str:
    """Where a run's decision against record `number` of the promotions log lies."""
    return f"runs/{pipeline}/{run_id}/decisions/{number}.json"

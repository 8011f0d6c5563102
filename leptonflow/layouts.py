"""What shape a batch has, decided from its names alone: a folder per class, a `.npy` pair, or a table.

Pure: the names and the records that landing and examining hand around belong here; no file is
opened here and no store is asked.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from schemas.config import NAME
from schemas.records import Listing, SourceRow

READY = "_READY"
INGEST = "_INGEST"
TABLES = (".csv", ".parquet")

LONGEST = 200  # bytes of an escaped component; file systems take 255
_CUT = 12
_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Index:
    """What the dataset already knows, so that it need not be landed again.

    known    sha256 of a file (or of a `.npy` row's bytes) -> the label it was accepted under
    recalled (sha256, label) of a row that was quarantined under this contract -> (rule, reason)
    classes  the dataset's classes, by which `.npy` class numbers are read; None while it has none
    """

    known: Mapping[str, str] = field(default_factory=dict)
    recalled: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None

    def has(self, sha256: str, label: str | None) -> bool:
        """Whether the dataset holds these bytes under this label."""
        return label is not None and self.known.get(sha256) == label


@dataclass(frozen=True)
class Layout:
    """`kind` is folders, npy or table; the others name the files that make it so."""

    kind: str
    table: str | None = None
    data: str | None = None
    labels: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One file of a landed batch. `key` is relative to the batch's folder; sha256 is None in a plain batch."""

    key: str
    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class Batch:
    """A closed batch as it lies in landing/. `listing` is None where `_READY` is empty (a plain batch)."""

    pipeline: str
    name: str
    layout: str  # folders, npy, table
    shape: Layout
    items: tuple[Item, ...]
    listing: Listing | None
    refused: tuple[SourceRow, ...] = ()
    known: int = 0
    ignored: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The key of the batch's folder."""
        return folder_key(self.pipeline, self.name)


def folder_key(pipeline: str, batch: str) -> str:
    """Where a batch lies."""
    return f"landing/{pipeline}/{batch}"


def layout(names: Iterable[str]) -> Layout:
    """The layout of files with these names, relative to the root and not hidden (DESIGN section 4).

    One `*_data.npy` with its `*_labels.npy`; else no sub-folder but one table; else a folder per class.
    """
    names = list(names)
    root = sorted(name for name in names if "/" not in name)
    pairs = [(n, n[: -len("_data.npy")] + "_labels.npy") for n in root if n.lower().endswith("_data.npy")]
    whole = [pair for pair in pairs if pair[1] in root]
    if len(pairs) == 1 and whole:
        data, labels = pairs[0]
        return Layout("npy", data=data, labels=labels)
    tables = [n for n in root if n.lower().endswith(TABLES)]
    if len(root) == len(names) and len(tables) == 1:
        return Layout("table", table=tables[0])
    warnings: list[str] = []
    if pairs:
        found = ", ".join(n for n, _ in pairs)
        warnings.append(
            f"read as a folder per class: a .npy batch has one *_data.npy with its *_labels.npy; here are {found}"
        )
    elif tables:
        warnings.append(
            f"read as a folder per class: beside one table there is no sub-folder; pass the table itself "
            f"({', '.join(tables)}) instead"
        )
    return Layout("folders", warnings=tuple(warnings))


def extras(found: Layout, names: Iterable[str]) -> list[str]:
    """The files of a `.npy` batch that are neither its data nor its labels."""
    return [name for name in names if name not in (found.data, found.labels)]


def extras_warning(names: list[str]) -> str:
    """The sentence about files that no row speaks of."""
    shown = ", ".join(repr(n) for n in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} files beside the rows were left out, for no row names them: {shown}"


def label_of(name: str) -> str | None:
    """A file's label in a folder per class: its first folder; None outside of one."""
    first, slash, _ = name.partition("/")
    return first if slash else None


def is_hidden(name: str) -> bool:
    """Whether a file is ignored: hidden, in a hidden folder, or one of our own markers at the root."""
    return name in (READY, INGEST) or name.startswith(".") or "/." in name


def shown(name: str) -> str:
    """A file's name as it is recorded: valid Unicode, what does not decode as \\xNN."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def escape(name: str) -> str:
    """The key of a file's name, relative to its batch: safe on every store, distinct for distinct names.

    Every byte other than [A-Za-z0-9._-] is %XX, and so is the first of a component that starts with
    '.' or '_' (none is hidden or one of our markers). A component over 200 bytes is cut and given '~'
    and 12 hex digits of its sha256.
    """
    return "/".join(_escape(os.fsencode(part)) for part in name.split("/"))


def _escape(component: bytes) -> str:
    safe = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], component)
    if safe[:1] in (b".", b"_"):
        safe = b"%%%02X" % safe[0] + safe[1:]
    if len(safe) > LONGEST:
        safe = safe[:LONGEST] + b"~" + hashlib.sha256(component).hexdigest()[:_CUT].encode()
    return safe.decode("ascii")


def default_name(source: str, digest: str) -> str:
    """A batch's name: what the source is called and 12 hex digits of its listing's digest."""
    stem = re.sub(r"[^a-z0-9._-]", "-", source.lower())[:50].lstrip("._-")
    name = f"{stem or 'batch'}-{digest[:_CUT]}"
    assert NAME.fullmatch(name), name
    return name

"""The names of a batch and its files, and the records that landing and examining hand around.

Pure: what is a label, what is ignored and how a name becomes a key belong here; which layout a source has is decided
elsewhere (source_layout); no file is opened here and no store is asked.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from leptonflow.core.store_keys import INGEST, READY, batch_folder
from leptonflow.workloads.base import Suffixes
from schemas.config import NAME
from schemas.groups import Group
from schemas.records import Listing, Seen, SourceRow
from schemas.text import counted, nfc, noun

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
# What operating systems and tools leave behind, whatever folder it lies in. Compared without regard to case.
LITTER = frozenset(
    ("thumbs.db", "desktop.ini", "ehthumbs.db", "ehthumbs_vista.db", "icon\r", "picasa.ini", "@eadir", "#recycle",
     "#snapshot", "@recycle", "@recently-snapshot", "__macosx", "$recycle.bin", "recycler", "found.000", "__pycache__",
     "system volume information", "lost+found", "network trash folder", "temporary items", "node_modules",
     "zbthumbnail.info", "pspbrwse.jbf")
)  # fmt: skip
ANY = Suffixes()
# What lies beside examples and is none: documents, annotations, tables, arrays, programs, archives, sound, films.
OTHERS = re.compile(
    r"\.(?:txt|xml|jsonl?|ndjson|md|rst|html?|csv|tsv|parquet|ya?ml|toml|ini|cfg|log|xmp|aae|thm|pdf|rtf|docx?|xlsx?|od[ts]"
    r"|pptx?|mat|np[yz]|h5|hdf5|pkl|pickle|pth?|onnx|tfrecord|db|sqlite|pyc?|ipynb|sh|bat|url|lnk|md5|sha1|sha256|zip|tar"
    r"|t?gz|bz2|xz|7z|rar|mp[34]|avi|mov|mkv|webm|wav|sw[op]|lock|dvc|names|tfw|jgw|pgw|wld|prj"
    r"|geojson)"
)
DOCUMENTS = frozenset(("readme", "license", "licence", "changelog", "copying", "notice", "citation", "authors"))

LONGEST = 200  # bytes of an escaped component; file systems take 255
_CUT = 12
_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Index:
    """What the dataset already knows, so that it need not be landed again.

    known    sha256 of a file (or of a `.npy` row's bytes) -> the label it was accepted under
    recalled (sha256, label) of a row that was quarantined under this contract -> (rule, reason)
    classes  the dataset's classes, by which `.npy` class numbers are read; None while it has none
    group    how the YAML says that a group is found, None where there are none
    groups   sha256 of a known file -> its group
    """

    known: Mapping[str, str] = field(default_factory=dict)
    recalled: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    group: Group | None = None
    groups: Mapping[str, str] = field(default_factory=dict)

    def has(self, sha256: str, label: str | None) -> bool:
        """Whether the dataset holds these bytes under this label."""
        return label is not None and self.known.get(sha256) == label

    def ungrouped(self, sha256: Iterable[str]) -> bool:
        """Whether there are groups, and none of these bytes is of an example that has one already."""
        return self.group is not None and not any(each in self.groups for each in sha256)


@dataclass(frozen=True)
class Layout:
    """`kind` is folders, npy or table; the others name the files that make it so.

    pairs  (data, labels) of each pair of `.npy` files; an `.npz` stands twice: its arrays are paired when it is opened
    roots  the folders whose sub-folders are the classes; empty: the batch's own
    split  these roots are the parts of a split, such as train and test
    apart  folders that hold no examples but masks or annotations of others
    """

    kind: str
    table: str | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    roots: tuple[str, ...] = ()
    split: bool = False
    apart: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    suffixes: Suffixes = ANY

    def ignores(self, name: str) -> bool:
        """Whether a file in a folder per class is no example: by its own name, or by its folder's."""
        return is_litter(name, self.suffixes) or any(name.startswith(f"{folder}/") for folder in self.apart)


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
    seen: Seen | None = None  # the files that were there; by the listing, where it has one

    @property
    def prefix(self) -> str:
        """The key of the batch's folder."""
        return batch_folder(self.pipeline, self.name)


def beside(found: Layout, names: Iterable[str]) -> list[str]:
    """The files of a `.npy` batch that are neither data nor labels."""
    ours = {name for pair in found.pairs for name in pair}
    return [name for name in names if name not in ours]


def beside_warning(names: list[str]) -> str:
    """The sentence about files that no row speaks of."""
    listed = ", ".join(repr(n) for n in names[:3]) + (", ..." if len(names) > 3 else "")
    were, them = noun(len(names), "was", "were"), noun(len(names), "it", "them")
    return f"{counted(len(names), 'file')} beside the rows {were} left out, because no row names {them}: {listed}"


def label_of(name: str, roots: Collection[str] = ()) -> str | None:
    """A file's label in a folder per class: its folder below the root, as NFC; None outside of one."""
    folder = class_folder(name, roots)
    return None if folder is None else nfc(folder)


def class_folder(name: str, roots: Collection[str] = ()) -> str | None:
    """The folder that is a file's label, as it is called there."""
    folders = name.split("/")[:-1]
    at = _depth(folders, roots)
    return folders[at] if at is not None and at < len(folders) else None


def lookalikes(labels: Iterable[str], classes: Iterable[str] = (), what: str = "label") -> list[str]:
    """A sentence for labels of one source, as they are written, that differ only by case, blanks or Unicode form.

    classes  those of the dataset, which a label of the source can look like too
    """
    written = set(labels)
    alike: dict[str, set[str]] = {}
    for label in written | set(classes):
        alike.setdefault("".join(nfc(label).split()).casefold(), set()).add(label)
    told = []
    for found in alike.values():
        if len(found) > 1 and found & written:
            kept = {nfc(label) for label in found}
            names = ", ".join(ascii(label) if len(kept) < len(found) else repr(label) for label in sorted(found))
            said = f"one {what}" if len(kept) == 1 else f"{len(kept)} different {what}s; one may be a typing error"
            told.append(f"the {what}s {names} look alike and are taken as {said}")
    return sorted(told)


def split_of(name: str, roots: Collection[str]) -> str | None:
    """Which of the roots a file lies in."""
    folders = name.split("/")[:-1]
    at = _depth(folders, roots)
    return "/".join(folders[:at]) if at else None


def _depth(folders: list[str], roots: Collection[str]) -> int | None:
    """How many folders make up the root of a file; None outside of every root. No root lies in another."""
    if not roots:
        return 0
    return next((n for n in range(1, len(folders) + 1) if "/".join(folders[:n]) in roots), None)


def is_litter(name: str, suffixes: Suffixes = ANY) -> bool:
    """Whether a file that lies among examples is none by its name: a document, an annotation, a table, an archive."""
    last = name.rpartition("/")[2].lower()
    stem, dot, suffix = last.rpartition(".")
    if last.startswith("~$"):  # an office program's lock
        return True
    held = dot + suffix in suffixes.held
    if (stem or last) in DOCUMENTS:
        return suffixes.only or not held
    return not held and (suffixes.only or OTHERS.fullmatch(dot + suffix) is not None)


def litter_warning(names: Sequence[str]) -> str:
    """The sentence about files that were ignored by their names, or as masks by their folders'."""
    kinds = Counter(name.rpartition("/")[2].rpartition(".")[2].lower() for name in names).most_common(3)
    counts = ", ".join(f"{count} .{kind}" for kind, count in kinds) + (", ..." if len(kinds) > 2 else "")
    ignored = f"{counted(len(names), 'file is', 'files are')} ignored as not data, by name or folder"
    return f"{ignored} ({counts}), such as {shown(names[0])!r}"


def is_hidden(name: str) -> bool:
    """Whether a file is ignored: hidden or left by a system or a tool, in such a folder, or one of our own markers."""
    if name in (READY, INGEST) or name.startswith(".") or "/." in name:
        return True
    return any(part in LITTER for part in name.lower().split("/"))


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

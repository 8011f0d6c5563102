"""Which layout a source has: pairs of arrays, a table, or a folder per class, and in which of its folders that begins.

Decided from names, and from the header of a table where the names leave it open. The same decision is taken by `init`,
by `ingest` and for a batch that somebody put into landing/. No file is opened here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from leptonflow.data.ingest.label_columns import LABELS as LABEL_COLUMNS
from leptonflow.data.ingest.label_columns import PATHS
from leptonflow.data.ingest.layouts import ANY, TABLES, Layout, is_litter, shown
from leptonflow.workloads.base import Suffixes
from schemas.text import nfc

SPLITS = frozenset(
    ("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "evaluation", "holdout")
)
DATA = frozenset(("x", "data", "images", "image", "imgs", "pixels", "features", "inputs"))
LABELS = frozenset(("y", "labels", "label", "targets", "target"))
FILES = frozenset(("images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "frames", "rgb"))
ANNOTATIONS = frozenset(
    ("masks", "mask", "annotations", "annotation", "labels", "segmentation", "segmentations", "gt", "groundtruth")
)  # what lies beside such a folder and is made of its files
LOOKED_FOR = "X and y, images and labels, data and labels, or such names with a part in common, as x_train and y_train"
DEEPEST = 16  # folders within folders that are looked through

_WORDS = re.compile(r"[^a-z0-9]+")
_CASES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=^[xXyY])(?=[tTvV])")


@dataclass
class _Folder:
    """A folder of the source: the names of its own files by kind, and its sub-folders."""

    path: str = ""
    examples: int = 0  # files that are one by their names, or may be
    arrays: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    folders: dict[str, _Folder] = field(default_factory=dict)
    full: bool = False  # an example lies in it or below it

    def classes(self) -> list[str]:
        """The sub-folders with an example."""
        return [name for name, folder in self.folders.items() if folder.full]


def layout(
    names: Iterable[str],
    classes: Collection[str] | None = None,
    has_columns: Callable[[str], bool] | None = None,
    broken: Callable[[str], str | None] = lambda name: None,
    suffixes: Suffixes = ANY,
    nested: bool = False,
) -> Layout:
    """The layout of files with these names, relative to the source and not hidden.

    classes      the pipeline's, where it has some: a folder with such a name is a class and nothing else
    has_columns  whether a table has a path column and a label column; without it no table beside a folder is one
    broken       why a table cannot be read, if it cannot
    nested       the folders below a class are groups: folders that hold the same ones are no split
    """
    known = frozenset(map(nfc, classes or ()))
    has = has_columns or (lambda name: False)
    folder = _tree(names, suffixes)
    apart = _annotations(folder, known, 0)
    warnings: list[str] = []
    while True:
        found = _arrays(folder) or _table(folder, known, has)
        if found is not None:
            return Layout(
                found.kind, found.table, found.pairs, warnings=(*warnings, *found.warnings), suffixes=suffixes
            )
        inner = _only(folder, known, has)
        if inner is None:
            break
        warnings = [f"the source begins in the folder {inner.path!r}, the only one that holds data"]
        folder = inner
    roots, found_classes = _classes(folder, known, 0, nested)
    split = [root for root in roots if root != folder.path]
    warnings += _split_warning(folder, split, found_classes, known)
    warnings += _beside(folder, has, split, len(found_classes) < 2 and not known.intersection(found_classes), broken)
    return Layout(
        "folders",
        roots=tuple(shown(r) for r in roots if r),
        split=_is_split(folder, split),
        apart=tuple(apart),
        warnings=tuple(warnings),
        suffixes=suffixes,
    )


def _tree(names: Iterable[str], suffixes: Suffixes) -> _Folder:
    root = _Folder()
    for name in names:
        *parents, last = name.split("/")
        above = [root]
        for depth, parent in enumerate(parents[:DEEPEST], 1):
            inner = above[-1].folders.setdefault(nfc(parent), _Folder("/".join(parents[:depth])))
            above.append(inner)
        lower = last.lower()
        if lower.endswith((".npy", ".npz")):
            above[-1].arrays.append(name)
        elif lower.endswith(TABLES):
            above[-1].tables.append(name)
        elif not is_litter(name, suffixes):
            above[-1].examples += 1
            for each in above:
                each.full = True
    return root


def _annotations(folder: _Folder, known: frozenset[str], depth: int) -> list[str]:
    """The folders that hold annotations or masks of the examples beside them: no class, whatever files they hold."""
    found = []
    beside = any(name.lower() in FILES and inner.full for name, inner in folder.folders.items())
    for name, inner in folder.folders.items():
        if beside and name.lower() in ANNOTATIONS and name not in known:
            found.append(inner.path)
            inner.full = False
        elif depth < DEEPEST:
            found += _annotations(inner, known, depth + 1)
    return found


# --- arrays ------------------------------------------------------------------------------------------


def pair_up(names: Iterable[str]) -> list[tuple[str, str]]:
    """(data, labels) of names such as X_train and y_train, by what is left without the words for data and labels.

    A suffix and folders do not count. Of two that could be the same side of a pair neither is taken.
    """
    left = sorted(names)
    pairs: list[tuple[str, str]] = []
    for side in (_last_word, _every_word):
        sides: dict[str, tuple[list[str], list[str]]] = {}
        for name in left:
            stem = re.sub(r"\.np[yz]$", "", name.rpartition("/")[2], flags=re.IGNORECASE)
            words = [word for word in _WORDS.split(_CASES.sub("_", stem).lower()) if word]
            at, key = side(words)
            if at is not None:
                sides.setdefault(key, ([], []))[at].append(name)
        pairs += [(data[0], labels[0]) for data, labels in sides.values() if len(data) == len(labels) == 1]
        left = [name for name in left if not any(name in pair for pair in pairs)]
    return pairs


def _last_word(words: list[str]) -> tuple[int | None, str]:
    """(0 for data, 1 for labels, what is left): train_data with train_labels, x_data with x_labels."""
    at = next((n for n in reversed(range(len(words))) if words[n] in DATA | LABELS), None)
    return (None, "") if at is None else (int(words[at] in LABELS), "_".join(words[:at] + words[at + 1 :]))


def _every_word(words: list[str]) -> tuple[int | None, str]:
    """The same for x_data with y_data, x_train_images with y_train_labels: x and y decide where they stand."""
    said = [word for word in words if word in DATA | LABELS]
    first = next((word for word in said if word in "xy"), said[0] if said else None)
    return (None if first is None else int(first in LABELS)), "_".join(w for w in words if w not in DATA | LABELS)


def _arrays(folder: _Folder) -> Layout | None:
    """The arrays of this folder, if it is a batch of arrays."""
    single = [name for name in folder.arrays if name.lower().endswith(".npy")]
    if folder.full:  # arrays beside files are an extract of them, unless their names say that they are a batch
        single = [name for name in single if re.search(r"_(data|labels)\.npy$", name, re.IGNORECASE)]
    pairs = pair_up(single)
    if not folder.full:
        pairs += [(name, name) for name in sorted(folder.arrays) if name.lower().endswith(".npz")]
    if not pairs:
        return None
    warnings: tuple[str, ...] = ()
    if len(pairs) > 1:
        listed = "; ".join(data if data == labels else f"{data} with {labels}" for data, labels in pairs)
        warnings = (f"{len(pairs)} pairs of arrays are merged into one dataset: {listed}",)
    return Layout("npy", pairs=tuple(pairs), warnings=warnings)


# --- tables ------------------------------------------------------------------------------------------


def _table(folder: _Folder, known: frozenset[str], has: Callable[[str], bool]) -> Layout | None:
    """The table of this folder, if it is a batch that a table names."""
    if len(folder.tables) == 1 and not folder.folders and not folder.path:
        return Layout("table", table=folder.tables[0])
    inner = folder.classes()
    if known.intersection(inner) or not folder.tables:
        return None
    nested = [name for name in inner if folder.folders[name].classes()]
    if len(inner) > 1 and (nested or not all(_says_split(name) for name in inner)):
        return None  # a folder per class, beside a table
    good = [name for name in folder.tables if has(name)]
    if len(good) > 1:  # a sample of what to hand in names files and labels too
        good = [name for name in good if "submission" not in name.lower()]
    return Layout("table", table=good[0]) if len(good) == 1 else None


def _beside(
    folder: _Folder,
    has: Callable[[str], bool],
    splits: list[str],
    unlabelled: bool,
    broken: Callable[[str], str | None],
) -> list[str]:
    """What is told of arrays and tables that did not make the layout. unlabelled: the folders name no classes."""
    told = []
    if none := sorted(name for name, inner in folder.folders.items() if not inner.full):
        told.append(f"without an example, and so not a class: {', '.join(none[:5])}{', ...' if len(none) > 5 else ''}")
    if folder.arrays and not folder.full:
        told.append(f"no pair of arrays: looked for {LOOKED_FOR}; here are {', '.join(sorted(folder.arrays)[:5])}")
    tables = [name for name in folder.tables if has(name)]
    tables += [t for root in splits for t in _at(folder, root).tables if has(t)]
    listed = ", ".join(sorted(tables or folder.tables)[:5])
    damaged = {name: why for name in sorted(folder.tables)[:5] if name not in tables and (why := broken(name))}
    told += [f"{name} cannot be read as a table: {why}" for name, why in damaged.items()]
    if tables and folder.full:
        told.append(f"read as a folder per class, not by {listed}: to ingest what a table names, pass the table itself")
    elif folder.tables and not folder.full:
        told.append(f"{len(folder.tables)} tables in one folder: pass one of them at a time ({listed})")
    elif len(folder.tables) > len(damaged) and (folder.examples or unlabelled):
        told.append(
            f"{listed} names no labels: looked for a column of paths ({', '.join(PATHS)}) or texts, and one of labels "
            f"({', '.join(LABEL_COLUMNS)}); --path-column, --text-column and --label-column name others"
        )
    return told


def _at(folder: _Folder, path: str) -> _Folder:
    for part in path.removeprefix(folder.path).strip("/").split("/"):
        folder = folder.folders.get(nfc(part), folder)
    return folder


# --- folders -----------------------------------------------------------------------------------------


def _only(folder: _Folder, known: frozenset[str], has: Callable[[str], bool]) -> _Folder | None:
    """The folder that wraps all of the data, if this one holds nothing else and it is no class."""
    inner = [each for each in folder.folders.values() if each.full or each.arrays or each.tables]
    if folder.examples or len(inner) != 1:
        return None
    found = inner[0]
    name = nfc(found.path.rpartition("/")[2])
    if name in known:
        return None
    if not found.full or (found.tables and _table(found, known, has) is not None):
        return found
    if name.lower() in SPLITS:
        return None
    return found if found.classes() and (len(found.classes()) > 1 or not found.examples) else None


def _classes(folder: _Folder, known: frozenset[str], depth: int, nested: bool) -> tuple[list[str], set[str]]:
    """(roots, classes): the folders whose sub-folders are classes, this one or those of a split below it."""
    names = folder.classes()
    here = [folder.path], set(names)
    if not names or known.intersection(names) or depth > DEEPEST:
        return here
    below = {n: _classes(folder.folders[n], known, depth + 1, nested) for n in names if folder.folders[n].classes()}
    if len(names) == 1 and names[0] in below and not folder.examples and names[0].lower() not in SPLITS:
        single = folder.folders[names[0]]  # a folder that wraps the classes of one split
        if depth and (len(single.classes()) > 1 or not single.examples):
            return below[names[0]]
        return here
    if all(name.lower() in SPLITS for name in names):
        chosen = names
    else:
        said = [name for name in below if _says_split(name)]
        tried = (said,) if nested else (said, list(below))
        chosen = next((each for each in tried if _alike(each, below, len(each) == len(said))), [])
    if not chosen:
        return here
    found = [below.get(name, ([folder.folders[name].path], set())) for name in chosen]
    return [root for roots, _ in found for root in roots], set().union(*(classes for _, classes in found))


def _alike(names: list[str], below: dict[str, tuple[list[str], set[str]]], said: bool) -> bool:
    """Whether two or more folders hold the same classes: two of them, or one where the names say that it is a split."""
    if len(names) < 2:
        return False
    shared = set.intersection(*(below[name][1] for name in names))
    return len(shared) >= (1 if said else 2)


def _says_split(name: str) -> bool:
    """Whether a folder's name speaks of a split: train, Test_images, seg_train."""
    return any(word.rstrip("0123456789") in SPLITS for word in _WORDS.split(name.lower()))


def _is_split(folder: _Folder, roots: list[str]) -> bool:
    inside = [root.removeprefix(folder.path).strip("/").partition("/")[0] for root in roots]
    return len(roots) > 1 or any(name.lower() in SPLITS for name in inside)


def _split_warning(folder: _Folder, roots: list[str], classes: Collection[str], known: frozenset[str]) -> list[str]:
    """What is told of splits. The user may have meant the outer folders."""
    if not roots:
        odd = [] if known else sorted(name for name in classes if name.lower() in SPLITS)
        way = "if it is not a class, name the others under `classes` in the YAML"
        return [f"{name} is read as a class, because folders beside it are not split folders; {way}" for name in odd]
    listed = ", ".join(sorted(roots)[:5]) + (", ..." if len(roots) > 5 else "")
    if not classes:
        way = "If they are the classes, name them under `classes` in the YAML"
        return [f"{listed}: split folders without class folders in them; their files have no label. {way}"]
    shared = ", ".join(sorted(classes)[:5]) + (", ..." if len(classes) > 5 else "")
    told = (
        f"{listed}: read as split folders with the classes {shared} and merged into one dataset; leptonflow makes "
        f"its own holdout, and keeps an example's split folder in its metadata `split`"
    )
    if not all(_says_split(part) for root in roots for part in root.rsplit("/", 1)[-1:]):
        told += ". If the outer folders are the classes, name them under `classes` in the YAML"
    lost = set(folder.classes()) - {r.removeprefix(folder.path).strip("/").partition("/")[0] for r in roots}
    lost.update(root for root in roots if not _at(folder, root).classes())
    if lost:
        told += f". The files in {', '.join(sorted(lost)[:5])} have no label: to go without them, pass another folder"
    return [told]

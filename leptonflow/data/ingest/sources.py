"""A source that nobody has landed yet: what lies there, and its layout. `init` and `ingest` take the same decision.

Files are found, not measured (source_rows) and not judged (examination).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from leptonflow.data.ingest import label_tables, layouts, source_layout
from leptonflow.data.ingest.folder_walk import Found, Refusal, Walk, read_file, walk
from leptonflow.data.ingest.label_columns import DEFAULT, Columns
from leptonflow.data.ingest.layouts import ANY, Layout
from leptonflow.workloads.base import Suffixes
from schemas.errors import UsageError
from schemas.text import counted

KINDS = "a folder with a folder per class, .npy or .npz arrays, or a .csv, .tsv, .jsonl or .parquet table"


@dataclass(frozen=True)
class Source:
    """A source with its layout.

    root     the real folder that names are relative to; given: the same as the user wrote it, made absolute
    files    what may be read, without what is ignored; none of a table that was named itself: then its rows decide
    refused  what may not be read, by its name
    litter   the names of files that are no examples by their names, and that no layout needs
    hidden   how many files are hidden, or left behind by systems and tools
    columns  the table's columns, where a person gave them
    """

    root: str
    given: str
    layout: Layout
    files: tuple[Found, ...] = ()
    refused: tuple[tuple[str, Refusal], ...] = ()
    litter: tuple[str, ...] = ()
    hidden: int = 0
    warnings: tuple[str, ...] = ()
    columns: Columns = DEFAULT

    @property
    def ignored(self) -> int:
        """How many files are not counted among those that arrive."""
        return self.hidden + len(self.litter)


def open_source(
    path: Path,
    classes: Collection[str] | None = None,
    columns: Columns = DEFAULT,
    root: Path | None = None,
    suffixes: Suffixes = ANY,
) -> Source:
    """What lies at a path.

    classes  the pipeline's, where it has some
    root     the folder that a table's paths are relative to; default: the table's own

    Raises UsageError where there is nothing that can be ingested.
    """
    if root is not None and not os.path.isdir(root):
        raise UsageError(
            "--root is not a folder", expected="the folder that the table's paths are in", received=str(root)
        )
    if os.path.isdir(path):
        found = _folder(path, classes, columns, suffixes)
        if found.layout.kind == "table" and root is not None:
            return _moved(found, found.root, root)
        if found.layout.kind != "table" and (root or columns.path or (columns.label and columns.cells is None)):
            raise UsageError(
                "there is no table to apply --root, --path-column or --label-column to",
                expected="a table, or a folder whose data a table names",
                received=f"{path}, which is read as {_WORDS[found.layout.kind]}",
            )
        return found
    suffix = path.suffix.lower()
    if os.path.isfile(path):
        if suffix in layouts.TABLES:
            folder = os.path.realpath(path.parent)
            shape = Layout("table", table=path.name, suffixes=suffixes)
            found = Source(folder, os.path.abspath(path.parent), shape, columns=columns)
            return found if root is None else _moved(found, folder, root)
        if suffix in (".npy", ".npz"):
            return _array(path)
    raise UsageError(
        "this source cannot be ingested",
        expected=KINDS,
        received=f"{path} ({'another kind of file' if os.path.lexists(path) else 'there is nothing'})",
        hint=_way(path.name) if os.path.lexists(path) else "Check the path",
    )


def _way(name: str) -> str:
    """What to do with a file that is no source."""
    return next((way for suffixes, way in _WAYS.items() if name.lower().endswith(suffixes)), "Check the path")


_WAYS = {
    (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"): "Unpack it, and pass what was in it",
    (".xlsx", ".xlsm", ".xls", ".ods"): "Save the sheet as CSV in UTF-8",
    (".json",): "Write one object a line, as .jsonl",
}
_WORDS = {"folders": "a folder per class", "npy": "arrays"}


def _moved(found: Source, folder: str, root: Path) -> Source:
    """A table whose paths are relative to another folder than its own."""
    table = os.path.join(folder, found.layout.table or "")
    shape = Layout("table", table=table, suffixes=found.layout.suffixes)
    return replace(found, root=os.path.realpath(root), given=os.path.abspath(root), layout=shape, files=())


def _array(path: Path) -> Source:
    """One pair of arrays of a folder, by one of its files."""
    root, name = os.path.realpath(path.parent), path.name
    if name.lower().endswith(".npz"):
        pairs = [(name, name)]
    else:
        there = [each for each in os.listdir(root) if each.lower().endswith(".npy")]
        pairs = [pair for pair in source_layout.pair_up(there) if name in pair]
    if not pairs:
        raise UsageError(
            "this array has no second array beside it to make a pair", expected=source_layout.LOOKED_FOR, received=name
        )
    files = tuple(Found(each, os.path.join(root, each)) for each in dict.fromkeys(pairs[0]))
    return Source(root, os.path.abspath(path.parent), Layout("npy", pairs=tuple(pairs)), files)


def _folder(path: Path, classes: Collection[str] | None, columns: Columns, suffixes: Suffixes) -> Source:
    try:
        found = walk(str(path))
    except OSError as error:
        raise UsageError(f"the source {path} cannot be read", received=error.strerror or str(error)) from None
    if not found.files and not found.refused:
        raise UsageError(
            "the source is empty",
            expected=KINDS,
            received=f"{path} with {counted(found.ignored, 'hidden file')}" if found.ignored else f"{path}, empty",
        )
    places = {file.name: file.real for file in found.files}
    shape = source_layout.layout(
        places,
        classes,
        lambda name: _has_columns(name, places[name], columns),
        lambda name: _broken(places[name]),
        suffixes,
        columns.nested,
    )
    source = _of(found, os.path.abspath(path), shape, columns)
    if not source.files and not source.refused:
        raise UsageError(
            "the source holds no examples",
            expected=KINDS,
            received=f"{path} with {counted(len(source.litter), 'file')}, such as {layouts.shown(source.litter[0])!r}",
            hint=". ".join(w[0].upper() + w[1:] for w in shape.warnings) or _way(source.litter[0]),
        )
    return source


def _of(found: Walk, given: str, shape: Layout, columns: Columns) -> Source:
    """What a walk found, by that layout."""
    files, litter = tuple(found.files), list[str]()
    warnings = list(shape.warnings)
    if shape.kind == "folders":
        litter = [file.name for file in files if shape.ignores(file.name)]
        files = tuple(file for file in files if not shape.ignores(file.name))
        warnings += found.warnings()
    elif shape.kind == "npy":
        litter = layouts.beside(shape, [file.name for file in files])
        left = set(litter)
        files = tuple(file for file in files if file.name not in left)
    if litter:
        warnings.append((layouts.litter_warning if shape.kind == "folders" else layouts.beside_warning)(litter))
    refused = tuple(found.refused.items()) if shape.kind == "folders" else ()
    return Source(found.root, given, shape, files, refused, tuple(litter), found.ignored, tuple(warnings), columns)


def _has_columns(name: str, real: str, columns: Columns) -> bool:
    data = read_file(real)
    return isinstance(data, bytes) and label_tables.has_columns(name, data, columns)


def _broken(real: str) -> str | None:
    data = read_file(real)
    return label_tables.broken(real, data) if isinstance(data, bytes) else data.reason

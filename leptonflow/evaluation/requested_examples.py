"""What a person wants predictions of: files, folders, tables that hold the examples, examples as they were typed.

Each becomes the name that is shown of it and a way to read it. What is predicted of it does not belong here
(champion_predictions).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from leptonflow.core import files
from leptonflow.data.ingest import folder_walk, label_columns, label_tables, layouts
from leptonflow.data.ingest.label_columns import Columns
from leptonflow.workloads.base import Examined, Suffixes, Workload

Look = Callable[[Workload, Any], Examined]
Requested = tuple[str, Look | str]  # the name that is shown, and how the example is read, or why it is not


def requested(given: Sequence[str | Path], workload: Workload, own: Any, paths_first: bool = True) -> list[Requested]:
    """Every example of what was given, in that order; of a folder all that lies in it, by name; of a table its rows.

    own          the section `input` of the model
    paths_first  a str that is the path of something is that; else only a Path is

    A str that is no path is an example that was typed, if the workload has such and it does not look like a file's
    name.
    """
    found: list[Requested] = []
    for each in given:
        if isinstance(each, str) and workload.typed is not None and not (paths_first and os.path.lexists(each)):
            found.append(_typed(each, workload))
        elif each == "":  # as a path it would be the current folder
            found.append((each, "it is empty"))
        else:
            found += _of_path(Path(each), workload, own)
    return found


def _typed(text: str, workload: Workload) -> Requested:
    if _like_a_file(text, workload.suffixes):
        return text, "it looks like a file's path, and no such file is there"

    def look(workload: Workload, own: Any) -> Examined:
        assert workload.typed is not None
        return workload.typed(text, own)

    return text, look


def _like_a_file(text: str, suffixes: Suffixes) -> bool:
    whole = text.isascii() and not any(c.isspace() for c in text)
    return whole and ("/" in text or text.lower().endswith((*suffixes.held, *layouts.TABLES)))


def _of_path(path: Path, workload: Workload, own: Any) -> Iterator[Requested]:
    if path.is_dir():
        yield from _folder(path, workload.suffixes)
    elif workload.cells is not None and path.name.lower().endswith(layouts.TABLES):
        yield from _table(path, workload.cells(own))
    else:
        yield str(path), partial(_file, path)


def _file(path: Path, workload: Workload, own: Any) -> Examined:
    return workload.examine(files.read(path, files.EXAMPLES), own)


def _folder(path: Path, suffixes: Suffixes) -> Iterator[Requested]:
    """Hidden files and litter apart."""
    try:
        found = folder_walk.walk(str(path))
    except OSError as error:
        yield str(path), f"cannot be read: {error.strerror or error}"
        return
    inside: dict[str, Look | str] = {
        each.name: partial(_file, Path(each.real)) for each in found.files if not layouts.is_litter(each.name, suffixes)
    }
    inside |= {name: f"{each.rule}: {each.reason}" for name, each in found.refused.items()}
    if not inside:
        yield str(path), "the folder holds no example"
    for name, look in sorted(inside.items(), key=lambda item: item[0]):
        yield str(path / name), look


def _table(path: Path, cells: tuple[str, ...]) -> Iterator[Requested]:
    """The rows of a table that holds the examples, with labels or without. cells: the columns, none: those found."""
    try:
        data = files.read(path, files.EXAMPLES)
    except OSError as error:
        yield str(path), f"cannot be read: {error.strerror or error}"
        return
    found = label_tables.read(path.name, data, Columns(cells=cells))
    if found.missing:
        at = label_columns.find_texts(found.header, Columns(cells=cells))[0]
        if at is None:
            wanted, there = ", ".join(cells or label_columns.TEXTS), ", ".join(map(repr, found.header))
            yield str(path), f"{found.missing[0]}: no column of texts ({wanted}); the columns are {there}"
            return
        # Nobody asks for labels here, so any column stands for them.
        found = label_tables.read(path.name, data, Columns(label=found.header[at[0]], cells=cells))
    if found.broken:
        yield str(path), f"{found.broken[0]}: {found.broken[1]}"
        return
    for number, cell in enumerate(found.cells or ()):
        rule = found.ragged.get(number, ("missing-text", "the row holds no example"))
        look = f"{rule[0]}: {rule[1]}" if cell is None else partial(_cell, cell)
        yield f"{path}[{number}]", look


def _cell(data: bytes, workload: Workload, own: Any) -> Examined:
    return workload.examine(data, own)

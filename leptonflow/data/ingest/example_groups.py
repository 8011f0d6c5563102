"""The group of an example that arrives: from a cell of its table, its name, or the folder that it lies in.

Pure. What a group does to the split belongs to `data.dataset`; what the YAML may say, to `schemas.groups`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from leptonflow.data.ingest import layouts
from schemas.errors import ConfigurationError
from schemas.groups import LABEL, Group, fields
from schemas.text import counted, nfc, noun


class Grouped(NamedTuple):
    """The group of an example, or why it has none."""

    group: str | None = None
    why: str | None = None


class Moved(NamedTuple):
    """A known example that came again under another group."""

    source: str
    group: str
    again: str


def of_name(group: Group, name: str, label: str | None, roots: Collection[str] | None) -> Grouped:
    """By its name, relative to the source. roots: of a folder per class; None: a table names the file."""
    if group.column is not None:
        return Grouped(None, f"{group.column!r} is a column, and there is no table")
    if group.pattern is not None:
        return _of_pattern(group, name, label)
    folders = name.split("/")[:-1]
    if not folders:
        return Grouped(None, "it lies in no folder")
    if roots is not None and folders[-1] == layouts.class_folder(name, roots) and _is_class(folders, roots):
        return Grouped(None, f"it lies in the folder of its class, {folders[-1]!r}, and in none below it")
    return Grouped(nfc(folders[-1]))


def of_row(
    group: Group, cells: Sequence[str | None] | None, number: int, name: str | None, label: str | None
) -> Grouped:
    """Of a row of a table or of arrays. cells: those of the groups' column; name: of the file that the row names."""
    if group.column is not None and cells is not None:
        found = cells[number]
        return Grouped(found) if found else Grouped(None, f"its cell in the column {group.column!r} is empty")
    if name is not None:
        return of_name(group, name, label, None)
    return Grouped(None, f"it is a row without a {'column' if group.column else 'file'} to tell it by")


def check(group: Group | None, layout: str, inside: bool) -> None:
    """Raise ConfigurationError where no source of this layout has such groups. inside: a table holds the examples."""
    if group is None:
        return
    if layout == "npy":
        raise _impossible(group, "a row of arrays has no name and no column", "Remove group for a pipeline of arrays")
    if layout == "folders" and group.column is not None:
        raise _impossible(group, "the source is a folder per class, and no table", "Use a pattern or {folder: parent}")
    if layout == "table" and inside and group.column is None:
        raise _impossible(group, "the table holds the texts itself, so no row has a file", "Use {column: NAME}")


def check_names(group: Group | None, names: Iterable[tuple[str, str | None]], roots: Collection[str] | None) -> None:
    """Raise ConfigurationError where of some files, their names and labels given, not a single one has a group."""
    if group is None or group.column is not None:
        return
    why = None
    for name, label in names:
        found = of_name(group, name, label, roots)
        if found.group is not None:
            return
        why = why or f"no file of the source has one; of {name}: {found.why}"
    if why is not None:
        way = "Put the files into folders below their class, or use a pattern" if group.folder else "Fix the pattern"
        raise _impossible(group, why, way)


def _impossible(group: Group, why: str, way: str) -> ConfigurationError:
    shown = ", ".join(f"{key}: {value}" for key, value in group.model_dump(mode="json").items())
    return ConfigurationError(
        f"the YAML's group {{{shown}}} cannot be found in this source", expected="a source that tells the groups",
        received=why, hint=way,
    )  # fmt: skip


def moved(source: str, group: str | None, found: Grouped) -> list[Moved]:
    """The known example of that group, if it was found under another one."""
    differs = group is not None and found.group is not None and found.group != group
    return [Moved(source, str(group), str(found.group))] if differs else []


def warnings(moved: Sequence[Moved]) -> list[str]:
    """The sentence about examples that came again under another group; none where there is no such example."""
    if not moved:
        return []
    first = moved[0]
    keep = noun(len(moved), "keeps its", "keep their")
    told = f"{counted(len(moved), 'example')} of the dataset came again under another group and {keep} first one"
    return [f"{told}, such as {first.source}: {first.group!r}, now {first.again!r}"]


def _is_class(folders: list[str], roots: Collection[str]) -> bool:
    """Whether the last folder is the one that a class is read from."""
    above = "/".join(folders[:-1])
    return above in roots if roots else not above


def _of_pattern(group: Group, name: str, label: str | None) -> Grouped:
    pattern, field = str(group.pattern), group.name
    parts = nfc(name).split("/")
    tail = "/".join(parts[-pattern.count("/") - 1 :])
    for own in (label, None) if label else (None,):
        matches = [found for each in _expressions(pattern, own) if (found := each.fullmatch(tail))]
        values = sorted({found[field].strip() for found in matches})
        if len(values) > 1:
            return Grouped(None, f"{tail!r} fits {pattern} in two ways: {field} is {values[0]!r} or {values[1]!r}")
        if values and values[0]:
            return Grouped(values[0])
    return Grouped(None, f"{tail!r} does not fit {pattern}")


@lru_cache(maxsize=1024)
def _expressions(pattern: str, label: str | None) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The pattern with as much in the first fields as fits, and with as little. `label`: what {label} stands for."""
    found = []
    for some in ("[^/]+", "[^/]+?"):
        whole = ""
        for text, field in fields(pattern):
            whole += re.escape(text)
            if field == LABEL and label is not None:
                whole += re.escape(label)
            elif field is not None:
                whole += f"(?P<{field}>{some})"
        found.append(re.compile(whole, re.DOTALL))
    return found[0], found[1]

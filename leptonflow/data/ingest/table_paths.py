"""Where the paths of a table lead among the files that lie there: beside it, in sub-folders, without an extension.

No file is opened here.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property

from leptonflow.data.ingest.folder_walk import Refusal, resolve, walk
from leptonflow.data.ingest.label_columns import Rule
from leptonflow.data.ingest.label_tables import name_of
from leptonflow.data.ingest.sources import Source
from leptonflow.workloads.base import Suffixes

MISSING = "missing-file"
NOWHERE = (MISSING, "there is no such file")


class Names:
    """The names that lie below the table's folder, relative to the batch. `table` is the table's own name."""

    def __init__(self, names: Iterable[str], table: str, suffixes: Suffixes) -> None:
        self._suffixes = suffixes.held
        self._folder, last = posixpath.split(table)
        self._stem = posixpath.splitext(last)[0].lower()
        self._names = {_normal(name): name for name in sorted(names)}
        self._by_last: dict[str, list[str]] = {}
        inside = f"{self._folder}/" if self._folder else ""
        for name in self._names:
            if name.startswith(inside):
                for last in {posixpath.basename(name), self._without(posixpath.basename(name))}:
                    self._by_last.setdefault(last, []).append(name)

    def find(self, path: str | None) -> tuple[str | None, Rule | None]:
        """The one name that a path means, or the rule why there is none."""
        meant, rule = name_of(path)
        if meant is None:
            return None, rule
        meant = _normal(meant)
        name = posixpath.join(self._folder, meant)
        if name in self._names:
            return self._names[name], None
        found = [each for each in self._by_last.get(posixpath.basename(meant), ()) if self._ends(each, meant)]
        if len(found) > 1:  # train.csv beside train/ and test/, where both have a 1.png
            found = [each for each in found if self._beside(each)] or found
        if len(found) == 1:
            return self._names[found[0]], None
        if found:
            some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            return None, ("ambiguous-file", f"{path!r} could be each of {some}; write the path from the table's folder")
        if "\\" in meant:
            slashed = meant.replace("\\", "/").removeprefix("./")
            return None, (MISSING, f"'{path}' is written with a backslash; paths are written with /, as in {slashed!r}")
        return None, (MISSING, f"{path!r} is not beside the table nor in a sub-folder, with or without an extension")

    def spelt(self, path: str) -> str | None:
        """The name that a path with backslashes stands for, if it lies there."""
        return self.find(path.replace("\\", "/"))[0] if "\\" in path else None

    def _without(self, name: str) -> str:
        """The name without an example's suffix."""
        stem, suffix = posixpath.splitext(name)
        return stem if suffix.lower() in self._suffixes else name

    def _ends(self, name: str, path: str) -> bool:
        """Whether `name` is the path itself in some folder, with or without an example's suffix."""
        return any(each == path or each.endswith(f"/{path}") for each in (name, self._without(name)))

    def _beside(self, name: str) -> bool:
        return any(part.lower().startswith(self._stem) for part in name.split("/")[:-1])


def _normal(name: str) -> str:
    """One spelling of a name: some systems decompose its accents, and tables do not."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def real(source: Source) -> str | Refusal:
    """The file of a source's table: below its folder, or where the user said (`--root` is another folder)."""
    table = source.layout.table or ""
    return os.path.realpath(table) if os.path.isabs(table) else resolve(source.root, table)


class Paths:
    """The paths of a table's rows, looked up in its source.

    rows    (name relative to the source, None) or (None, the rule) of each row
    places  what each of the names leads to
    spelt   names that a path with backslashes stands for
    """

    def __init__(self, source: Source, paths: Sequence[str | None]) -> None:
        self._source = source
        self.places: dict[str, str | Refusal] = {}
        self.spelt: set[str] = set()
        self.rows = [self.find(path) for path in paths]

    @cached_property
    def _names(self) -> Names:
        """Asked for where a path does not lead to a file as it stands."""
        files = self._source.files or walk(self._source.root).files
        return Names((file.name for file in files), self._table, self._source.layout.suffixes)

    @property
    def _table(self) -> str:
        table = self._source.layout.table or ""
        return "" if os.path.isabs(table) else table

    def find(self, path: str | None) -> tuple[str | None, Rule | None]:
        """(name relative to the source, which is then one of `places`; None), or (None, the rule)."""
        path = self._relative(path)
        name, rule = name_of(path)
        if name is None or path is None:
            return None, rule
        name = posixpath.join(posixpath.dirname(self._table), name)
        place = self.places.get(name) or resolve(self._source.root, name)
        if isinstance(place, Refusal) and place.rule == MISSING:
            other, rule = self._names.find(path)
            if other is None:
                spelt = self._names.spelt(path)
                self.spelt.update([spelt] if spelt else [])
                return None, rule
            name, place = other, resolve(self._source.root, other)
        self.places[name] = place
        return name, None

    def _relative(self, path: str | None) -> str | None:
        """An absolute path below the table's folder as one relative to it."""
        if path is not None and path.startswith("/"):
            for root in (self._source.root, self._source.given):
                folder = posixpath.join(root, posixpath.dirname(self._table)).rstrip("/") + "/"
                if path.startswith(folder):
                    return path[len(folder) :]
        return path

"""The columns of a table of examples and labels: which are meant, and its rows as read from any format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from leptonflow.workloads.base import Workload
from schemas.errors import UsageError
from schemas.groups import Group
from schemas.text import nfc

PATHS: tuple[str, ...] = (
    "path", "file", "filename", "file_name", "image", "image_path", "filepath", "file_path", "image_name", "image_id",
    "img", "img_path", "id", "id_code",
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "text", "sentence", "content", "review", "body", "document", "comment", "message", "tweet", "utterance", "question",
    "description", "headline", "title", "phrase", "query",
)  # fmt: skip
LABELS: tuple[str, ...] = (
    "label", "class", "category", "target", "labels", "class_name", "label_name", "category_name", "sentiment",
    "intent", "topic",
)  # fmt: skip

Rule = tuple[str, str]  # rule, reason


class Columns(NamedTuple):
    """The names of the two columns, where a person gave them, and of the one that holds each example's group.

    cells  the columns that hold the example itself, joined by a blank line (none named: the first of TEXTS that is
           there); None where rows name files
    nested  not of a table: the folders below a class are groups, and may be the same in several classes
    """

    path: str | None = None
    label: str | None = None
    cells: tuple[str, ...] | None = None
    group: str | None = None
    nested: bool = False

    def grouped(self, group: Group | None) -> Columns:
        """The same with what the YAML's group says of a source."""
        return self if group is None else self._replace(group=group.column, nested=group.folder is not None)

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that were given by their names."""
        return tuple(filter(None, (self.path, self.label, *(self.cells or ()), self.group)))


@dataclass(frozen=True)
class LabelTable:
    """N rows. `broken`: the rule of a table that cannot be parsed, which then has no rows.

    paths, labels  None where the cell is empty
    header         the names of all columns
    missing        the rule of every row of a table without one of its two columns
    ragged         the rule of a row with more or fewer cells than the header, by its number
    cells          the examples' bytes where they lie in the table itself
    written        the different labels, as they are written, without spaces around them
    groups         the cells of the column that holds the groups, None where it is empty
    """

    paths: list[str | None]
    labels: list[str | None]
    header: tuple[str, ...] = ()
    broken: Rule | None = None
    missing: Rule | None = None
    ragged: Mapping[int, Rule] = field(default_factory=dict)
    cells: list[bytes | None] | None = None
    written: frozenset[str] = frozenset()
    groups: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def grouped(self, cells: Iterable[Any]) -> LabelTable:
        """The same with each row's group."""
        return replace(self, groups=[_group(cell) for cell in cells])


DEFAULT = Columns()


def of_pipeline(workload: Workload, own: Any, given: Columns = DEFAULT) -> Columns:
    """The columns that a person named, and for the others what the section `input` says."""
    cells = given.cells if given.cells is not None or workload.cells is None else workload.cells(own)
    return given._replace(cells=cells, label=given.label or workload.label(own))


def label(value: Any) -> str | None:
    """A label as it is written, as NFC and without spaces around it; None for nothing."""
    return nfc((as_text(value) or "").strip()) or None


def _group(value: Any) -> str | None:
    """A group as text. 3.0 is 3: a column of numbers is one of floats as soon as one of its cells is empty."""
    found = label(value)
    return found and re.sub(r"(?a)^(-?\d+)\.0+$", r"\1", found)


def written_labels(values: Iterable[Any]) -> frozenset[str]:
    """The different labels, as they are written, without spaces around them."""
    return frozenset(filter(None, ((as_text(value) or "").strip() for value in values)))


def as_text(value: Any) -> str | None:
    """A cell as text, None where it is empty or not a number."""
    if value is None or value != value:
        return None
    return (value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)) or None


def of_cells(
    header: Sequence[str], paths: Iterable[Any], labels: Iterable[Any], ragged: Mapping[int, Rule] | None = None
) -> LabelTable:
    values = list(labels)
    names, found = [as_text(path) for path in paths], [label(value) for value in values]
    return LabelTable(names, found, tuple(header), ragged=ragged or {}, written=written_labels(values))


def find_columns(header: Sequence[str], columns: Columns) -> tuple[int | None, int | None]:
    """Where the two columns stand."""
    lower = [h.strip().lower() for h in header]

    def one(given: str | None, names: Sequence[str]) -> int | None:
        if given is not None:
            return header.index(given) if given in header else None
        return next((lower.index(name) for name in names if name in lower), None)

    return one(columns.path, PATHS), one(columns.label, LABELS)


def find_texts(header: Sequence[str], columns: Columns) -> tuple[list[int] | None, int | None]:
    """Where the columns that hold the example stand, and the label."""
    _, label_at = find_columns(header, columns)
    if columns.cells:
        at = [header.index(name) for name in columns.cells if name in header]
        return (at if len(at) == len(columns.cells) else None), label_at
    lower = [h.strip().lower() for h in header]
    return next(([lower.index(name)] for name in TEXTS if name in lower), None), label_at


def find_examples(header: Sequence[str], columns: Columns) -> tuple[list[int] | None, int | None]:
    """Where the columns stand that hold the example, or the one that names its file; and the label."""
    if columns.cells is not None:
        return find_texts(header, columns)
    path, label_at = find_columns(header, columns)
    return None if path is None else [path], label_at


def of_columns(
    header: Sequence[str],
    columns: Columns,
    count: int,
    column: Callable[[int], Iterable[Any]],
    *,
    broken: Mapping[int, Rule] | None = None,
    as_label: Callable[[Any], Any] = lambda value: value,
) -> LabelTable:
    """A table of `count` rows by its columns: `column` gives one by its place.

    broken: the rule of a row that cannot be read, by its number; as_label: how the cell of a label is written.
    """
    at, label_at = find_examples(header, columns)
    if at is None or label_at is None or lacks_group(header, columns):
        return lacking(header, columns, count)
    labels = map(as_label, column(label_at))
    if columns.cells is None:
        found = of_cells(header, column(at[0]), labels, broken)
    else:
        rows = enumerate(zip(*map(column, at), strict=True))
        found = of_texts(header, (None if number in (broken or ()) else row for number, row in rows), labels, broken)
    group_at = group_column(header, columns)
    return found if group_at is None else found.grouped(column(group_at))


def check_texts(header: Sequence[str], columns: Columns) -> None:
    """Raises UsageError where a column of texts is named twice, or is the column of labels as well."""
    if len(set(columns.cells or ())) < len(columns.cells or ()):
        raise UsageError(
            "a text column is named twice", expected="different columns", received=", ".join(columns.cells or ()),
            hint="Name each once",
        )  # fmt: skip
    at, label_at = find_texts(header, columns)
    if columns.cells is not None and label_at in (at or ()):
        raise UsageError(
            "a column is read as text and as label", expected="a model that never sees the label",
            received=header[label_at or 0], hint="--text-column and --label-column name two different columns",
        )  # fmt: skip


def check_no_texts(header: Sequence[str]) -> None:
    """Raise UsageError where a table that is to name files has a column of texts. For one that names no file."""
    at = find_texts(header, Columns(cells=()))[0]
    if at is not None:
        raise UsageError(
            "the table names no file that is there and seems to hold texts, and this pipeline takes files",
            expected=f"a column of paths ({', '.join(PATHS)})",
            received=f"a column {header[at[0]]!r}; the columns are {', '.join(header)}",
            hint="`leptonflow init NAME --from SOURCE` makes a pipeline of texts; for files, --path-column and --root "
            "say where they are",
        )


def lacks_group(header: Sequence[str], columns: Columns) -> bool:
    """Whether there is to be a column of groups and none is there."""
    return columns.group is not None and columns.group not in map(nfc, header)


def group_column(header: Sequence[str], columns: Columns) -> int | None:
    """Where the column of groups stands; None where there is to be none."""
    return None if columns.group is None else list(map(nfc, header)).index(columns.group)


def doubled(header: Sequence[str], columns: Columns) -> list[str]:
    """A sentence where a column that is read has the name of another one."""
    at, label_at = find_examples(header, columns)
    read = [header[each] for each in (*(at or ()), label_at) if each is not None]
    twice = [name for name in dict.fromkeys((*read, columns.group)) if name and list(header).count(name) > 1]
    return [f"several columns are called {', '.join(map(repr, twice))}: the first is read"] if twice else []


def joined(row: Sequence[Any]) -> bytes:
    """The cells of a row that hold the example, as one."""
    text = "\n\n".join(filter(None, ("" if each is None else str(each).strip() for each in row))) or "\n"
    # JSON can spell half of a surrogate pair: then that row is no UTF-8, and not the table.
    return text.encode("utf-8", "surrogatepass")


def of_texts(
    header: Sequence[str],
    rows: Iterable[Sequence[Any] | None],
    labels: Iterable[Any],
    ragged: Mapping[int, Rule] | None = None,
) -> LabelTable:
    """A table whose rows hold the example: the cells of its columns, as UTF-8, joined by a blank line."""
    texts = [None if row is None else joined(row) for row in rows]
    found = of_cells(header, [None] * len(texts), labels, ragged)
    return replace(found, cells=texts)


def no_rows(table: str) -> UsageError:
    """A table that is empty but for its header."""
    return UsageError("the table has no rows", expected="a row per example", received=table)


def unknown(header: Sequence[str], columns: Columns) -> UsageError:
    """A table that has not one of the columns that were named, or none that is known to hold examples or labels."""
    names = [name for name in columns.named if name not in header]
    if names:
        return UsageError(
            "the table has no such column", expected=", ".join(header), received=", ".join(names),
            hint="--path-column, --text-column, --label-column, and the YAML's `input` and `group`, name columns",
        )  # fmt: skip
    held, label_at = find_examples(header, columns)
    if columns.cells is None and held is None:
        check_no_texts(header)
    if held is not None and label_at is None:
        return UsageError(
            "no column of the table is known to hold labels", expected=", ".join(LABELS), received=", ".join(header),
            hint="--label-column NAME names it",
        )  # fmt: skip
    return UsageError(
        "no column of the table is known to hold examples",
        expected=f"paths ({', '.join(PATHS)}) or texts ({', '.join(TEXTS)})", received=", ".join(header),
        hint="--path-column or --text-column names it",
    )  # fmt: skip


def lacking(header: Sequence[str], columns: Columns, count: int) -> LabelTable:
    """A table without one of its columns: every row has that rule."""
    at, label_at = find_examples(header, columns)
    example = ("a path column", columns.path, PATHS, at)
    if columns.cells is not None:
        example = ("a text column", ", ".join(columns.cells), TEXTS, at)
    wanted = [
        f"{what} ({given or ', '.join(names)})"
        for what, given, names, place in (example, ("a label column", columns.label, LABELS, label_at))
        if place is None
    ]
    if lacks_group(header, columns):
        wanted.append(f"a group column ({columns.group})")
    there = ", ".join(map(repr, header[:20])) or "none"
    option = "--path-column" if columns.cells is None else "--text-column"
    reason = f"{' and '.join(wanted)} is missing; the columns are {there}; {option} and --label-column name others"
    if columns.group is not None:
        reason += ", `group` in the YAML another group column"
    return LabelTable([None] * count, [None] * count, tuple(header), missing=("missing-column", reason))

"""A table of paths and labels, CSV or Parquet: its rows, and the same table with some of its rows.

Reading a table's two columns belongs here; whether a path leads to a file does not (walking).
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leptonflow import parquet

PATHS = ("path", "file", "filename", "file_name", "image", "image_path")
LABELS = ("label", "class", "category", "target")

_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")

Rule = tuple[str, str]  # rule, reason


@dataclass(frozen=True)
class LabelTable:
    """N rows. `broken`: the rule of a table that cannot be parsed, which then has no rows.

    paths, labels  None where the cell is empty
    missing        the rule of every row of a table without one of its two columns
    """

    paths: list[str | None]
    labels: list[str | None]
    broken: Rule | None = None
    missing: Rule | None = None

    def __len__(self) -> int:
        return len(self.paths)


def read(name: str, data: bytes) -> LabelTable:
    """The two columns of the table called `name`, whose suffix says what it is."""
    try:
        header, columns = _read_parquet(data) if _is_parquet(name) else _read_csv(data)
    except (ValueError, OSError, csv.Error) as error:  # pyarrow's errors are ValueErrors and OSErrors
        words = " ".join(str(error).split())[:200] or type(error).__name__
        return LabelTable([], [], broken=("unreadable-table", words))
    found = [_find(header, names) for names in (PATHS, LABELS)]
    count = len(columns[0]) if columns else 0
    if None in found:
        lacking = " and ".join(f"{what} ({', '.join(names)})" for what, names, at in zip(
            ("a path column", "a label column"), (PATHS, LABELS), found, strict=True) if at is None)  # fmt: skip
        reason = f"{lacking} is missing; the columns are {', '.join(map(repr, header[:20])) or 'none'}"
        return LabelTable([None] * count, [None] * count, missing=("missing-column", reason))
    paths, labels = (columns[at] for at in found if at is not None)
    return LabelTable([_text(p) for p in paths], [label(v) for v in labels])


def some_rows(name: str, data: bytes, rows: Sequence[int]) -> bytes:
    """The same table, in the same format and with all its columns, with only these rows, in this order."""
    if _is_parquet(name):
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(parquet.read(data).take(list(rows)), sink)
        return bytes(sink.getvalue())
    delimiter, lines = _csv_rows(data)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(lines[0])
    writer.writerows(lines[1 + row] for row in rows)
    return text.getvalue().encode()


def name_of(path: str | None) -> tuple[str | None, Rule | None]:
    """The name within the table's folder that a path means, or the rule that it breaks."""
    if path is None or "\0" in path:
        return None, ("missing-file", "the row names no file")
    name = posixpath.normpath(path)
    if path.startswith("/") or _DRIVE.match(path) or name == ".." or name.startswith("../"):
        return None, ("path-escape", f"{path!r} leads out of the table's folder")
    return name, None


def label(value: Any) -> str | None:
    """A label as it is written: a string without spaces around it, 3 and 3.0 as "3"; None for nothing."""
    if value is None or value != value:
        return None
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = text.strip()
    whole = _WHOLE.fullmatch(text)
    return (whole[1] if whole else text) or None


def _text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    return (value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)) or None


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")


def _find(header: Sequence[str], names: Sequence[str]) -> int | None:
    lower = [h.strip().lower() for h in header]
    return next((lower.index(name) for name in names if name in lower), None)


def _read_parquet(data: bytes) -> tuple[list[str], list[list[Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data))
    header = list(file.schema_arrow.names)
    wanted = [at for at in (_find(header, PATHS), _find(header, LABELS)) if at is not None]
    if len(wanted) < 2:
        return header, [[None] * file.metadata.num_rows for _ in header]
    # Only the two columns are read: the others may be anything.
    table = file.read(columns=[header[at] for at in wanted], use_threads=False)
    columns: list[list[Any]] = [[] for _ in header]
    for at in wanted:
        columns[at] = table.column(header[at]).to_pylist()
    columns[0] = columns[0] or [None] * table.num_rows
    return header, columns


def _read_csv(data: bytes) -> tuple[list[str], list[list[Any]]]:
    _, lines = _csv_rows(data)
    if not lines:
        raise ValueError("the table is empty")
    header, body = lines[0], lines[1:]
    wanted = [[line[at] if at < len(line) else None for line in body] for at in range(len(header))]
    return header, wanted


def _csv_rows(data: bytes) -> tuple[str, list[list[str]]]:
    """(delimiter, rows), everything as it is written; blank lines are no rows."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start}") from None
    if "\0" in text:
        raise ValueError("not text: it holds a NUL")
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    return delimiter, rows

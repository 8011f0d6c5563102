"""A table of examples and labels, CSV, JSON Lines or Parquet: its rows, and the same table with some of its rows.

An example is named by a path, or lies in the table itself (Parquet, as Hugging Face writes it). A label is the text
that stands there. Where a path leads is not known here (table_paths, folder_walk).
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from leptonflow.data.ingest import bounded_parquet, table_text
from leptonflow.data.ingest.label_columns import (
    DEFAULT,
    Columns,
    LabelTable,
    Rule,
    find_examples,
    group_column,
    lacking,
    lacks_group,
    of_cells,
    of_columns,
    of_texts,
)
from schemas.errors import UsageError, words_of
from schemas.text import counted

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")  # how a file begins, and no path

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def read(name: str, data: bytes, columns: Columns = DEFAULT, classes: Sequence[str] | None = None) -> LabelTable:
    """The two columns of the table called `name`, whose suffix says what it is.

    classes  what the integers of a table with the examples in it mean, where the table does not name them
    """
    try:
        if _is_parquet(name):
            return _read_parquet(data, columns, classes)
        if name.lower().endswith(".jsonl"):
            return _read_lines(data, columns)
        return _read_csv(data, columns)
    except (ValueError, OSError, csv.Error, RecursionError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        return LabelTable([], [], broken=("unreadable-table", words_of(error)))


def has_columns(name: str, data: bytes, columns: Columns = DEFAULT) -> bool:
    """Whether a table has its two columns. Of Parquet only the schema is read."""
    columns = columns._replace(group=None)
    if not _is_parquet(name):
        found = read(name, data, columns)
        return found.broken is None and found.missing is None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return None not in find_in_parquet(pq.read_schema(pa.BufferReader(data)), columns)
    except (ValueError, OSError):
        return False


def broken(name: str, data: bytes) -> str | None:
    """Why a table cannot be read at all."""
    found = read(name, data).broken
    return found and found[1]


def some_rows(name: str, data: bytes, rows: Sequence[int]) -> bytes:
    """The same table, in the same format and with all its columns, with only these rows, in this order.

    Raises UsageError where another column of it cannot be read within bounds.
    """
    if _is_parquet(name):
        try:
            return bounded_parquet.some_rows(data, rows)
        except ValueError as error:  # in a column that nobody else reads
            raise UsageError(
                f"the table {name} cannot be landed in part", expected="columns that can be read", received=str(error),
                hint="Leave out the columns that are neither paths nor labels",
            ) from None  # fmt: skip
    if name.lower().endswith(".jsonl"):
        every = table_text.lines(data)
        return table_text.encoded("".join(f"{every[row][1]}\n" for row in rows))
    found = table_text.csv_rows(data)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=found.delimiter, lineterminator="\n")
    writer.writerow(found.rows[0])
    writer.writerows(found.rows[1 + row] for row in rows)
    return table_text.encoded(text.getvalue())


def name_of(path: str | None) -> tuple[str | None, Rule | None]:
    """The name within the table's folder that a path means, or the rule that it breaks."""
    if path is None or "\0" in path:
        return None, ("missing-file", "the row names no file")
    name = posixpath.normpath(path)
    if path.startswith("/") or _DRIVE.match(path) or name == ".." or name.startswith("../"):
        return None, ("path-escape", f"{path!r} points outside the table's folder, to which paths are relative")
    return name, None


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")


# --- Parquet -----------------------------------------------------------------------------------------


def _read_parquet(data: bytes, columns: Columns, classes: Sequence[str] | None) -> LabelTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data))
    schema = file.schema_arrow
    header = list(schema.names)
    if file.metadata.num_rows > bounded_parquet.MOST_ROWS:
        raise ValueError(f"it tells of {file.metadata.num_rows} rows; a table has {bounded_parquet.MOST_ROWS} at most")
    at, label_at = find_in_parquet(schema, columns)
    if at is None or label_at is None or lacks_group(header, columns):
        return lacking(header, columns, file.metadata.num_rows)
    # Only these columns are read: the others may be anything.
    group_at = group_column(header, columns)
    wanted = (header[each] for each in (*at, label_at, group_at) if each is not None)
    table = bounded_parquet.columns(data, tuple(dict.fromkeys(wanted)))
    paths = None if columns.cells is not None else header[at[0]]
    held, broken = cells(table, files=paths)
    labels = held[header[label_at]]
    inside = None if paths is None else files_inside(schema.types[at[0]], held[paths])
    if pa.types.is_integer(schema.types[label_at]) and (paths is None or inside is not None):
        names = _class_names(schema, header[label_at])
        labels = [_class(number, names or classes, bool(names)) for number in labels]
    if paths is None:
        rows = enumerate(zip(*(held[header[each]] for each in at), strict=True))
        found = of_texts(header, (None if number in broken else row for number, row in rows), labels, broken)
    elif inside is None:
        found = of_cells(header, held[paths], labels, broken)
    else:
        found = replace(of_cells(header, [None] * len(inside), labels, broken), cells=inside)
    return found if group_at is None else found.grouped(held[header[group_at]])


def cells(table: pa.Table | pa.RecordBatch, files: str | None = None) -> tuple[dict[str, list[Any]], dict[int, Rule]]:
    """The cells of each column, and the rule of each row in which one is not text: that row's cells are None.

    files: a column whose bytes may be files, and are left as they are.
    """
    found: dict[str, list[Any]] = {}
    broken: dict[int, Rule] = {}
    for name, each in zip(table.column_names, table.columns, strict=True):
        found[name], rules = table_text.column_cells(each, name, text=name != files)
        broken = rules | broken
    for column in found.values():
        for number in broken:
            column[number] = None
    return found, broken


def find_in_parquet(schema: pa.Schema, columns: Columns) -> tuple[list[int] | None, int | None]:
    """As find_examples, of a table in which a column of files may have any name."""
    at, label_at = find_examples(schema.names, columns)
    if at is None and columns.cells is None and columns.path is None:
        at = next(([number] for number, each in enumerate(schema.types) if _is_struct(each)), None)
    return at, label_at


def _is_struct(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def files_inside(kind: pa.DataType, cells: list[Any]) -> list[bytes | None] | None:
    """The bytes of each row's file; None where the column holds paths. Structs of paths alone become paths."""
    if _is_struct(kind):
        if any(cell and cell["bytes"] for cell in cells):
            return [cell["bytes"] if cell else None for cell in cells]
        cells[:] = [cell.get("path") if cell else None for cell in cells]
        return None
    first = next((cell for cell in cells if cell), None)
    return cells if isinstance(first, bytes) and first.startswith(MAGIC) else None


def _class_names(schema: pa.Schema, column: str) -> list[str]:
    """The names of a label column's numbers, as Hugging Face's datasets writes them into the table."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, ValueError, TypeError):
        return []
    return [str(name) for name in told] if isinstance(told, list) else []


def _class(number: int | None, names: Sequence[str] | None, named: bool) -> str | None:
    """The class of that number; by the pipeline's classes as a .npy label has it. -1 is no label."""
    if number is None or (number == -1 and named):
        return None
    if names and 0 <= number < len(names) and (named or not all(c.isascii() and c.isdigit() for c in names)):
        return names[number]
    return str(number)


# --- JSON Lines --------------------------------------------------------------------------------------


def _read_lines(data: bytes, columns: Columns) -> LabelTable:
    rows: list[dict[str, Any]] = []
    broken: dict[int, Rule] = {}
    for number, line in table_text.lines(data):
        if rule := table_text.line_rule(number, line):
            broken[len(rows)] = rule
            rows.append({})
            continue
        try:
            # Numbers stay the text that they are.
            row = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
        rows.append(row)
    if len(rows) == len(broken):
        raise ValueError(broken[0][1] if broken else "the table is empty")
    header = list(dict.fromkeys(key for row in rows for key in row))
    at, label_at = find_examples(header, columns)
    for name in {header[each] for each in (*(at or ()), label_at) if each is not None}:
        broken |= {n: rule for n, row in enumerate(rows) if (rule := table_text.value_rule(row.get(name), name))}
    rows = [{} if number in broken else row for number, row in enumerate(rows)]
    return of_columns(
        header, columns, len(rows), lambda at: (row.get(header[at]) for row in rows), broken=broken,
        as_label=lambda each: json.dumps(each) if isinstance(each, bool) else each,  # true, as it stands there
    )  # fmt: skip


# --- CSV ---------------------------------------------------------------------------------------------


def _read_csv(data: bytes, columns: Columns) -> LabelTable:
    _, lines, broken = table_text.csv_rows(data)
    if not lines:
        raise ValueError("the table is empty")
    header, body = lines[0], lines[1:]
    ragged = {n: ragged_row(len(header), len(row)) for n, row in enumerate(body) if len(row) != len(header)}
    ragged |= {number - 1: rule for number, rule in broken.items()}
    whole = [None if number in ragged else row for number, row in enumerate(body)]
    return of_columns(header, columns, len(body), lambda at: (row and row[at] for row in whole), broken=ragged)


def ragged_row(columns: int, cells: int) -> Rule:
    """The rule of a row with more or fewer cells than the header has columns."""
    way = "quote a cell that holds the separator" if cells > columns else "a cell is missing"
    return "ragged-row", f"the header has {counted(columns, 'column')}, this row {counted(cells, 'cell')}: {way}"

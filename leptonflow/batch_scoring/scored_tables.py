"""The rows of a table of any size, one after another: CSV, JSON Lines, Parquet. Few rows are in memory at once.

Columns are found, and rows are read, as `ingest` does; labels are not asked for. What does not belong here: where a
path leads, and what is predicted.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from leptonflow.data.ingest import label_columns, label_tables, table_text
from leptonflow.data.ingest.label_columns import Columns, Rule
from schemas.errors import UsageError, words_of

TOGETHER = 256  # rows of a Parquet table that are decoded at once
LOOKED = 1000  # JSON Lines whose keys are the columns
LONGEST_CELL = 64 << 20  # characters
NO_EXAMPLE: Rule = ("missing-text", "the row holds no example")

Cell = str | bytes | Rule  # a path, the example itself, or why there is none


def rows(path: Path, columns: Columns) -> Iterator[Cell]:
    """The cell of each row that names or holds the example, in order.

    columns.cells: None where rows name files, as in label_columns. A row that cannot be read is a rule; where the rest
    of the table cannot be read, that is the last row. Raises UsageError where the table has no such column, OSError.
    """
    suffix = path.suffix.lower()
    found = _parquet(path, columns) if suffix == ".parquet" else _lines(path, columns) if suffix == ".jsonl" else None
    return _csv(path, columns) if found is None else found


def _places(header: Sequence[str], columns: Columns) -> list[int]:
    """Where the columns stand that hold the example, or the one that names its file. Raises UsageError."""
    at = label_columns.find_examples(header, columns)[0]
    if at is not None:
        return at
    wanted = columns.cells or ([columns.path] if columns.path else None)
    known = label_columns.TEXTS if columns.cells is not None else label_columns.PATHS
    option = "--text-column" if columns.cells is not None else "--path-column"
    raise UsageError(
        f"the table has no column {'of texts' if columns.cells is not None else 'of paths'}",
        expected=", ".join(wanted or known), received=", ".join(map(repr, header[:20])) or "no column",
        hint=f"{option} NAME names it",
    )  # fmt: skip


def _cell(values: Sequence[Any], columns: Columns) -> Cell:
    if columns.cells is not None:
        return label_columns.joined(values)
    return label_columns.as_text(values[0]) or ("missing-file", "the row names no file")


def _encoding(path: Path) -> tuple[str, str]:
    """(encoding, errors) as `ingest` decodes a table."""
    with path.open("rb") as file:
        utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return ("utf-16", "strict") if utf16 else ("utf-8-sig", "surrogateescape")


def _csv(path: Path, columns: Columns) -> Iterator[Cell]:
    encoding, errors = _encoding(path)
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        try:
            first = file.readline(LONGEST_CELL)
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
            header = next((row for row in reader if row), None)
            if header is None:
                raise UsageError("the table is empty", expected="a header and rows", received=str(path))
            at, line = _places(header, columns), reader.line_num + 1
            for row in reader:
                if row:
                    yield _csv_row(row, header, at, columns, line)
                line = reader.line_num + 1
        except (csv.Error, UnicodeError) as error:
            yield "unreadable-table", f"from line {reader.line_num} on: {error}"


def _csv_row(row: list[str], header: list[str], at: list[int], columns: Columns, line: int) -> Cell:
    if rule := table_text.cells_rule(line, row, header):
        return rule
    if len(row) != len(header):
        return label_tables.ragged_row(len(header), len(row))
    return _cell([row[each] for each in at], columns)


def _lines(path: Path, columns: Columns) -> Iterator[Cell]:
    encoding, errors = _encoding(path)
    with path.open(encoding=encoding, errors=errors, newline="\n") as file:
        found = ((number, line) for number, line in enumerate(file, 1) if line.strip())
        try:
            looked = [(_row(number, line), number) for number, line in islice(found, LOOKED)]
            header = list(dict.fromkeys(key for row, _ in looked if isinstance(row, dict) for key in row))
            names = [header[each] for each in _places(header, columns)]
            later = ((_row(number, line), number) for number, line in found)
            for row, _ in chain(looked, later):
                if isinstance(row, dict):
                    rules = (table_text.value_rule(row.get(name), name) for name in names)
                    yield next(filter(None, rules), None) or _cell([row.get(name) for name in names], columns)
                else:
                    yield row
        except UnicodeError as error:
            yield "unreadable-table", f"it is not text: {error}"


def _row(number: int, line: str) -> dict[str, Any] | Rule:
    if rule := table_text.line_rule(number, line):
        return rule
    try:
        row = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        return "unreadable-row", f"line {number}: {error}"
    return row if isinstance(row, dict) else ("unreadable-row", f"line {number} is not a JSON object")


def _parquet(path: Path, columns: Columns) -> Iterator[Cell]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            header = list(schema.names)
            at = label_tables.find_in_parquet(schema, columns)[0] or _places(header, columns)
            names = [header[each] for each in at]
            for batch in file.iter_batches(TOGETHER, columns=names, use_threads=False):
                values, broken = label_tables.cells(batch, None if columns.cells is not None else names[0])
                held = [values[name] for name in names]
                files = None if columns.cells is not None else label_tables.files_inside(schema.types[at[0]], held[0])
                if files is None:
                    rows = enumerate(zip(*held, strict=True))
                    yield from (broken.get(number) or _cell(row, columns) for number, row in rows)
                else:
                    found = enumerate(files)
                    yield from (broken.get(number, NO_EXAMPLE) if each is None else each for number, each in found)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, KeyError) as error:
        yield "unreadable-table", words_of(error)

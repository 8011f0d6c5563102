"""The text of a table: its rows as they are written (of Parquet, the cells of a column), and which are not text.

A byte that is not UTF-8, or a NUL, spoils its row and not the table. What does not belong here: columns, and what a
row means (label_tables).
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.data.ingest import bounded_parquet
from leptonflow.data.ingest.label_columns import Rule

if TYPE_CHECKING:
    import pyarrow as pa

SAVE = "save the table as UTF-8"
_BROKEN = re.compile("[\x00\udc80-\udcff]")  # a NUL; a byte that is not UTF-8, as Python's "surrogateescape" has it


class CsvRows(NamedTuple):
    """rows: the header first, blank lines left out; broken: the rule of a row that is not text, by its number."""

    delimiter: str
    rows: list[list[str]]
    broken: Mapping[int, Rule]


def csv_rows(data: bytes) -> CsvRows:
    """Every row of a CSV. Raises ValueError, with the line, where it cannot be told what its rows are."""
    text = _decoded(data)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    # A limit of the process, and no bound that is needed here: a cell is part of a text that is in memory.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    rows: list[list[str]] = []
    broken: dict[int, Rule] = {}
    clean, line = _BROKEN.search(text) is None, 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row and not clean and (rule := cells_rule(line, row, rows[0] if rows else ())):
                broken[len(rows)] = rule
            line = reader.line_num + 1
            if row:
                rows.append(row)
            if len(rows) > bounded_parquet.MOST_ROWS:
                raise ValueError(f"more than {bounded_parquet.MOST_ROWS} rows")
    except csv.Error as error:
        told = "a quote is opened and never closed" if str(error) == "unexpected end of data" else str(error)
        raise ValueError(f"the row in line {line}: {told}") from None
    if 0 in broken:
        raise ValueError(broken[0][1])
    return CsvRows(delimiter, rows, broken)


def lines(data: bytes) -> list[tuple[int, str]]:
    """(number from 1, line) of each line that is not blank."""
    return [(number, line) for number, line in enumerate(_decoded(data).split("\n"), 1) if line.strip()]


def line_rule(number: int, line: str) -> Rule | None:
    """The rule of a line that is not text."""
    return cells_rule(number, (line,), ())


def encoded(text: str) -> bytes:
    """The bytes of a text of these functions: those that were no UTF-8 are as they were."""
    return text.encode("utf-8", "surrogateescape")


def cells_rule(line: int, cells: Sequence[str], header: Sequence[str]) -> Rule | None:
    """The rule of cells that are not text, which stand in that line of a table."""
    for at, cell in enumerate(cells):
        found = _BROKEN.search(cell)
        if found is not None:
            where = f"line {line}" + (f", column {header[at]!r}" if at < len(header) else "")
            if found[0] == "\0":
                return "nul-character", f"{where}: a NUL, which no text has; {SAVE}"
            return "not-utf8", f"{where}: the byte 0x{ord(found[0]) - 0xDC00:02x} is not UTF-8; {SAVE}"
    return None


def value_rule(value: Any, column: str) -> Rule | None:
    """The rule of a value that JSON or Parquet holds where a text or a number belongs."""
    if isinstance(value, dict | list):
        kind = "a list" if isinstance(value, list) else "a structure"
        return "not-text", f"column {column!r}: the cell is {kind}, where a text belongs; name another column"
    if isinstance(value, str) and "\0" in value:
        return "nul-character", f"column {column!r}: a NUL, which no text has"
    return None


def column_cells(
    column: pa.Array | pa.ChunkedArray, name: str, *, text: bool = True
) -> tuple[list[Any], dict[int, Rule]]:
    """The cells of a Parquet table's column, and the rule of each that is no text, by its number.

    text: not of files, whose cells may be structures; a column of bytes holds texts too, of a writer that did not say
    so. Parquet does not check that a text is UTF-8, and Arrow gives either every cell of a column as text or none: then
    each is asked for.
    """
    broken: dict[int, Rule] = {}
    try:
        found = column.to_pylist()
        found = [each.decode() if isinstance(each, bytes) else each for each in found] if text else found
    except UnicodeDecodeError:
        found = []
        for number, cell in enumerate(column):
            try:
                value = cell.as_py()
                found.append(value.decode() if text and isinstance(value, bytes) else value)
            except UnicodeDecodeError as error:
                found.append(None)
                told = f"byte {error.start} of the cell is 0x{error.object[error.start]:02x}, which is not UTF-8"
                broken[number] = ("not-utf8", f"column {name!r}: {told}; {SAVE}")
    for number, value in enumerate(found if text else ()):
        if rule := value_rule(value, name):
            broken[number] = rule
    return found, broken


def _decoded(data: bytes) -> str:
    if data[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return data.decode("utf-8-sig", "surrogateescape")
    try:  # spreadsheets write "Unicode text" as UTF-16, with its mark
        return data.decode("utf-16")
    except UnicodeDecodeError as error:
        line = data[: error.start].decode("utf-16", "replace").count("\n") + 1
        raise ValueError(f"line {line}: byte {error.start} of the table is not UTF-16; {SAVE}") from None

"""A query's result as JSON objects, CSV or a Parquet file.

JSON knows no infinity and no time: what is not finite becomes null, times are ISO 8601 in UTC.
Asking (queries) does not belong here, nor a table for the terminal (cli).
"""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

# What moves a terminal's cursor or turns the direction of text.
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPED = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROLS if chr(code) not in "\t\n"}
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def to_json(table: pa.Table) -> list[dict[str, Any]]:
    """One object per row, of plain values that `json.dumps(..., allow_nan=False)` takes."""
    return [{name: plain(value) for name, value in zip(table.column_names, row, strict=True)} for row in rows(table)]


def to_csv(table: pa.Table, spreadsheet: bool = False) -> str:
    """A header and one line per row (RFC 4180, but with \\n); null is empty, booleans are true and false.

    Control characters but tabs and ends of lines are written as \\x1b and the like. spreadsheet: text that a
    spreadsheet would take for a formula has an apostrophe before it.
    """
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([_cell(name, spreadsheet) for name in table.column_names])
    for row in rows(table):
        writer.writerow([_cell(value, spreadsheet) for value in row])
    return sink.getvalue()


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Each row's values as plain Python's. pyarrow itself would import pandas to make a time: most of a second."""
    columns = [_values(column) for column in table.columns]
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def _values(column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    steps = {"s": 10**6, "ms": 10**3, "us": 1}  # in microseconds; a nanosecond is finer than Python's own times
    kind = column.type
    if not pa.types.is_timestamp(kind) or kind.unit not in steps:
        values: list[Any] = column.to_pylist()
        return values
    start = datetime(1970, 1, 1, tzinfo=None if kind.tz is None else UTC)
    numbers = (number for chunk in column.chunks for number in chunk.view(pa.int64()).to_pylist())
    return [None if n is None else start + timedelta(microseconds=n * steps[kind.unit]) for n in numbers]


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write the result to a local file. Raises UsageError where that cannot be written."""
    import pyarrow.parquet as pq

    try:
        pq.write_table(table, path, compression="zstd")
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UsageError:
    """The error for a result's file that cannot be written."""
    return UsageError(
        "the file cannot be written", expected="--output names a file in a folder that exists",
        received=f"{path}: {error.strerror or error}",
    )  # fmt: skip


def plain(value: Any) -> Any:
    """A value of DuckDB's as a plain JSON value."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Decimal():  # sums of whole numbers come as decimals without a fraction
            if not value.is_finite():
                return None
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime():
            if value.tzinfo is None:
                return value.isoformat()
            return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode()
        case Mapping():
            return {str(k): plain(v) for k, v in value.items()}
        case list() | tuple():
            return [plain(v) for v in value]
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def _cell(value: Any, spreadsheet: bool) -> str:
    import json

    found = plain(value)
    if found is None:
        return ""
    if not isinstance(found, str):
        return json.dumps(found, ensure_ascii=False)
    text = found.translate(_ESCAPED)
    return f"'{text}" if spreadsheet and text.startswith(_FORMULA) else text

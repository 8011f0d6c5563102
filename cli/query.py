"""The subcommand `query`: SQL from the command line, a file or standard input; the result in the chosen format.

What does not belong here: what SQL may do (the engine's `statements`), and how values are written (`formats`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.common import JSON, STORE, looked_at
from leptonflow.core import files
from schemas.errors import UsageError
from schemas.settings import query_memory, query_seconds

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "parquet")


def query(
    sql: Annotated[str | None, typer.Argument(metavar="[SQL]", help="one statement; - reads standard input")] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="a file with the statement")] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, json or parquet")] = "table",
    spreadsheet: Annotated[
        bool, typer.Option("--spreadsheet", help="csv without text that a spreadsheet would run as a formula")
    ] = False,
    to: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="default: standard output")] = None,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """DuckDB over the tables: one statement that only reads."""
    from leptonflow.tables import queries
    from leptonflow.tables.allowance import Allowance, within

    if form not in FORMATS:
        raise UsageError("no such format", expected="table, csv, json or parquet", received=form)
    form = "json" if as_json else form
    if form == "parquet" and to is None:
        raise UsageError("parquet goes to a file", expected="--output FILE", received="no --output")
    if spreadsheet and form != "csv":
        raise UsageError("--spreadsheet is about CSV", expected="--format csv", received=f"--format {form}")
    text = _statement(sql, file)
    allowance = Allowance(query_seconds(), query_memory())
    table = queries.query(looked_at(store), text, allowance)
    # Rows as text take many times the memory of the result itself.
    within(allowance, lambda: _write(table, form, to, spreadsheet, as_json), lambda: None)
    return 0


def _statement(sql: str | None, file: Path | None) -> str:
    if (sql is None) == (file is None):
        received = "neither" if sql is None else "both"
        raise UsageError("a query is one statement", expected="SQL, - or --file FILE", received=received)
    if sql is not None:
        return sys.stdin.read() if sql == "-" else sql
    assert file is not None
    try:
        return files.read(file, files.TEXT).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"{file} cannot be read", expected="a text file in UTF-8", received=reason or str(error)
        ) from None


def _write(table: pa.Table, form: str, to: Path | None, spreadsheet: bool, as_json: bool) -> None:
    from cli import show
    from leptonflow.tables import formats

    if form == "parquet":
        assert to is not None
        formats.write_parquet(table, to)
        return
    if form == "json" and as_json and to is None:
        output.tell(formats.to_json(table))
        return
    if form == "json":
        text = json.dumps(formats.to_json(table), ensure_ascii=False, allow_nan=False)
    else:
        text = formats.to_csv(table, spreadsheet) if form == "csv" else show.as_text(table)
    if to is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise formats.unwritable(to, error) from None
    if as_json:
        output.tell({"path": str(to), "rows": table.num_rows})

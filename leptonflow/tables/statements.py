"""Which SQL `query` takes: one statement that only reads. It asks DuckDB's own parser, and judges the syntax tree.

An allowlist, because what is not known to be harmless is not: the functions in FROM that read files, write logs or
take a pointer are many, and every release of DuckDB has more. What does not belong here: running a query (`queries`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from schemas.errors import UsageError

ONE = "one statement that only reads: SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN"
IN_FROM = (
    "generate_series", "histogram", "histogram_values", "json_each", "json_tree", "query_table", "range", "repeat",
    "repeat_row", "unnest",
)  # fmt: skip
CATALOG = re.compile(r"duckdb_\w+|pragma_\w+|pg_timezone_names|icu_calendar_names")  # what DuckDB says about itself
_LEADING = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|;)*", re.DOTALL)
_EXPLAIN = re.compile(r"EXPLAIN\b\s*(?:ANALYZE\b\s*)?", re.IGNORECASE)
_OPTIONS = re.compile(r"\([^()]*\)")


def check(con: Any, sql: str) -> None:
    """Raise UsageError where `sql` is not one statement that only reads; DuckDB's own error where it is no SQL.

    con: a connection of DuckDB's whose external access is off: its parser opens the files of IMPORT DATABASE.
    """
    kinds = [statement.type.name for statement in con.extract_statements(sql)]
    if len(kinds) != 1:
        # DuckDB rewrites a PIVOT without IN into a CREATE and a SELECT.
        pivot = "PIVOT" in sql.upper()
        hint = "Name a PIVOT's columns: PIVOT ... ON column IN (...)" if pivot else "Send one statement at a time"
        raise UsageError("a query is one statement", expected=ONE, received=f"{len(kinds)} statements", hint=hint)
    text = sql[_LEADING.match(sql).end() :]  # type: ignore[union-attr]  # matches nothing at least
    tree = _explained(con, text) if kinds == ["EXPLAIN"] else _tree(con, sql)
    if tree is None:
        word = (text.split() or [""])[0].upper()
        raise UsageError(
            "a query only reads", expected=ONE, received=word if word.isalpha() else kinds[0],
            hint="The tables are written by `leptonflow ingest` and `leptonflow retrain` alone",
        )  # fmt: skip
    for name in _functions(tree):
        if name not in IN_FROM and not CATALOG.fullmatch(name):
            raise UsageError(
                "a query reads the store's tables and nothing else", received=f"the function {name} in FROM",
                expected=f"tables, and of functions {', '.join(IN_FROM)}",
            )  # fmt: skip


def _explained(con: Any, text: str) -> Any:
    """What an EXPLAIN explains: EXPLAIN ANALYZE runs it."""
    explain = _EXPLAIN.match(text)
    if explain is None:
        return None
    rest = text[explain.end() :]
    return _tree(con, rest) or _tree(con, _OPTIONS.sub("", rest, count=1))


def _tree(con: Any, sql: str) -> Any:
    """The syntax tree of one SELECT, which PRAGMA and CALL are not; None for anything else."""
    literal = sql.replace("'", "''")  # a parameter would have DuckDB import pandas, most of a second
    found = con.execute(f"SELECT json_serialize_sql('{literal}')").fetchone()
    assert found is not None
    try:
        document = json.loads(found[0])
    except RecursionError:
        raise UsageError(
            "the query is nested too deeply", expected="expressions at most some hundred levels deep",
            hint="Write a list with IN, or several columns",
        ) from None  # fmt: skip
    return document if not document["error"] and len(document["statements"]) == 1 else None


def _functions(tree: Any) -> Iterator[str]:
    """The names of the functions that stand in FROM, anywhere in the tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("type") == "TABLE_FUNCTION" and "function" in node:
                yield str(node["function"].get("function_name")).lower()
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node

"""SQL over the tables: the only importer of DuckDB. It runs one statement that only reads (`statements`).

The query sees the store's own table files, each one named, and nothing else: no other file, no URL,
no setting, no secret. What lies on the store already (quarantine parts, commit logs) is read from
there; it has one source (`table_sources`). Making rows belongs to `tables`, showing them to `formats`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from leptonflow.storage.objects import BACK
from leptonflow.storage.s3 import connection
from leptonflow.storage.store import Store
from leptonflow.tables import statements, table_sources
from leptonflow.tables.allowance import Allowance, too_large, within
from schemas.errors import Damaged, LeptonflowError, StoreUnreachable, UsageError
from schemas.settings import query_memory, query_seconds

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

S3_THREADS = 16
BATCH = 100_000  # rows
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_persistent_secrets": "false",  # none of the user's own are read from the home folder
    "allow_unredacted_secrets": "false",
    "python_enable_replacements": "false",  # `FROM name` is a table, never a Python variable of ours
    "temp_directory": "",
}
# The extension lies in its wheel, beside DuckDB's own: to verify its signature again is to hash 21 MB for each query.
# What a query may load does not change: LOAD is no SELECT, and external access ends before the query begins.
_HTTPFS: dict[str, str | bool | int | float | list[str]] = {"allow_unsigned_extensions": "true"}
_BARE_AT = re.compile(r'(?<![\w".])at\b(?!")', re.IGNORECASE)
_NAMED = re.compile(r"\b(?:from|join)\s+['\"]?(\w+)", re.IGNORECASE)
_CATALOG = re.compile(r"show|describe|schema|duckdb_|sqlite_|pg_|query")  # what could list or compose a view's name


def query(store: Store, sql: str, allowance: Allowance | None = None) -> pa.Table:
    """The result of one reading statement over the tables and views of docs/tables.md, its columns' names distinct.

    allowance: time and memory for it, by default those of the environment. Raises UsageError for anything but one
    statement that only reads, for an error in the SQL and for an attempt to read something else than the tables;
    Damaged or StoreUnreachable where a table's own files cannot be read; LeptonflowError where it takes too much.
    """
    import duckdb

    allowed = allowance or Allowance(query_seconds(), query_memory())
    remote = store.uri.startswith("s3:")
    limit = {"memory_limit": f"{allowed.memory}B"}
    con = duckdb.connect(config=_CONFIG | limit | (_HTTPFS if remote else {}))
    return within(allowed, lambda: _answer(con, store, sql, allowed), con.interrupt)


def _answer(con: DuckDBPyConnection, store: Store, sql: str, allowed: Allowance) -> pa.Table:
    import duckdb

    keys: list[str] = []
    try:
        _check(sql)
        con.execute("SET TimeZone='UTC'")
        paths, keys = _open(con, store, sql)
        con.execute(f"SET allowed_paths=[{_strings(paths)}]")
        con.execute("SET enable_external_access=false")
        con.execute("SET lock_configuration=true")
        return _distinct_names(_rows(con, sql))
    except (duckdb.OutOfMemoryException, MemoryError):
        raise too_large(allowed) from None
    except duckdb.Error as error:
        raise _broken(store, keys, error) or _explained(error, sql) from None
    finally:
        con.close()


def _check(sql: str) -> None:
    """Hold the text against `statements`, on a connection that can reach no file: the parser itself opens some."""
    import duckdb

    with _parser().cursor() as parser:
        try:
            statements.check(parser, sql)
        except duckdb.Error as error:
            _parser.cache_clear()  # an error within DuckDB makes a database unusable
            raise _explained(error, sql) from None


@cache
def _parser() -> DuckDBPyConnection:
    """One for the process, with no table: to open it takes half of a small query's time."""
    import duckdb

    return duckdb.connect(config=_CONFIG | {"enable_external_access": "false", "lock_configuration": "true"})


def _rows(con: DuckDBPyConnection, sql: str) -> pa.Table:
    """Batch by batch: made in one call, a table of any size holds up the thread that counts time and memory."""
    import pyarrow as pa

    reader = con.execute(sql).to_arrow_reader(BATCH)
    return pa.Table.from_batches(list(reader), reader.schema)


# --- errors --------------------------------------------------------------------------------------


def _broken(store: Store, keys: Sequence[str], error: Exception) -> LeptonflowError | None:
    """The file that made DuckDB fail, by its key; None where the statement is to blame."""
    import duckdb

    of_the_statement = (
        duckdb.BinderException, duckdb.CatalogException, duckdb.InterruptException, duckdb.ParserException,
        duckdb.PermissionException, duckdb.SyntaxException,
    )  # fmt: skip
    return None if isinstance(error, of_the_statement) else table_sources.broken(store, keys)


def _explained(error: Exception, sql: str = "") -> LeptonflowError:
    """DuckDB's own first line, without its kind, as an error of ours."""
    import duckdb

    text = str(error).strip()
    first = re.sub(r"^(?:\w+ )+Error: ", "", text.splitlines()[0] if text else type(error).__name__)
    if isinstance(error, duckdb.PermissionException):
        return UsageError(
            "a query reads the store's tables and nothing else", expected=f"the tables {', '.join(_names())}",
            received=first.split(" - ")[0],
        )  # fmt: skip
    if isinstance(error, duckdb.InternalException | duckdb.FatalException):
        return LeptonflowError(f"DuckDB failed: {first}", hint="Write the query another way")
    if isinstance(error, duckdb.IOException):  # HTTPException is one
        return StoreUnreachable(f"a table's file cannot be read: {first}", hint="`leptonflow doctor` checks the store")
    if isinstance(error, duckdb.CatalogException) and "Table with name" in first:
        return UsageError(f"SQL: {first}", expected=f"one of the tables {', '.join(_names())}")
    if isinstance(error, duckdb.ParserException) and _BARE_AT.search(sql):
        return UsageError(f"SQL: {first}", hint='Write the column at as "at": the bare word is one of SQL\'s own')
    named = [each for each in dict.fromkeys(_NAMED.findall(sql.lower())) if each in _names()]
    candidates = re.search(r"Candidate bindings: (.*)", text)
    return UsageError(
        f"SQL: {first}",
        expected=f"a column such as {candidates[1]}" if candidates else None,
        hint="docs/tables.md describes the tables; for the columns, "
        + " or ".join(f"`DESCRIBE {each}`" for each in named or ["runs"]),
    )


def _names() -> tuple[str, ...]:
    from leptonflow.tables.views import VIEWS
    from schemas.tables import COLUMNS

    return (*COLUMNS, *VIEWS)


# --- the views -----------------------------------------------------------------------------------


def _open(con: DuckDBPyConnection, store: Store, sql: str) -> tuple[list[str], list[str]]:
    """Make the views that the query can see; the paths that it may read, and the keys of its files.

    Only the tables that the text mentions, itself or by a view of theirs, get their files, so that a query costs what
    it reads. The others are empty and typed, and there where the text could list them. `query_table()` can put a name
    together from pieces, so its mention counts as a mention of all.
    """
    import duckdb

    from leptonflow.tables.views import VIEWS
    from schemas.tables import COLUMNS

    lowered = sql.lower()
    everything = "query_table" in lowered
    listed = bool(_CATALOG.search(lowered))
    views = {name: view for name, view in VIEWS.items() if name in lowered or listed}
    mentioned = {table for name, view in views.items() if everything or name in lowered for table in view.tables}
    mentioned |= {table for table in COLUMNS if everything or table in lowered}
    sources = _sources(con, store, [table for table in COLUMNS if table in mentioned])
    folder = store.path("")
    root = store.uri.rstrip("/") if folder is None else str(folder).rstrip("/")
    allowed: list[str] = []
    files: list[str] = []
    for table in COLUMNS:
        if table not in mentioned and not listed:
            continue
        keys, rows = sources.get(table, ([], None))
        if rows is not None and not keys:
            con.register("rows", rows)
            con.execute(f"CREATE TABLE {table} AS FROM rows")
            con.unregister("rows")
            continue
        paths = [f"{root}/{key}" for key in keys]
        patterns = [_pattern(path) for path in paths]
        allowed += {*paths, *patterns}  # DuckDB asks for the pattern first and then for what it matched
        files += keys
        try:
            _create_view(con, table, patterns, rows)
        except (duckdb.OutOfMemoryException, duckdb.InterruptException):
            raise
        except duckdb.Error as error:
            raise _broken(store, keys, error) or _unreadable(table, error) from None
    for name, view in views.items():
        con.execute(f"CREATE VIEW {name} AS {view.sql}")
    return allowed, files


def _unreadable(table: str, error: Exception) -> LeptonflowError:
    import duckdb

    if isinstance(error, duckdb.IOException):
        return _explained(error)
    return Damaged(
        f"the table {table} has a file that cannot be read", expected="Parquet files of the table's columns",
        received=str(error).splitlines()[0], hint=BACK,
    )  # fmt: skip


def _sources(
    con: DuckDBPyConnection, store: Store, mentioned: Sequence[str]
) -> dict[str, tuple[list[str], pa.Table | None]]:
    """Of each table its files' keys, and its rows that DuckDB cannot read from files."""

    def one(table: str) -> tuple[list[str], pa.Table | None]:
        keys, rows = table_sources.files_and_under_way(store, table)
        if keys and store.uri.startswith("memory:"):
            keys, rows = [], table_sources.in_memory(store, table, keys, rows)
        return keys, table_sources.from_log(store, table) if rows is None else rows

    if not store.uri.startswith("s3:") or all(table_sources.in_memory_alone(table) for table in mentioned):
        return {table: one(table) for table in mentioned}
    # The listings wait for the network while the extension is loaded, and pyarrow, which the answer needs.
    with ThreadPoolExecutor(max_workers=len(mentioned)) as pool:
        waiting = {table: pool.submit(one, table) for table in mentioned}
        _connect_s3(con, store)
        import_module("pyarrow")
        return {table: found.result() for table, found in waiting.items()}


def _create_view(con: DuckDBPyConnection, table: str, paths: Sequence[str], rows: pa.Table | None) -> None:
    """A view with the declared columns and types, whatever an older or a newer release wrote.

    With rows that are in no file it is a table: a view cannot hold them.
    """
    types = _types(table)
    empty = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in types.items())
    source = f"SELECT {empty} LIMIT 0"
    if paths:
        # hive_partitioning stays off: min and max of such a column crash DuckDB 1.5, and the rows have `pipeline`.
        read = f"FROM read_parquet([{_strings(paths)}], union_by_name=true, hive_partitioning=false)"
        source = f"({read}) UNION ALL BY NAME ({source})"
    columns = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in types.items())
    if rows is None:
        con.execute(f"CREATE VIEW {table} AS SELECT {columns} FROM ({source})")
        return
    con.register("rows", rows)
    con.execute(f"CREATE TABLE {table} AS SELECT {columns} FROM ({source} UNION ALL BY NAME FROM rows)")
    con.unregister("rows")


def _types(table: str) -> dict[str, str]:
    from schemas.tables import COLUMNS

    kinds = {"text": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "time": "TIMESTAMPTZ"}
    kinds |= {"floats": "FLOAT[]", "bytes": "BLOB"}
    return {name: kinds[kind] for name, kind in COLUMNS[table].items()}


# --- where the files are -------------------------------------------------------------------------


def _pattern(path: str) -> str:
    """DuckDB takes every name for a pattern: a folder's own * ? [ are written as one-character classes."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def _strings(values: Sequence[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _connect_s3(con: DuckDBPyConnection, store: Store) -> None:
    """Load the wheel-shipped httpfs extension and give it this store's credentials, for this bucket alone."""
    import duckdb

    con.execute(f"LOAD {_strings([_httpfs()])}")
    # The extension copies AWS_* into settings that any query could read: the secret below replaces them.
    for name in ("s3_access_key_id", "s3_secret_access_key", "s3_session_token", "s3_endpoint"):
        con.execute(f"SET {name}=''")
    # Objects never change, and many small files are a wait for the network: measured with 300 files at
    # 20 ms a request, 1.2 s instead of 11.6 s.
    con.execute("SET enable_http_metadata_cache=true")
    con.execute(f"SET threads={max(S3_THREADS, os.cpu_count() or 1)}")
    link = connection()
    options = {"KEY_ID": link.access_key, "SECRET": link.secret_key, "SESSION_TOKEN": link.token, "REGION": link.region}
    options["SCOPE"] = f"s3://{urlsplit(store.uri).netloc}"
    if link.endpoint:
        options |= {"ENDPOINT": urlsplit(link.endpoint).netloc, "URL_STYLE": "path"}
    given = ", ".join(f"{name} {_strings([value])}" for name, value in options.items() if value)
    try:
        con.execute(f"CREATE SECRET store (TYPE s3, USE_SSL {link.address.startswith('https:')}, {given})")
    except duckdb.Error:
        # DuckDB's message may repeat the statement, and the statement holds the secret.
        raise StoreUnreachable(
            "DuckDB rejects the store's S3 settings",
            expected="AWS_* variables as every S3 client knows them",
            received=link.address,
        ) from None


def _httpfs() -> str:
    """The extension's file in its wheel. It is loaded from there: nothing is installed or downloaded."""
    from importlib import util
    from pathlib import Path

    import duckdb

    spec = util.find_spec("duckdb_extension_httpfs")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    file = folder / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension" if folder else None
    if file is None or not file.is_file():
        raise UsageError(
            "DuckDB cannot read S3 here", expected=f"duckdb-extension-httpfs=={duckdb.__version__}",
            received="another version" if folder else "no such package", hint="pip install 'leptonflow[s3]'",
        )  # fmt: skip
    return str(file)


def _distinct_names(table: pa.Table) -> pa.Table:
    """`SELECT 1 AS a, 2 AS a` has two columns a; as objects they would be one."""
    names: list[str] = []
    for name in table.column_names:
        unique, number = name, 1
        while unique in names:
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return table.rename_columns(names)

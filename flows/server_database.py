"""The SQLite database of our Prefect servers: a new one is a copy of the user's template, and how transactions begin.

`python -m flows.server_database` makes the template, for the set-up. What does not belong here: which server there is,
and in which folder.
"""

from __future__ import annotations

import gzip
import os
import sqlite3
import sys
import tempfile
import zlib
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

DATABASE = Path("prefect.db")  # in the server's folder, which is its working directory: its name may hold anything
URL = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{DATABASE}"}
FORMAT = 1  # of the template: another one where something of ours in it changes


def template() -> Path:
    """Where the user's cache folder has an empty database of this Prefect version, if it has one."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():
        caches = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()
    return caches / "leptonflow" / f"prefect-{metadata.version('prefect')}-{FORMAT}.db.gz"


def empty() -> bytes | None:
    """The template's database. None where there is none, it is damaged, or it is another user's."""
    try:
        with template().open("rb") as file:
            mine = os.fstat(file.fileno()).st_uid == os.geteuid()  # else its rows could make the server run anything
            return (gzip.decompress(file.read()) or None) if mine else None
    except (OSError, EOFError, zlib.error):
        return None


def create() -> None:
    """Make the database where there is none, in the working directory, with `URL` in the environment.

    Prefect's migrations take seconds. What they build once becomes the template. They run at the server's start in any
    case, and find nothing left to do.
    """
    if DATABASE.exists():
        return
    Path("memo_store.toml").unlink(missing_ok=True)  # it says that the block types are in the database
    data = empty()
    if data is None:
        _migrate()
        with suppress(OSError):  # a cache that cannot be written: the next new database takes as long
            _keep(DATABASE.read_bytes())
        return
    draft = DATABASE.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_bytes(data)
    draft.replace(DATABASE)


def _migrate() -> None:
    """Let Prefect build its tables, all of them in the database's own file."""
    import asyncio

    from prefect.server.database import provide_database_interface

    asyncio.run(provide_database_interface().create_db())
    with closing(sqlite3.connect(DATABASE)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")


def _keep(data: bytes) -> None:
    """Make this the template in one step: a reader sees a whole one or none."""
    path = template()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(gzip.compress(data))
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise


def write_in_turn() -> None:
    """Begin Prefect's transactions as SQLite's IMMEDIATE ones: before its server starts, in its process.

    Prefect begins most of them DEFERRED: one that reads and then writes is refused at once (`database is locked`) where
    another wrote in between. An automation's event that was refused four times within some 40 ms is dropped, with all
    that follow it for 15 minutes; and where Python then collects the refused statement while its connection waits for
    the lock, the whole server stands still for the minute that SQLite waits (seen with py-spy and gdb: cursor_dealloc
    in the event loop's thread). Beginning IMMEDIATE, a transaction waits for its turn.
    """
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    def immediate(self: AioSqliteConfiguration, session: Any, with_for_update: bool = False) -> Any:
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = immediate  # type: ignore[method-assign]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            del os.environ[name]
        os.environ |= {**URL, "PREFECT_HOME": folder, "DO_NOT_TRACK": "1"}
        os.chdir(folder)
        if empty() is None:
            create()

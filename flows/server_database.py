"""How our Prefect servers write to SQLite: one transaction after another, each from its first statement on.

What does not belong here: which server there is, and where its database lies.
"""

from __future__ import annotations

from typing import Any


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

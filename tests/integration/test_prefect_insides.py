"""What our changes to Prefect's server rely on, and that each is still needed: see here after a new Prefect version.

Prefect's server is imported in the tests alone: each process of a test session collects this file.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows import server, server_database

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.server.events.ordering.memory import CausalOrdering
    from prefect.server.events.schemas.events import ReceivedEvent


def refused_beside_a_transaction(path: Path) -> bool:
    """Whether another connection cannot begin to write while a transaction of Prefect's has begun and written nothing.

    `session_context` is what Prefect's own server begins all of its transactions by.
    """
    from prefect.server.database import provide_database_interface
    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.server.database.dependencies import temporary_database_config

    async def look() -> bool:
        async with provide_database_interface().session_context(begin_transaction=True) as session:
            await session.connection()
            with closing(sqlite3.connect(path, timeout=0)) as other:
                try:
                    other.execute("begin immediate")
                except sqlite3.OperationalError as error:
                    assert "locked" in str(error)
                    return True
        return False

    with temporary_database_config(AioSqliteConfiguration(f"sqlite+aiosqlite:///{path}")):
        return asyncio.run(look())


def test_transactions_begin_deferred_without_us_and_immediate_with_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.server.database.configurations import AioSqliteConfiguration

    assert not refused_beside_a_transaction(tmp_path / "theirs.db"), "Prefect does it by itself: write_in_turn can go"
    theirs = AioSqliteConfiguration.begin_transaction
    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", theirs)  # put back after the test
    server_database.write_in_turn()
    assert refused_beside_a_transaction(tmp_path / "ours.db")
    ours = AioSqliteConfiguration.begin_transaction
    assert defaults(ours) == defaults(theirs) == {"self": None, "session": None, "with_for_update": False}


def defaults(function: object) -> dict[str, object]:
    """Each parameter with its default, None for none."""
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    return {each.name: None if each.default is each.empty else each.default for each in parameters}


def event(follows: UUID | None = None) -> ReceivedEvent:
    from prefect.events import Event, Resource
    from prefect.server.events.schemas.events import ReceivedEvent

    sent = Event(event="test", resource=Resource({"prefect.resource.id": "test"}), follows=follows)
    return ReceivedEvent(**sent.model_dump())


def passes(kind: type[CausalOrdering], each: ReceivedEvent) -> bool:
    """Whether the event is let through at once, where nothing was seen before it."""
    from prefect.server.events.ordering import EventArrivedEarly

    async def handle(event: ReceivedEvent, depth: int = 0) -> None:
        raise AssertionError("nothing waits for it")

    async def look() -> bool:
        try:
            async with kind(os.urandom(4).hex()).preceding_event_confirmed(handle, each):
                return True
        except EventArrivedEarly:
            return False

    return asyncio.run(look())


def test_an_event_waits_for_one_of_before_without_us_and_not_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.server.events.ordering import memory

    from flows.stack import ordering

    leader = event().id
    made = (leader.int >> 80) / 1000
    assert leader.version == 7 and abs(made - time.time()) < 60, "an event's id does not tell its time any more"
    monkeypatch.setattr(ordering, "BEGAN", made + 1)
    assert not passes(memory.CausalOrdering, event(leader)), "Prefect does it by itself: flows.stack.ordering can go"
    assert passes(ordering.CausalOrdering, event(leader))
    monkeypatch.setattr(ordering, "BEGAN", made - 1)
    assert not passes(ordering.CausalOrdering, event(leader))
    assert passes(ordering.CausalOrdering, event())


def test_the_server_of_up_takes_its_ordering_from_us_which_is_made_of_prefects_default() -> None:
    from prefect.server.events.ordering import get_triggers_causal_ordering, memory
    from prefect.settings import PREFECT_SERVER_EVENTS_CAUSAL_ORDERING, Settings, temporary_settings

    from flows.stack import ordering

    assert Settings().server.events.causal_ordering == memory.__name__
    with temporary_settings(
        {PREFECT_SERVER_EVENTS_CAUSAL_ORDERING: server.FULL["PREFECT_SERVER_EVENTS_CAUSAL_ORDERING"]}
    ):
        assert type(get_triggers_causal_ordering()) is ordering.CausalOrdering

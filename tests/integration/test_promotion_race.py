"""Twenty processes that promote and roll back at once, round after round, while others read without a pause.

The history stays one line, every reader sees one champion whose package is whole, and every loser learns by whom it
was overtaken. The infra-validations are recorded beforehand, so that a decision takes milliseconds. What a single race
does belongs to test_promotions.py.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from leptonflow.core.hashing import sha256
from leptonflow.registry import champion_log, manual_decisions, packages
from leptonflow.storage import commit_log as commits
from leptonflow.storage.address import open_store
from schemas.errors import Damaged, LeptonflowError
from tests.small_packages import PIPELINE, fit_to_run, put

WRITERS, READERS, ROUNDS = 20, 3, 100
VERSIONS = [f"v{number}" for number in range(8)]
BROKEN = "broken"  # a version with a changed file: promoted by nobody, seen by nobody
OVERTAKEN = re.compile(r"write conflict: (\S+) committed record (\d+)\b")
PATIENCE = 120.0

# A server that imports once and forks clean children: no threads of a store client are forked with it.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["leptonflow.registry.manual_decisions", "tests.small_packages"])


@dataclass(frozen=True)
class Told:
    """What one writer was told in one round: its record's number where it won, else an error and its message."""

    who: str
    why: str
    against: int  # the head that it had read before
    what: str  # won, nothing, or the name of an error
    number: int | None
    message: str


@dataclass(frozen=True)
class Seen:
    """What one reader saw: {record: the champion it makes} as far as it met them, and how often it looked."""

    looks: int
    champions: dict[int, str]
    trouble: str | None


def write(uri: str, environment: dict[str, str], writer: int, rounds: int, together: Any, results: Any) -> None:
    """Each round at the same moment as all others: promote some version, or roll back, with or without a target."""
    os.environ.update(environment)
    store, chance, told = open_store(uri), random.Random(writer), []
    who = f"person-{writer}"
    try:
        for number in range(rounds):
            kind, version = chance.choice(["promote", "promote", "rollback", "back to"]), chance.choice(VERSIONS)
            version = BROKEN if (number + writer) % 10 == 0 else version
            why = f"round {number} of {who}"
            together.wait(PATIENCE)
            against = champion_log.promotions(store, PIPELINE).number
            what, record, message = "nothing", None, ""
            try:
                if kind == "promote":
                    document = manual_decisions.promote(store, PIPELINE, version, why, who, fit_to_run)
                else:
                    target = version if kind == "back to" else None
                    document = manual_decisions.rollback(store, PIPELINE, target, why, who, fit_to_run)
            except LeptonflowError as error:
                what, message = type(error).__name__, str(error)
            else:
                if document["record"] is not None:
                    what, record = "won", document["record"]["number"]
            told.append(Told(who, why, against, what, record, message))
    except BaseException as error:
        together.abort()
        told.append(Told(who, "", 0, "broken", None, repr(error)))
        raise
    finally:
        results.put(("writer", told))


def read(uri: str, environment: dict[str, str], afresh: bool, stop: Any, results: Any) -> None:
    """Look until told to stop: one champion each time, never an earlier one, every byte of its package as recorded."""
    os.environ.update(environment)
    store, champions, looks, newest, trouble = open_store(uri), {}, 0, 0, None
    try:
        while trouble is None and not (looks and stop.is_set()):
            if afresh:  # as a process that has just begun, which verifies the chain from its first record
                commits._verified.clear()
            champion = champion_log.champion(champion_log.promotions(store, PIPELINE))
            if champion is None:
                trouble = "no champion"
            elif champion.number < newest:
                trouble = f"record {champion.number} after record {newest}"
            elif champions.setdefault(champion.number, champion.version) != champion.version:
                trouble = f"record {champion.number} named two champions"
            else:
                packages.verify(store, PIPELINE, champion.version, champion.manifest_sha256)
                newest, looks = champion.number, looks + 1
    except BaseException as error:
        trouble = repr(error)
        raise
    finally:
        results.put(("reader", Seen(looks, champions, trouble)))


def race(uri: str, rounds: int) -> tuple[list[Told], list[Seen]]:
    """All writers and readers to their end; what each was told and saw."""
    together, stop, results = processes.Barrier(WRITERS), processes.Event(), processes.Queue()
    environment = {k: v for k, v in os.environ.items() if k.startswith("AWS_") or k.lower() == "no_proxy"}
    readers = [
        processes.Process(target=read, args=(uri, environment, number == 0, stop, results)) for number in range(READERS)
    ]
    writers = [
        processes.Process(target=write, args=(uri, environment, number, rounds, together, results))
        for number in range(WRITERS)
    ]
    for process in (*readers, *writers):
        process.start()
    told: list[Told] = []
    seen: list[Seen] = []
    try:
        patience = PATIENCE + 15 * rounds
        for waiting in range(WRITERS + READERS, 0, -1):
            if waiting == READERS:
                stop.set()
            kind, found = results.get(timeout=patience)
            if kind == "writer":
                told += found
            else:
                seen.append(found)
                assert stop.is_set(), f"a reader ended before the writers: {found}"
    finally:
        stop.set()
        for process in (*writers, *readers):
            process.join(PATIENCE)
            process.kill()
    return told, seen


def begin(uri: str) -> None:
    """The versions and a first champion; every version was champion once, so that each may be gone back to."""
    store = open_store(uri)
    for version in (*VERSIONS, BROKEN):
        put(store, version)
    # A package whose manifest tells of other bytes than lie there, as after a bad disk.
    key = f"models/{PIPELINE}/{BROKEN}/manifest.json"
    other = store.get(key).replace(sha256(b"weights of broken").encode(), sha256(b"other weights").encode())
    path = store.path(key)
    if path is not None:
        path.chmod(0o644)
        path.write_bytes(other)
    else:
        overwrite(uri, key, other)
    for version in VERSIONS:
        manual_decisions.promote(store, PIPELINE, version, "the beginning", "nobody", fit_to_run)


def overwrite(uri: str, key: str, data: bytes) -> None:
    """Put other bytes where an object lies, as no verb of ours can."""
    import obstore
    from obstore.store import S3Store

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = S3Store(
        bucket, prefix=prefix, endpoint=os.environ["AWS_ENDPOINT_URL"], region=os.environ["AWS_REGION"],
        client_options={"allow_http": True}, virtual_hosted_style_request=False,
    )  # fmt: skip
    obstore.put(client, key, data)


def check_history(uri: str, told: Sequence[Told]) -> list[dict[str, Any]]:
    """One line without gap or fork, each record one winner's own and decided against the one before it."""
    store = open_store(uri)
    commits._verified.clear()
    log = champion_log.promotions(store, PIPELINE)  # verifies numbers, store and chain
    rows = champion_log.history(log)
    prefix = f"promotions/{PIPELINE}/log"
    objects = sorted(key for key, _ in store.list(prefix))
    assert objects == [f"{prefix}/{number:08d}.json" for number in range(1, len(rows) + 1)]
    shas = [sha256(store.get(key)) for key in objects]
    assert [entry.previous for entry in log.entries] == [None, *shas[:-1]]
    assert [row["previous"] for row in rows[1:]] == [row["version"] for row in rows[:-1]]
    assert [row["against"] for row in rows] == list(range(len(rows)))
    assert len({entry.id for entry in log.entries}) == len(rows)
    won = {one.number or 0: one for one in told if one.what == "won"}
    assert len(won) == sum(one.what == "won" for one in told), "no record has two winners"
    assert sorted(won) == list(range(len(VERSIONS) + 1, len(rows) + 1)), "as many records as winners"
    for number, one in won.items():
        row = rows[number - 1]
        assert (row["who"], row["reason"]) == (one.who, one.why)
        assert row["against"] >= one.against and row["at"].endswith("Z")
    return rows


def check_losers(told: Sequence[Told], rows: list[dict[str, Any]]) -> int:
    """Whoever was overtaken was told by whom and by which record: one that is there, newer, somebody else's."""
    losers = [one for one in told if one.what == "LostRace"]
    for one in losers:
        found = OVERTAKEN.search(one.message)
        assert found, one.message
        number = int(found[2])
        assert number > one.against
        assert rows[number - 1]["who"] == found[1] != one.who
    return len(losers)


def check_readers(seen: Sequence[Seen], rows: list[dict[str, Any]]) -> None:
    """What each reader saw at each moment is what the history says of that record, and nothing broken."""
    assert len(seen) == READERS
    for one in seen:
        assert one.trouble is None
        assert one.looks > 0
        assert one.champions == {number: rows[number - 1]["version"] for number in one.champions}
        assert BROKEN not in one.champions.values()


@pytest.mark.slow  # eight processes are in every run: test_promotions.py
def test_twenty_processes_promote_and_roll_back_at_once(store_uri: str) -> None:
    uri = store_uri
    begin(uri)
    with pytest.raises(Damaged, match=r"broken/model\.keras"):
        manual_decisions.promote(open_store(uri), PIPELINE, BROKEN, "x", "nobody", fit_to_run)

    began = time.monotonic()
    told, seen = race(uri, ROUNDS)
    assert not [one for one in told if one.what == "broken"]
    assert len(told) == WRITERS * ROUNDS
    rows = check_history(uri, told)
    losers = check_losers(told, rows)
    check_readers(seen, rows)
    counts = Counter(one.what for one in told)
    assert losers > 0, "they did race"
    assert set(counts) <= {"won", "nothing", "LostRace", "Damaged", "LeptonflowError"}
    for one in told:
        if one.what == "Damaged":
            assert f"{BROKEN}/model.keras" in one.message
    looks = sum(one.looks for one in seen)
    print(f"{uri}: {ROUNDS} rounds in {time.monotonic() - began:.1f} s: {dict(counts)}, {looks} looks")

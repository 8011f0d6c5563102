"""Processes that promote and roll back at once: the history stays one line, and every loser learns who was first."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Sequence
from typing import Any

from leptonflow.registry import champion_log, manual_decisions
from leptonflow.storage.address import open_store
from leptonflow.storage.commit_log import Log
from leptonflow.storage.store import Store
from schemas.errors import LeptonflowError, Overtaken
from schemas.records import InfraResult, Verdict
from tests.small_packages import PIPELINE, fit_to_run, plan, put

PROCESSES = 8
PATIENCE = 60.0

# A server that imports once and forks clean children: no threads of a store client are forked with it.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["leptonflow.registry.manual_decisions", "tests.small_packages"])

Job = tuple[str, str | None]  # what to do, with which version
Told = tuple[str, Any]  # won with a record's number, or an error's name with its message


def verdict(version: str, run_id: str, log: Log) -> Verdict:
    now = champion_log.champion(log)
    return Verdict(
        run_id=run_id, version=version, verdict="promoted", rules=(), sentence="every rule passed",
        champion=now.version if now else None, against=log.number,
    )  # fmt: skip


def act(store: Store, job: Job, who: str, together: Any) -> int | None:
    """Do it, after everybody has read the same head; returns the record's number, None where none was written."""
    waited: list[bool] = []

    def ensure(version: str, manifest_sha256: str) -> InfraResult:
        if not waited:  # only the first attempt is held up: the later ones race as they come
            together.wait(PATIENCE)
            waited.append(True)
        return fit_to_run(version, manifest_sha256)

    kind, version = job
    if kind == "promote":
        record = manual_decisions.promote(store, PIPELINE, str(version), "because", who, ensure)["record"]
    elif kind == "rollback":
        record = manual_decisions.rollback(store, PIPELINE, version, "because", who, ensure)["record"]
    else:
        run_id = kind.removeprefix("run ")
        decided = verdict(str(version), run_id, champion_log.promotions(store, PIPELINE))
        together.wait(PATIENCE)
        _, log = champion_log.settle(store, plan(str(version), run_id), decided, "0" * 64)
        return next((e.number for e in log.entries if e.body["run_id"] == run_id), None)
    return record["number"] if record else None


def work(uri: str, environment: dict[str, str], job: Job, who: str, together: Any, results: Any) -> None:
    os.environ.update(environment)
    told: Told
    try:
        told = ("won", act(open_store(uri), job, who, together))
    except LeptonflowError as error:
        told = (type(error).__name__, str(error))
    except BaseException as error:
        together.abort()
        told = ("broken", repr(error))
        raise
    finally:
        results.put((who, told))


def race(uri: str, jobs: Sequence[Job]) -> dict[str, Told]:
    """Each job in a process of its own; what became of it, by who did it."""
    together, results = processes.Barrier(len(jobs)), processes.Queue()
    environment = {k: v for k, v in os.environ.items() if k.startswith("AWS_") or k.lower() == "no_proxy"}
    started = [
        processes.Process(target=work, args=(uri, environment, job, f"person-{n}", together, results))
        for n, job in enumerate(jobs)
    ]
    for process in started:
        process.start()
    try:
        told = dict(results.get(timeout=2 * PATIENCE) for _ in jobs)
    finally:
        for process in started:
            process.join(PATIENCE)
    assert not [who for who, (what, _) in told.items() if what == "broken"], told
    return told


def one_line(uri: str) -> list[dict[str, Any]]:
    """The history, read afresh and its chain verified, if each record replaced the one before."""
    log = champion_log.promotions(open_store(uri), PIPELINE)
    rows = champion_log.history(log)
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["previous"] for row in rows[1:]] == [row["version"] for row in rows[:-1]]
    assert len({entry.id for entry in log.entries}) == len(rows)
    return rows


def check_losers(told: dict[str, Told], rows: list[dict[str, Any]], before: int) -> None:
    """Whoever was overtaken was told of a record that is there, somebody else's and newer than what it had read."""
    for who, (what, message) in told.items():
        if what not in (Overtaken.__name__, "LostRace"):
            continue
        found = re.search(r"write conflict: (.+?) committed record (\d+)", message)
        assert found, message
        number = int(found[2])
        assert number > before
        assert rows[number - 1]["who"] == found[1] != who


def test_of_eight_runs_that_weighed_one_champion_one_promotes(store_uri: str) -> None:
    told = race(store_uri, [(f"run r{n}", f"v{n}") for n in range(PROCESSES)])
    rows = one_line(store_uri)
    assert len(rows) == 1
    assert sorted(what for what, _ in told.values()) == ["LostRace"] * (PROCESSES - 1) + ["won"]
    check_losers(told, rows, 0)


def test_eight_processes_of_one_run_promote_once(store_uri: str) -> None:
    told = race(store_uri, [("run r", "v")] * PROCESSES)
    assert [row["run_id"] for row in one_line(store_uri)] == ["r"]
    assert set(told.values()) == {("won", 1)}


def test_eight_people_promote_and_roll_back_at_once(store_uri: str) -> None:
    store = open_store(store_uri)
    for version in "abc":
        decided = verdict(version, f"run-{version}", champion_log.promotions(store, PIPELINE))
        champion_log.settle(store, plan(version), decided, put(store, version))
    new = [f"p{n}" for n in range(4)]
    for version in new:
        put(store, version)
    told = race(store_uri, [*(("promote", v) for v in new), *[("rollback", None)] * 2, *[("rollback", "a")] * 2])

    rows = one_line(store_uri)
    won = {who: number for who, (what, number) in told.items() if what == "won"}
    assert {who: rows[number - 1]["who"] for who, number in won.items()} == {who: who for who in won}
    assert sorted(won.values()) == list(range(4, len(rows) + 1)), "as many records as winners, each one's own"
    assert len(won) >= manual_decisions.ATTEMPTS, "each round of attempts has a winner"
    check_losers(told, rows, 3)
    # Of two who meant to take down c, at most one took something down; the other was told.
    taken = [row for row in rows[3:] if row["kind"] == "rollback" and row["who"] in ("person-4", "person-5")]
    assert [(row["previous"], row["version"]) for row in taken] in ([], [("c", "b")])
    others = {what for what, _ in told.values()} - {"won", "LostRace"}
    assert others <= {"LeptonflowError"}, "a was the champion already when its second rollback came"


def test_the_champion_is_the_same_for_everybody(store_uri: str) -> None:
    """A reader that was there before, one that comes after, and the winner agree on the head."""
    store = open_store(store_uri)
    put(store, "a")
    champion_log.settle(store, plan("a"), verdict("a", "run-a", champion_log.promotions(store, PIPELINE)), "0" * 64)
    before = champion_log.champion(champion_log.promotions(store, PIPELINE))
    put(store, "b")
    told = race(store_uri, [("promote", "b")])
    after = champion_log.champion(champion_log.promotions(store, PIPELINE))
    assert before is not None
    assert after is not None
    assert (before.version, after.version, after.number) == ("a", "b", told["person-0"][1])

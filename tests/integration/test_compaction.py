"""Compaction on every kind of store: the rows stay what they were, whoever is killed, races or reads meanwhile."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import threading
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from leptonflow.core import store_keys
from leptonflow.core.hashing import sha256
from leptonflow.runs import recording
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import compaction, queries, table_files, table_sources
from schemas.errors import Damaged
from schemas.records import QuarantineRef
from schemas.tables import COLUMNS
from tests.conftest import EVERY_STORE, fresh_uri
from tests.run_examples import CONTRACT, make, outcome
from tests.unit.test_tables import Killed, Mortal, everything

FILES = 6
processes = multiprocessing.get_context("spawn")


# A folder is in every run: compaction asks of a store what tests/contract holds on all.
SLOW = {kind: pytest.param(kind, marks=pytest.mark.slow) for kind in EVERY_STORE}


@pytest.fixture(params=["directory", SLOW["memory"], SLOW["seaweedfs"], SLOW["minio"]])
def store(request: pytest.FixtureRequest) -> Store:
    return open_store(fresh_uri(request.param, request))


@pytest.fixture(params=["directory", SLOW["seaweedfs"], SLOW["minio"]])
def store_uri(request: pytest.FixtureRequest) -> str:
    return fresh_uri(request.param, request)


@pytest.fixture
def directory(tmp_path: Any) -> Store:
    return open_store((tmp_path / "store").as_uri())


def fill(store: Store, count: int = FILES, start: int = 0, *tables: str) -> None:
    """`count` small files of each table that has files, or of these tables, for two pipelines."""
    for number in range(start, start + count):
        pipeline = ("digits", "cats")[number % 2]
        for table in tables or table_sources.with_files():
            if table == "quarantine":
                _quarantine(store, pipeline, f"batch-{number}")
                continue
            names = set(COLUMNS[table]) & {"run_id", "version", "batch"}
            texts = dict.fromkeys(names, f"{number:012x}")
            rows = [{"pipeline": pipeline, **texts}] * (number % 3)  # a file may be empty, and rows alike
            table_files.write(
                store, [(store_keys.table_key(table, pipeline, f"{number:012x}"), table_files.arrow(table, rows))]
            )


def _quarantine(store: Store, pipeline: str, batch: str) -> None:
    rows = [{"pipeline": pipeline, "batch": batch, "contract": CONTRACT, "source": f"{n}.png"} for n in range(2)]
    data = table_files.encode(table_files.arrow("quarantine", rows))
    part = QuarantineRef(key=f"quarantine/{pipeline}/{batch}/{sha256(data)}.parquet", sha256=sha256(data), rows=2)
    store.create(part.key, data)
    body = {"outcome": outcome(pipeline, batch, quarantine=part).model_dump(mode="json")}
    prefix = f"snapshots/{pipeline}/log"
    commit_log.commit(store, commit_log.read(store, prefix), id=batch, kind="batch", body=body, who="t", why="t")


def content(store: Store, *tables: str) -> dict[str, Counter[tuple[Any, ...]]]:
    """Every row of every table, or of these, and how often it is there."""
    found = {table: queries.query(store, f"FROM {table}").to_pylist() for table in tables or COLUMNS}
    return {table: Counter(tuple(row.values()) for row in rows) for table, rows in found.items()}


def compact_all(store: Store, most: int = 2) -> list[bool]:
    return [compaction.compact(store, table, most) for table in table_sources.with_files()]


@pytest.mark.slow
def test_the_rows_of_every_table_are_the_same_after(store: Store) -> None:
    fill(store)
    before, objects = content(store), set(everything(store))
    without = ("promotions", "discards", "corrections", "trials", "approvals", "served", "shadow", "drift")
    assert all(sum(rows.values()) for table, rows in before.items() if table not in without)
    assert all(compact_all(store))
    assert content(store) == before
    assert objects < set(everything(store)), "nothing is deleted"
    assert all(len(table_sources.files(store, table)) == 1 for table in table_sources.with_files())
    assert not any(compact_all(store)), "there is nothing left to do"


@pytest.mark.slow
def test_what_is_written_afterwards_is_read_too_and_compacted_with_what_was(store: Store) -> None:
    fill(store)
    compact_all(store)
    fill(store, start=FILES)
    after = content(store)
    assert {t: sum(n.values()) for t, n in after.items() if t == "runs"} == {"runs": sum(n % 3 for n in range(12))}
    assert all(len(table_sources.files(store, table)) == 1 + FILES for table in table_sources.with_files())
    assert all(compact_all(store))
    assert content(store) == after
    assert all(len(table_sources.files(store, table)) == 1 for table in table_sources.with_files())
    assert commit_log.read(store, store_keys.compaction_log("runs")).number == 2


def test_a_store_that_lost_its_compactions_has_lost_no_row(directory: Store) -> None:
    tables = ("runs", "quarantine", "folds")
    fill(directory, FILES, 0, *tables)
    before = content(directory, *tables)
    assert sum(compact_all(directory)) == len(tables)
    lost = directory.path("compactions")
    assert lost is not None
    shutil.rmtree(lost)
    assert content(directory, *tables) == before


@pytest.mark.parametrize("writes", [0, 1])
def test_a_kill_leaves_the_rows_and_is_made_good_by_the_next(store: Store, writes: int) -> None:
    """Before the data and between data and record: what was written belongs to no record, and is adopted."""
    fill(store, FILES, 0, "runs")
    before = content(store, "runs")
    with pytest.raises(Killed):
        compaction.compact(Mortal(store, writes), "runs", 2)
    left = [key for key, _ in store.list("compactions")]
    assert len(left) == writes and content(store, "runs") == before
    assert compaction.compact(store, "runs", 2)
    now = [key for key, _ in store.list("compactions")]
    assert set(left) < set(now) and len(now) == 2, "the same files give the same bytes under the same key"
    assert content(store, "runs") == before


class Late:
    """A store on which somebody else compacts, and a run writes, just before our record is created."""

    def __init__(self, store: Store) -> None:
        self._store, self.uri, self.done = store, store.uri, False

    def create(self, key: str, data: bytes) -> None:
        if key.endswith(".json") and not self.done:
            self.done = True
            fill(self._store, 1, FILES, "folds")
            assert compaction.compact(self._store, "folds", 2)
        self._store.create(key, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_one_that_was_overtaken_changes_nothing(store: Store) -> None:
    fill(store, FILES, 0, "folds")
    late = Late(store)
    assert not compaction.compact(late, "folds", 2)
    assert late.done
    (entry,) = commit_log.read(store, store_keys.compaction_log("folds")).entries
    (made,) = entry.body["made"]
    assert len(made["replaces"]) == FILES + 1
    assert sum(content(store, "folds")["folds"].values()) == sum(n % 3 for n in range(FILES + 1))


def _compact(uri: str, together: Any, told: Any) -> None:
    store = open_store(uri)
    together.wait(60)
    told.put(sum(compact_all(store)))


def test_processes_that_compact_at_once_and_a_reader_beside_them(store_uri: str) -> None:
    """Whoever wins, each row is there once, at every moment."""
    store = open_store(store_uri)
    fill(store)
    before = content(store, "runs")["runs"]
    together, told = processes.Barrier(4), processes.Queue()
    workers = [processes.Process(target=_compact, args=(store_uri, together, told)) for _ in range(3)]
    for worker in workers:
        worker.start()
    together.wait(60)
    looks = 0
    while any(worker.is_alive() for worker in workers) or not looks:
        found = queries.query(open_store(store_uri), "FROM runs").to_pylist()
        assert Counter(tuple(row.values()) for row in found) == before
        looks += 1
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sum(told.get(timeout=10) for _ in workers) >= len(table_sources.with_files())
    assert all(commit_log.read(store, store_keys.compaction_log(t)).number == 1 for t in table_sources.with_files())
    assert content(store, "runs")["runs"] == before


# --- what goes in --------------------------------------------------------------------------------


def test_a_column_and_a_type_of_another_release_are_kept(directory: Store) -> None:
    old = pa.table({"pipeline": ["p"], "run_id": ["old"], "attempt": pa.array([7], pa.int16()), "mood": ["good"]})
    new = table_files.arrow("runs", [{"pipeline": "p", "run_id": "new", "attempt": 2**40}])
    for name, table in (("old", old), ("new", new)):
        directory.create(store_keys.table_key("runs", "p", name), table_files.encode(table))
    assert compaction.compact(directory, "runs", 1)
    (key,) = table_sources.files(directory, "runs")
    written = table_files.decode(directory.get(key), key)
    assert sorted(written["attempt"].to_pylist()) == [7, 2**40]
    assert sorted(written["mood"].to_pylist(), key=str) == [None, "good"]


def test_a_large_file_stays_and_a_large_compaction_is_not_written_again(
    directory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(directory, 8)
    sizes = sorted(source.bytes for source in table_sources.sources(directory, "runs", commit_log.Log("x", ())).loose)
    monkeypatch.setattr(compaction, "LARGE", sizes[-1])
    assert compaction.compact(directory, "runs", 1)
    left = table_sources.sources(directory, "runs", commit_log.read(directory, store_keys.compaction_log("runs")))
    assert left.loose and all(source.bytes >= sizes[-1] for source in left.loose)
    monkeypatch.setattr(compaction, "LARGE", 2**20)
    monkeypatch.setattr(compaction, "MOST_AT_ONCE", 1)  # every file is a group of its own
    before = content(directory, "runs")["runs"]
    assert compaction.compact(directory, "runs", 0)
    assert content(directory, "runs")["runs"] == before
    after = table_sources.sources(directory, "runs", commit_log.read(directory, store_keys.compaction_log("runs")))
    assert not after.loose and set(left.compacted) < set(after.compacted)


def test_files_that_do_not_fit_into_one_are_not_written_again_and_again(
    directory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table_files.arrow("folds", [{"pipeline": "p", "version": "v", "metric": "accuracy", "value": 0.5}] * 50)
    monkeypatch.setattr(compaction, "MOST_AT_ONCE", 8 * len(table_files.encode(rows)) + 100)
    for number in range(40):
        table_files.write(directory, [(store_keys.table_key("folds", "p", f"{number:04}"), rows)])
        compaction.compact(directory, "folds", 7)
    entries = commit_log.read(directory, store_keys.compaction_log("folds")).entries
    assert [sum(len(made["replaces"]) for made in entry.body["made"]) for entry in entries] == [8] * 5
    assert queries.query(directory, "FROM folds").num_rows == 2000


def test_the_files_grow_geometrically(directory: Store) -> None:
    """Two hundred times one more file: a handful of files to read, and no row is written again and again."""
    rows = table_files.arrow("folds", [{"pipeline": "p", "version": "v", "metric": "accuracy", "value": 0.5}] * 50)
    written = 0
    for number in range(200):
        table_files.write(directory, [(store_keys.table_key("folds", "p", f"{number:04}"), rows)])
        compaction.compact(directory, "folds", 7)
    for entry in commit_log.read(directory, store_keys.compaction_log("folds")).entries:
        written += sum(len(made["replaces"]) for made in entry.body["made"])
    found = table_sources.files(directory, "folds")
    assert len(found) < 16 and len(found) == len(set(found))
    assert written < 200 * 8, "a row is written again a few times, not once for each compaction after it"
    assert queries.query(directory, "FROM folds").num_rows == 10_000


# --- after a run ---------------------------------------------------------------------------------


def test_a_run_compacts_what_has_grown_and_nothing_else(directory: Store) -> None:
    fill(directory, compaction.MOST_LOOSE)
    run = make(directory)
    recording.record(directory, run.config, run.plan, run.results())
    made = {key.split("/")[1] for key, _ in directory.list("compactions")}
    # `outputs` has rows only where something else than classes is predicted; a run adds no labels.
    assert made == set(table_sources.with_files()) - {"batches", "validations", "quarantine", "outputs", "labels"}
    assert len(table_sources.files(directory, "runs")) == 1
    found = queries.query(directory, f"SELECT verdict FROM runs WHERE run_id = '{run.verdict.run_id}'").to_pylist()
    assert found == [{"verdict": "promoted"}]


def test_a_compaction_that_fails_is_a_warning_and_the_run_is_whole(
    directory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fill(directory, compaction.MOST_LOOSE)
    broken = store_keys.table_key("runs", "digits", "zz")
    directory.create(broken, b"garbage, and long enough to be opened")
    outcome = store_keys.outcome_key("digits", "first", "c" * 64)
    directory.create(outcome, b"garbage")  # which the rows of `quarantine` are found by
    run = make(directory)
    with caplog.at_level(logging.WARNING):
        document = recording.record(directory, run.config, run.plan, run.results())
    assert document["verdict"] == "promoted"
    other, warning = caplog.messages
    assert outcome in other and other.startswith("the table quarantine was not compacted")
    assert broken in warning and warning.startswith("the table runs was not compacted")
    assert len(table_sources.files(directory, "folds")) == 1, "the other tables are compacted"


def test_bytes_that_are_not_what_their_name_says_are_named_and_not_recorded(directory: Store) -> None:
    fill(directory)
    with pytest.raises(Killed):
        compaction.compact(Mortal(directory, 1), "runs", 2)
    ((key, _),) = directory.list("compactions")
    path = directory.path(key)
    assert path is not None
    path.write_bytes(b"something else")
    with pytest.raises(Damaged, match="not what was recorded"):
        compaction.compact(directory, "runs", 2)
    assert commit_log.read(directory, store_keys.compaction_log("runs")).number == 0


def test_a_record_of_another_release_is_an_error_that_says_so(directory: Store) -> None:
    fill(directory)
    prefix = store_keys.compaction_log("runs")
    commit_log.commit(
        directory, commit_log.read(directory, prefix), id="x", kind="compaction", body={"new": 1}, who="t", why="t"
    )
    for ask in (lambda: queries.query(directory, "FROM runs"), lambda: compaction.compact(directory, "runs", 2)):
        with pytest.raises(Damaged, match="this leptonflow can read"):
            ask()
    assert queries.query(directory, "FROM folds").num_rows


def test_threads_that_compact_and_write_at_once(directory: Store) -> None:
    fill(directory)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            fill(directory, 6, start=FILES) if number == 1 else compact_all(directory)
        except BaseException as error:  # noqa: BLE001  (told below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    compact_all(directory, 0)
    assert not failures
    assert sum(content(directory, "runs")["runs"].values()) == sum(number % 3 for number in range(2 * FILES))

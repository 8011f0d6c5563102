"""SQL over the tables on every kind of store: what answers, what is refused, and that no secret can be read."""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from leptonflow.core import store_keys
from leptonflow.core.hashing import sha256
from leptonflow.data.dataset import batch_outcomes
from leptonflow.data.ingest import discards
from leptonflow.runs import recording
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import formats, queries, table_files
from leptonflow.tables.allowance import Allowance
from leptonflow.tables.views import VIEWS
from leptonflow.tuning import study_records
from schemas.errors import Damaged, LeptonflowError, UsageError
from schemas.records import QuarantineRef
from schemas.tables import COLUMNS, schema
from schemas.trials import Study, Trial
from tests.conftest import EVERY_STORE, fresh_uri
from tests.run_examples import CONTRACT, make, outcome
from tests.servers import SECRET_KEY, Server

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
# Rows of these come from what this store has not seen; each has tests of its own.
ELSEWHERE = ("corrections", "outputs", "approvals", "served", "shadow", "labels", "drift")
QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def ask(store: Store, sql: str) -> list[dict[str, Any]]:
    return formats.to_json(queries.query(store, sql))


def quarantined(store: Store, pipeline: str, batch: str, rows: int = 2) -> QuarantineRef:
    same = {"pipeline": pipeline, "batch": batch, "contract": CONTRACT, "rule": "unreadable", "reason": "it is empty"}
    data = table_files.encode(table_files.arrow("quarantine", [{**same, "source": f"{n}.png"} for n in range(rows)]))
    key = f"quarantine/{pipeline}/{batch}/{sha256(data)}.parquet"
    store.create(key, data)
    return QuarantineRef(key=key, sha256=sha256(data), rows=rows)


def commit(store: Store, prefix: str, kind: str, body: dict[str, Any]) -> None:
    history = commit_log.read(store, prefix)
    commit_log.commit(store, history, id=f"{kind} {history.number}", kind=kind, body=body, who="someone", why="because")


def fill(store: Store, pipeline: str = "digits") -> None:
    """One accepted batch, one that was refused and discarded, two runs, one promotion, a study of two trials."""
    counts = {"arrived": 100, "accepted": 90, "quarantined": 7, "known": 3, "ignored": 1}
    done = outcome(pipeline, "first", quarantine=quarantined(store, pipeline, "first"))
    body = {"batch": "first", "snapshot": done.snapshot, "examples": 90, "counts": counts}
    commit(store, f"snapshots/{pipeline}/log", "batch", {**body, "outcome": done.model_dump(mode="json")})
    refused = outcome(pipeline, "second", verdict="refused", quarantine=quarantined(store, pipeline, "second", 97))
    store.create(f"batches/{pipeline}/second/{CONTRACT}.json", refused.model_dump_json().encode())
    batch_outcomes.repair_batches(store, pipeline)
    discards.discard(store, pipeline, "second", "blurred", "someone")
    for version, run_id, promoted in (("a1" * 6, "b2" * 6, True), ("c3" * 6, "d4" * 6, False)):
        run = make(store, pipeline=pipeline, version=version, run_id=run_id, promoted=promoted, seed=len(run_id))
        recording.record(store, run.config, run.plan, run.results())
    promotion = {"version": "a1" * 6, "previous": None, "run_id": "b2" * 6, "manifest_sha256": "f" * 64,
                 "snapshot": "5aa5" * 3, "snapshot_number": 1}  # fmt: skip
    commit(store, f"promotions/{pipeline}/log", "promotion", promotion)
    study = Study(
        pipeline=pipeline, study="e5" * 6, version="a1" * 6, snapshot="5aa5" * 3, metric="accuracy", folds=3,
        higher_is_better=True, ranges={"epochs": [1, 9]}, created_at="2026-11-24T10:00:00.000000Z",
    )  # fmt: skip
    store.create(f"studies/{pipeline}/{study.study}/study.json", study.model_dump_json().encode())
    states: list[Any] = ["complete", "failed"]
    for number, state in enumerate(states, start=1):
        trial = Trial(
            pipeline=pipeline, study=study.study, number=number, state=state, parameters={"epochs": number},
            version="a1" * 6, values=(0.9, 0.8), value=0.85, std=0.07, sentence=None, seconds=2.5,
            started_at="2026-11-24T10:00:00.000000Z", finished_at="2026-11-24T10:00:02.500000Z",
        )  # fmt: skip
        assert study_records.record(store, trial)


@functools.cache
def original() -> Store:
    """What the stores that all tests share are copies of."""
    store = open_store("memory://analytics")
    fill(store)
    return store


_FILLED: dict[str, str] = {}


def filled_once(kind: str, request: pytest.FixtureRequest) -> Store:
    """A store of this kind that all tests which only ask share; the environment set so that it can be reached."""
    uri = _FILLED.get(kind) or fresh_uri(kind, request)
    if kind in _FILLED:
        fresh_uri(kind, request)  # sets the environment of this test
        return open_store(uri)
    if kind == "directory":  # its folder named as people name folders
        uri = (request.getfixturevalue("tmp_path") / "it's [a] store*? 100%").as_uri()
    store = open_store(uri)
    store.create_many((key, original().get(key)) for key in original().keys(""))
    _FILLED[kind] = uri
    return store


@pytest.fixture(params=EVERY_STORE)
def filled(request: pytest.FixtureRequest) -> Store:
    return filled_once(request.param, request)


@pytest.fixture
def shared(request: pytest.FixtureRequest) -> Store:
    return filled_once("directory", request)


@pytest.fixture(params=["seaweedfs", "minio"])
def bucket(request: pytest.FixtureRequest) -> Store:
    return filled_once(request.param, request)


@pytest.fixture
def directory(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


# --- what answers --------------------------------------------------------------------------------


def test_every_table_answers_with_its_schema(shared: Store) -> None:
    for table in COLUMNS:
        assert queries.query(shared, f"FROM {table}").schema.equals(schema(table)), table


def counted(store: Store) -> dict[str, int]:
    """The rows of every table, asked at once: each query opens a database of its own."""
    every = " UNION ALL ".join(f"SELECT '{table}' AS name, count(*) AS n FROM {table}" for table in COLUMNS)
    return {row["name"]: row["n"] for row in ask(store, every)}


def test_every_table_has_its_rows_on_every_store(filled: Store) -> None:
    assert {table for table, rows in counted(filled).items() if rows} == set(COLUMNS) - set(ELSEWHERE)


def test_the_tables_join_and_agree(filled: Store) -> None:
    found = ask(
        filled,
        "SELECT r.run_id, r.verdict, count(DISTINCT v.rule) AS rules, max(m.bytes) AS bytes, max(p.number) AS won "
        "FROM runs r JOIN verdicts v USING (pipeline, run_id, version) JOIN models m USING (pipeline, version) "
        "LEFT JOIN promotions p USING (pipeline, version) GROUP BY ALL ORDER BY ALL",
    )
    assert found == [
        {"run_id": "b2" * 6, "verdict": "promoted", "rules": 3, "bytes": 11, "won": 1},
        {"run_id": "d4" * 6, "verdict": "refused", "rules": 3, "bytes": 11, "won": None},
    ]
    cv = "SELECT avg(value) AS mean FROM folds WHERE metric = 'accuracy' AND version = repeat('a1', 6)"
    recorded = recording.finished(filled, "digits", "b2" * 6)
    assert recorded and ask(filled, cv)[0]["mean"] == pytest.approx(recorded["cv"]["accuracy"]["mean"])


def test_the_quarantine_is_that_of_the_recorded_outcomes(filled: Store) -> None:
    """A part that a lost race left behind belongs to no outcome, and its rows are not told."""
    quarantined(filled, "digits", "first", rows=5)
    assert ask(filled, "SELECT batch, count(*) AS n FROM quarantine GROUP BY batch ORDER BY batch") == [
        {"batch": "first", "n": 2},
        {"batch": "second", "n": 97},
    ]


def test_min_and_max_of_pipeline_over_one_file(filled: Store) -> None:
    """DuckDB 1.5 crashed on this where pipeline is only a folder's name (hive partitioning)."""
    assert ask(filled, "SELECT min(pipeline) AS a, max(pipeline) AS z FROM batches WHERE batch = 'first'") == [
        {"a": "digits", "z": "digits"}
    ]


@pytest.mark.parametrize("sql", QUERIES, ids=lambda sql: sql.split()[0] + sha256(sql.encode())[:4])
def test_the_queries_of_the_page_run(shared: Store, sql: str) -> None:
    """docs/tables.md: on a filled store every query answers, and all but the one for what adds up not have rows."""
    rows = ask(shared, sql)
    assert bool(rows) == ("<> arrived" not in sql)


def test_the_page_lists_every_column() -> None:
    listed = re.findall(r"^\| `(\w+)` \| .*? \| `([^`]*)` \|$", PAGE, re.MULTILINE)
    assert {name: columns.split(", ") for name, columns in listed} == {n: list(kinds) for n, kinds in COLUMNS.items()}
    views = re.findall(r"^\| `(\w+)` \| `([^`]*)`: .* \|$", PAGE, re.MULTILINE)
    assert {name: tuple(columns.split(", ")) for name, columns in views} == {n: v.columns for n, v in VIEWS.items()}


def test_every_view_answers_with_its_columns_and_says_which_tables_it_reads(filled: Store) -> None:
    for name, view in VIEWS.items():
        answer = queries.query(filled, f"FROM {name}")
        assert tuple(answer.column_names) == view.columns and answer.num_rows, name


def test_an_empty_store_has_every_table_typed(directory: Store) -> None:
    for table in COLUMNS:
        assert queries.query(directory, f"FROM {table}").schema.equals(schema(table)), table


def test_an_empty_store_has_every_table_empty(store: Store) -> None:
    assert counted(store) == dict.fromkeys(COLUMNS, 0)
    assert [row["name"] for row in ask(store, "SHOW TABLES")] == sorted([*COLUMNS, *VIEWS])


def test_a_file_of_an_older_or_a_newer_release_fits(directory: Store) -> None:
    """A column that an old file lacks is null, one that a new file adds is not seen, a narrower type is cast."""
    import pyarrow as pa

    whole = table_files.arrow("runs", [{"pipeline": "p", "run_id": "new", "attempt": 1}])
    directory.create(store_keys.table_key("runs", "p", "new"), table_files.encode(whole))
    old = pa.table({"pipeline": ["p"], "run_id": ["old"], "attempt": pa.array([7], pa.int16()), "mood": ["good"]})
    directory.create(store_keys.table_key("runs", "p", "old"), table_files.encode(old))
    assert queries.query(directory, "FROM runs").schema.equals(schema("runs"))
    assert ask(directory, "SELECT run_id, attempt, sentence FROM runs ORDER BY run_id") == [
        {"run_id": "new", "attempt": 1, "sentence": None},
        {"run_id": "old", "attempt": 7, "sentence": None},
    ]


def test_a_table_that_only_a_composed_name_mentions_is_not_empty(filled: Store) -> None:
    """Views get their files where the text mentions them; query_table() can hide a mention."""
    assert ask(filled, "SELECT count(*) AS n FROM query_table('ru' || 'ns')") == [{"n": 2}]
    assert ask(filled, 'SELECT count(*) AS n FROM "RUNS"') == [{"n": 2}]


def test_two_columns_of_one_name_are_both_told(directory: Store) -> None:
    assert ask(directory, "SELECT 1 AS a, 2 AS a, 3 AS a_1") == [{"a": 1, "a_1": 2, "a_1_1": 3}]


@pytest.mark.parametrize(
    "sql", ["SELECT 1;", "/* c */ -- d\n FROM runs -- e", "EXPLAIN FROM runs", "EXPLAIN ANALYZE FROM runs",
            "EXPLAIN (ANALYZE, FORMAT json) FROM runs", "EXPLAIN (SELECT 1)", "SUMMARIZE folds", "DESCRIBE runs",
            "VALUES (1)", "WITH a AS (FROM runs) FROM a", "SHOW TABLES", "TABLE runs"],
)  # fmt: skip
def test_what_reads_is_answered(shared: Store, sql: str) -> None:
    assert queries.query(shared, sql).num_rows


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql", ["", "-- nothing", "SELECT 1; SELECT 2", "COPY (SELECT 1) TO 'x.csv'", "COPY runs TO 'x.parquet'",
            "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'", "EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'x.csv'",
            "EXPLAIN /* c */ ANALYZE COPY (SELECT 1) TO 'x.csv'", "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
            "CREATE TABLE t (i INT)", "INSERT INTO runs VALUES (1)", "DELETE FROM runs", "DROP VIEW runs",
            "ATTACH 'x.db'", "INSTALL httpfs", "LOAD httpfs", "SET threads = 1", "RESET threads", "PRAGMA version",
            "/* c */ PRAGMA table_info('runs')", "CALL pragma_version()", "USE memory", "EXPORT DATABASE 'x'",
            "IMPORT DATABASE 'x'", "PRAGMA import_database('x')", "PRAGMA show_tables", "(CALL pragma_version())",
            "PREPARE p AS SELECT 1", "BEGIN", "CHECKPOINT", "PIVOT runs ON verdict USING count(*)", "nonsense",
            "SELECT $1", "SELECT * FROM runs WHERE"],
)  # fmt: skip
def test_what_does_not_only_read_is_a_usage_error(
    shared: Store, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, sql: str
) -> None:
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    with pytest.raises(UsageError) as caught:
        queries.query(shared, sql)
    assert caught.value.exit_status == 2 and "\n" not in caught.value.line()
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "source", ["read_text('{other}')", "read_csv('{other}')", "'{other}'", "read_blob('/proc/self/environ')",
               "glob('/etc/*')", "read_text('{store}/store.json')", "read_parquet('{store}/fits/*/*/*/oof.parquet')",
               "read_text('http://127.0.0.1:9/x')", "read_parquet('s3://bucket/x.parquet')", "sniff_csv('{other}')",
               "read_text('{store}/tables/runs/../../store.json')", "duckdb_secrets(redact = false)",
               "parquet_metadata('{store}/fits/digits/a/fold-0/oof.parquet')", '"{other}"', "which_secret('x', 's3')",
               "query('FROM runs')", "enable_logging()", "checkpoint()", "READ_CSV('{other}')",
               "main.read_csv('{other}')", "(SELECT * FROM (SELECT 1) WHERE EXISTS (FROM read_text('{other}')))",
               "arrow_scan(1, 2, 3)", "json_execute_serialized_sql('')", "query_table('{other}')",
               "read_blob('/dev/zero')"],
)  # fmt: skip
def test_nothing_but_the_tables_can_be_read(tmp_path: Path, shared: Store, source: str) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\nthe secret,2\n")
    folder = str(shared.path("store.json").parent).replace("'", "''")  # type: ignore[union-attr]
    # `runs` beside it: the query has files that it may read
    sql = f"SELECT * FROM {source.format(other=other, store=folder)}, runs"
    with pytest.raises(UsageError) as caught:
        queries.query(shared, sql)
    assert "the secret" not in caught.value.line()


def test_a_pipe_is_never_opened(tmp_path: Path, shared: Store) -> None:
    """DuckDB's parser itself opens the files of IMPORT DATABASE; a pipe that nobody writes to would never answer."""
    (tmp_path / "db").mkdir()
    for name in ("db/schema.sql", "db/load.sql", "pipe.csv"):
        os.mkfifo(tmp_path / name)
    folder = str(tmp_path).replace("'", "''")
    for sql in (f"IMPORT DATABASE '{folder}/db'", f"PRAGMA import_database('{folder}/db')",
                f"FROM '{folder}/pipe.csv'", f"FROM read_csv('{folder}/pipe.csv')",
                f"EXPLAIN ANALYZE FROM read_csv('{folder}/pipe.csv')"):  # fmt: skip
        with pytest.raises(UsageError):
            queries.query(shared, sql, Allowance(20, 10**9))


FOR_EVER = {
    "a cross join": "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c",
    "a recursion": "WITH RECURSIVE t AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM t) SELECT max(i) FROM t",
    "one value, deaf to an interrupt": "SELECT list_reduce(range(2200000), lambda a, b: a + b)",
}
LARGE = {
    "rows": "FROM range(1000000000000)",
    "one value": "SELECT repeat('x', 300000000)",
    "a sort": "SELECT repeat('x', 1000000) || range AS a FROM range(100000) ORDER BY 1",
    "a list": "SELECT list(range) FROM range(1000000000)",
    "groups": "SELECT a.range * 100000 + b.range AS i, count(*) FROM range(100000) a, range(100000) b GROUP BY 1",
}


@pytest.mark.parametrize("sql", FOR_EVER.values(), ids=FOR_EVER)
def test_a_query_ends_in_its_time(shared: Store, sql: str) -> None:
    began = time.monotonic()
    with pytest.raises(LeptonflowError, match="LEPTONFLOW_QUERY_SECONDS"):
        queries.query(shared, sql, Allowance(0.2, 2 * 10**9))
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("sql", LARGE.values(), ids=LARGE)
def test_a_query_takes_no_more_memory_than_it_may(shared: Store, sql: str) -> None:
    with pytest.raises(LeptonflowError, match="LEPTONFLOW_QUERY_MEMORY"):
        queries.query(shared, sql, Allowance(60, 100 * 10**6))


def test_a_query_sees_no_variable_of_ours(directory: Store) -> None:
    secret = pq.ParquetFile  # noqa: F841  (a name in this frame)
    with pytest.raises(UsageError, match="secret"):
        queries.query(directory, "FROM secret")


def test_an_unknown_table_names_those_there_are(directory: Store) -> None:
    with pytest.raises(UsageError) as caught:
        queries.query(directory, "SELECT * FROM run")
    line = caught.value.line()
    assert "run does not exist" in line and all(table in line for table in COLUMNS)


def test_an_unknown_column_names_one_that_is_near(directory: Store) -> None:
    with pytest.raises(UsageError, match="verdict"):
        queries.query(directory, "SELECT verdit FROM runs")


def test_the_column_at_is_explained(directory: Store) -> None:
    with pytest.raises(UsageError, match='"at"'):
        queries.query(directory, "SELECT batch FROM batches ORDER BY at")


def test_a_damaged_file_is_named(store: Store) -> None:
    store.create("tables/runs/pipeline=digits/zz.parquet", b"garbage, and long enough to be opened")
    with pytest.raises(Damaged, match=r"tables/runs/pipeline=digits/zz\.parquet cannot be read"):
        queries.query(store, "FROM runs")
    assert not queries.query(store, "FROM models").num_rows


@pytest.mark.parametrize("part", ["a page", "the footer", "the end"])
def test_a_broken_file_is_named_by_its_key(store: Store, part: str) -> None:
    """Whether DuckDB meets it while it opens the files or while it reads their rows."""
    (_, whole), _ = ((key, table_files.encode(rows)) for key, rows in table_files.batch_files(outcome()))
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    start, length = {"a page": (4, 400), "the footer": (footer, 100), "the end": (len(whole) - 8, 8)}[part]
    broken = whole[:start] + bytes(byte ^ 0xFF for byte in whole[start : start + length]) + whole[start + length :]
    store.create("tables/batches/pipeline=digits/fine.parquet", whole)
    store.create("tables/batches/pipeline=digits/zz.parquet", broken)
    with pytest.raises(
        Damaged, match=r"^tables/batches/pipeline=digits/zz\.parquet cannot be read\. Expected: a Parquet"
    ):
        queries.query(store, "SELECT * FROM batches")
    with pytest.raises(UsageError, match=r"nothing does not exist"):
        queries.query(store, "SELECT * FROM nothing")


def test_a_missing_quarantine_part_is_not_an_empty_table(directory: Store) -> None:
    gone = QuarantineRef(key="quarantine/digits/first/abc.parquet", sha256="0" * 64, rows=1)
    body = {"outcome": outcome(quarantine=gone).model_dump(mode="json")}
    commit(directory, "snapshots/digits/log", "batch", body)
    with pytest.raises(Damaged, match=r"abc\.parquet"):
        queries.query(directory, "FROM quarantine")


# --- S3 ------------------------------------------------------------------------------------------


EVERYWHERE = "SELECT * FROM runs, {}"


@pytest.mark.parametrize(
    "source", ["read_text('{uri}/store.json')", "read_parquet('{uri}/fits/digits/a1a1a1a1a1a1/fold-0/oof.parquet')",
               "glob('{uri}/*')", "read_text('{endpoint}/x')", "read_text('s3://another-bucket/x')"],
)  # fmt: skip
def test_nothing_else_of_a_bucket_can_be_read(bucket: Store, source: str) -> None:
    source = source.format(uri=bucket.uri, endpoint=os.environ["AWS_ENDPOINT_URL"])
    with pytest.raises(UsageError, match="nothing else"):
        queries.query(bucket, EVERYWHERE.format(source))


@pytest.mark.parametrize("source", ["duckdb_settings()", "duckdb_secrets()"])
def test_no_secret_can_be_read(bucket: Store, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """httpfs copies AWS_SECRET_ACCESS_KEY into a setting that any query could read, were it left there."""
    told = json.dumps(ask(bucket, EVERYWHERE.format(source.format(uri=bucket.uri))))
    assert SECRET_KEY not in told and len(told) > 100
    assert ask(bucket, "SELECT current_setting('s3_secret_access_key') AS s FROM runs LIMIT 1") == [{"s": ""}]


def test_a_wrong_key_is_an_error_without_the_key(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret-key")
    with pytest.raises(LeptonflowError) as caught:
        queries.query(open_store(bucket.uri), "FROM runs")
    assert "a-wrong-secret-key" not in caught.value.line() and caught.value.exit_status == 1


def test_duckdb_itself_reads_the_bucket(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are read by DuckDB from s3://, not handed to it; and nothing is installed in the home folder."""
    monkeypatch.setenv("HOME", "/nonexistent")
    plan = str(ask(bucket, "EXPLAIN SELECT count(*) FROM folds"))
    assert "READ_PARQUET" in plan
    assert ask(bucket, "SELECT count(*) AS n FROM folds") == [{"n": 30}]


# --- many files ----------------------------------------------------------------------------------


def many(store: Store, count: int) -> None:
    row = {"pipeline": "many", "run_id": "r", "version": "v", "fold": 0, "metric": "accuracy", "value": 0.5}
    table = table_files.arrow("folds", [row] * 25)
    table_files.write(store, ((store_keys.table_key("folds", "many", f"{n:05}"), table) for n in range(count)))


def test_a_thousand_files_answer_quickly(directory: Store) -> None:
    """Measured: 0.2 s. A view that opened files one by one, or all tables' files, would take longer."""
    many(directory, 1000)
    assert seconds(lambda: ask(directory, "SELECT count(*) AS n FROM folds") == [{"n": 25_000}]) < 3
    assert seconds(lambda: ask(directory, "SELECT count(*) AS n FROM runs") == [{"n": 0}]) < 1


@pytest.mark.slow
def test_a_thousand_files_of_a_bucket_answer(s3_server: Server) -> None:
    store = open_store(f"s3://{s3_server.bucket}/many")
    many(store, 1000)
    assert seconds(lambda: ask(store, "SELECT count(*) AS n FROM folds") == [{"n": 25_000}]) < 20


def seconds(true: Callable[[], bool]) -> float:
    """Of a processor: the clock's are also those of whatever else this machine does."""
    started = time.process_time()
    assert true()
    return time.process_time() - started

"""`query`: four formats, SQL that only reads, and tables that join."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.e2e.commands.places import COLUMNS, Place
from tests.e2e.helpers import call, listing, rows, start


def test_query_in_four_formats(third: Place, tmp_path: Path) -> None:
    sql = "select fold, metric, value from folds where metric = 'accuracy' order by version, fold"
    objects = rows(third.store, sql)
    assert len(objects) == 6 and set(objects[0]) == {"fold", "metric", "value"}
    assert json.loads(call("query", sql, "--store", third.store, "--format", "json").out) == objects
    found = list(csv.DictReader(io.StringIO(call("query", sql, "--store", third.store, "--format", "csv").out)))
    assert [float(row["value"]) for row in found] == [row["value"] for row in objects]
    table = call("query", sql, "--store", third.store)
    assert table.out.count("accuracy") == 6 and "6 rows" in table.out
    file = tmp_path / "out.parquet"
    assert call("query", sql, "--store", third.store, "--format", "parquet", "--output", file).status == 0
    assert pq.read_table(file).to_pylist() == objects
    assert call("query", sql, "--store", third.store, "--format", "parquet").status == 2
    csv_file = tmp_path / "out.csv"
    assert call("query", sql, "--store", third.store, "--format", "csv", "--output", csv_file).out == ""
    assert csv_file.read_text().startswith("fold,metric,value")
    assert rows(third.store, "select 1 as a where false") == []
    times = rows(third.store, "select started_at from runs limit 1")[0]["started_at"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*(Z|\+00:00)$", times), times


def test_a_statement_from_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a query.sql"
    file.write_text("select 7 as n\n", encoding="utf-8-sig")
    assert call("query", "--file", file, "--store", tmp_path / "s", "--json").document == [{"n": 7}]
    monkeypatch.setattr("sys.stdin", io.StringIO("-- what is asked\nselect 8 as n;\n"))
    assert call("query", "-", "--store", tmp_path / "s", "--json").document == [{"n": 8}]
    wrong = ([], ["select 1", "--file", file], ["--file", tmp_path], ["--file", tmp_path / "none.sql"],
             ["select 1", "--spreadsheet"], ["select 1", "--format", "csv", "--output", tmp_path])  # fmt: skip
    for arguments in wrong:
        assert call("query", *arguments, "--store", tmp_path / "s").status == 2


def test_what_bounds_a_query_is_set_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SECONDS", "soon"), ("SECONDS", "0"), ("MEMORY", "much"), ("MEMORY", "0GB")):
        with monkeypatch.context() as here:
            here.setenv(f"LEPTONFLOW_QUERY_{name}", value)
            assert call("query", "select 1", "--store", tmp_path / "s").status == 2
    monkeypatch.setenv("LEPTONFLOW_QUERY_SECONDS", "0.3")
    slow = "select count(*) from range(1000000) a, range(1000000) b, range(1000000) c"
    result = call("query", slow, "--store", tmp_path / "s")
    assert result.status == 1 and "within 0.3 s" in result.err


BEGUN = """
from leptonflow.tables import statements
check = statements.check
def noted(*given):
    check(*given)
    open("begun", "w").close()
statements.check = noted
"""


def test_ctrl_c_ends_a_query_within_two_seconds(tmp_path: Path) -> None:
    """Also one that does not hear DuckDB's own interrupt."""
    deaf = "select list_reduce(range(100000000), lambda a, b: a + b)"
    arguments = ("query", deaf, "--store", tmp_path / "s", "--json")
    process = start(*arguments, cwd=tmp_path, prelude=BEGUN)
    while process.poll() is None and not (tmp_path / "begun").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - began < 2


@pytest.mark.parametrize(
    "sql",
    [
        "drop table runs",
        "insert into runs select * from runs",
        "copy runs to 'x.csv'",
        "copy (select 1) to '/tmp/leptonflow-e2e-never.csv'",
        "select 1; select 2",
        "",
        "attach '/tmp/x.db'",
        "install httpfs",
        "set threads = 1",
        "pragma database_list",
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "from read_parquet('/etc/*')",
        "select * from glob('/*')",
        "select * from read_csv('http://127.0.0.1:9/x.csv')",
        "explain analyze create table x as select 1",
        "select getenv('HOME')",
        "selec 1",
        "select nothing from runs",
        "select * from nowhere",
    ],
)
def test_sql_that_does_more_than_read_the_tables(first: Place, sql: str) -> None:
    before = listing(first.store)
    result = call("query", sql, "--store", first.store, "--json")
    assert result.status == 2, result.told()
    assert "root:" not in result.told()
    assert listing(first.store) == before


def test_all_tables_join(third: Place) -> None:
    store = third.store
    for name, columns in COLUMNS.items():
        described = {row["column_name"] for row in rows(store, f"describe {name}")}
        assert described >= {"pipeline", *columns.split()}, name
        assert rows(store, f"select distinct pipeline from {name}") == [{"pipeline": "small"}], name

    def one(sql: str) -> Any:
        found = rows(store, f"select {sql}")
        assert len(found) == 1
        return next(iter(found[0].values()))

    runs = [third.told[name] for name in "ABC"]
    assert one("count(*) from runs") == one("count(distinct run_id) from runs") == 3
    rules = sum(len(run["gate"]) for run in runs)
    assert one("count(*) from runs join verdicts using (pipeline, run_id, version)") == rules >= 3 * 7
    assert one("count(*) from runs join models using (pipeline, run_id, version)") == 3
    assert one("count(*) from models join promotions using (pipeline, version, run_id, manifest_sha256)") == 3
    metrics = len(runs[0]["cv"])
    assert one("count(*) from runs join folds using (pipeline, run_id, version)") == 3 * 2 * metrics
    assert one("count(distinct fold) from epochs") == 2
    fits = "select distinct version, fold, epoch from epochs join runs using (version)"
    assert one(f"count(*) from ({fits})") == 3 * 3 * 2
    for run in runs:
        of = f"from predictions where run_id = '{run['run_id']}' and version = '{run['version']}'"
        assert one(f"count(distinct example_id) {of} and split = 'oof'") == run["examples"]["train"]
        assert one(f"count(*) {of}") == sum(run["examples"].values())
        assert one(f"avg((label = predicted)::int) {of} and split = 'holdout'") == run["holdout"]["accuracy"]
        assert one(f"count(*) from (select example_id {of} group by 1 having count(distinct split) > 1)") == 0
        for fold, value in enumerate(run["cv"]["accuracy"]["folds"]):
            assert one(f"avg((label = predicted)::int) {of} and fold = {fold}") == pytest.approx(value)
            assert one(f"value from folds where run_id = '{run['run_id']}' and fold = {fold} and metric = 'accuracy'"
                       ) == value  # fmt: skip
    assert one("count(*) from batches join snapshots using (pipeline, batch, snapshot)") == 2
    assert one("count(*) from batches join quarantine using (pipeline, batch, contract)") == 1 + 3
    assert one("count(*) from quarantine") == one("sum(quarantined) from batches")
    assert one("count(*) from batches join validations using (pipeline, batch, contract)") == 2 * 8
    assert one("bool_and(arrived = accepted + quarantined + known) from batches") is True
    assert one("count(*) from runs r join snapshots s on r.snapshot = s.snapshot") == 3

"""Rows: their types, their keys, and that a crash and a re-run leave each of them once."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow.core import clock, store_keys
from leptonflow.core.hashing import canonical, sha256
from leptonflow.data.dataset import batch_outcomes
from leptonflow.runs import recording
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import formats, queries, table_files
from schemas.errors import Damaged, UsageError
from schemas.tables import COLUMNS, schema
from tests.misread import WRONG, misread
from tests.run_examples import CONTRACT, PAGE, make, outcome


@pytest.fixture
def memory() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def rows(store: Store, table: str) -> list[dict[str, Any]]:
    found = [pq.read_table(io.BytesIO(store.get(k)), schema=schema(table)) for k, _ in store.list(f"tables/{table}")]
    return [row for one in found for row in one.to_pylist()]


class Killed(BaseException):
    """As a kill: no handler of ours may catch it."""


class Mortal:
    """A store that dies before its n-th object is created."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store, self._left = store, writes
        self.uri = store.uri

    def create(self, key: str, data: bytes) -> None:
        if self._left == 0:
            raise Killed(key)
        self._left -= 1
        self._store.create(key, data)

    def create_many(self, items: Iterable[tuple[str, bytes]]) -> list[str]:
        existing = []
        for key, data in items:
            if self._store.size(key) is None:
                self.create(key, data)
            else:
                existing.append(key)
        return existing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def everything(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key, _ in store.list("")}


# --- rows ----------------------------------------------------------------------------------------


def test_every_table_says_whose_pipeline_a_row_is() -> None:
    """Every table has the column `pipeline`, on which they join."""
    assert all(schema(table).names[0] == "pipeline" and schema(table).field(0).type == pa.string() for table in COLUMNS)


def test_a_row_has_the_declared_types_and_times_are_utc() -> None:
    table = table_files.arrow("batches", [{"pipeline": "p", "arrived": 3, "at": "2026-11-24T12:00:00+02:00"}])
    assert table.schema == schema("batches")
    assert table["at"].to_pylist() == [datetime(2026, 11, 24, 10, tzinfo=UTC)]
    assert table["accepted"].to_pylist() == [None]


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(ValueError, match="no column arived"):
        table_files.arrow("batches", [{"arived": 3}])


def test_an_outcome_gives_one_row_of_batches_and_one_for_each_expectation(memory: Store) -> None:
    table_files.write(memory, table_files.batch_files(outcome()))
    (batch,) = rows(memory, "batches")
    assert (batch["arrived"], batch["accepted"], batch["quarantined"], batch["known"]) == (100, 90, 7, 3)
    found = rows(memory, "validations")
    assert [(v["number"], v["fact"], v["success"], v["kwargs"]) for v in found] == [
        (1, "brightness", True, '{"max_value":254,"min_value":1}'),
        (2, None, True, '{"min_value":1}'),
    ]
    assert next(memory.list("tables/batches"))[0] == f"tables/batches/pipeline=digits/first-{CONTRACT[:12]}.parquet"


def test_what_lies_there_is_adopted(memory: Store) -> None:
    first = table_files.write(memory, table_files.batch_files(outcome()))
    later = outcome().model_copy(update={"at": "2027-01-01T00:00:00Z"})
    assert table_files.write(memory, table_files.batch_files(later)) == first
    assert rows(memory, "batches")[0]["at"].year == 2026


# --- a run ---------------------------------------------------------------------------------------


def test_a_run_leaves_every_number(memory: Store) -> None:
    run = make(memory, champion="0123456789ab")
    document = recording.record(memory, run.config, run.plan, run.results())
    assert list(document) == [
        "run_id", "verdict", "version", "champion", "snapshot", "batches", "examples", "warnings", "cv", "holdout",
        "gate", "report", "seconds", "cost", "sentence",
    ]  # fmt: skip
    assert list(document["gate"][0])[:6] == ["rule", "metric", "value", "bound", "passed", "sentence"]
    assert document["cv"]["accuracy"]["folds"] == [fit.metrics["accuracy"] for fit in run.fits]
    assert document["examples"] == {"train": 1600, "holdout": 400}
    accuracies = [r["value"] for r in rows(memory, "folds") if r["metric"] == "accuracy"]
    assert accuracies == document["cv"]["accuracy"]["folds"]
    told = [(r["rule"], r["passed"]) for r in document["gate"]]
    assert [(r["rule"], r["passed"]) for r in rows(memory, "verdicts")] == told
    epochs = rows(memory, "epochs")
    assert {r["fold"] for r in epochs} == {0, 1, 2, None} and len(epochs) == 3 * 6 * 4 + 6 * 2
    guesses = rows(memory, "predictions")
    assert {(r["split"], r["fold"]) for r in guesses} == {("oof", 0), ("oof", 1), ("oof", 2), ("holdout", None)}
    held = [r for r in guesses if r["split"] == "holdout"]
    right = sum(r["label"] == r["predicted"] for r in held) / len(held)
    assert right == pytest.approx(document["holdout"]["accuracy"])
    (model,) = rows(memory, "models")
    assert model["manifest_sha256"] == run.package.manifest_sha256 and model["bytes"] == run.package.bytes
    (row,) = rows(memory, "runs")
    assert (row["verdict"], row["champion"]) == ("promoted", run.verdict.version)
    assert row["champion_before"] == "0123456789ab"


def test_the_manifest_names_every_file_with_its_sha256(memory: Store) -> None:
    run = make(memory)
    documents = {
        f"runs/digits/{run.verdict.run_id}/started.json",
        f"fits/digits/{run.verdict.version}/final/manifest.json",
    }
    memory.create_many((key, b"{}") for key in documents)
    recording.record(memory, run.config, run.plan, run.results())
    manifest = json.loads(memory.get(f"runs/digits/{run.verdict.run_id}/manifest.json"))
    assert documents <= {file["key"] for file in manifest["files"]}
    assert manifest["digest"] == sha256(canonical({name: manifest[name] for name in manifest if name != "digest"}))
    named = {file["key"]: file["sha256"] for file in manifest["files"]}
    assert all(sha256(memory.get(key)) == digest for key, digest in named.items())
    written = {key for key, _ in memory.list("tables")} | {f"runs/digits/{run.verdict.run_id}/report.html"}
    assert written < set(named)
    assert not manifest["document"]["report"].startswith(("/", "memory:")), "what is recorded still holds after a move"


@pytest.mark.parametrize("how", WRONG)
def test_wrong_readings_leave_no_wrong_digest(memory: Store, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A run that was killed before its manifest, and is recorded again while every object is read wrong once."""
    run = make(memory)
    with pytest.raises(Killed):
        recording.record(Mortal(memory, WRITES - 1), run.config, run.plan, run.results())
    with monkeypatch.context() as patch:
        readings = misread(memory, patch, how)
        recording.record(memory, run.config, run.plan, run.results())
    assert len(readings) >= WRITES - 1
    manifest = json.loads(memory.get(f"runs/digits/{run.verdict.run_id}/manifest.json"))
    assert [f["key"] for f in manifest["files"] if sha256(memory.get(f["key"])) != f["sha256"]] == []
    (model,) = rows(memory, "models")
    assert model["manifest_sha256"] == run.package.manifest_sha256


WRITES = 13  # the verdict, eleven tables' files, the manifest; and before it the report, where none lies there


@pytest.mark.parametrize(("writes", "page"), [*((n, PAGE) for n in range(WRITES)), (WRITES - 1, None), (WRITES, None)])
def test_a_kill_before_any_write_and_a_second_call_leave_each_row_once(
    memory: Store, writes: int, page: bytes | None
) -> None:
    """The first call's verdict and times are the run's; nothing is there twice."""
    run = make(memory, page=page)
    with pytest.raises(Killed):
        recording.record(Mortal(memory, writes), run.config, run.plan, run.results())
    assert recording.finished(memory, "digits", run.verdict.run_id) is None
    other = run.results(started_at="2027-01-01T00:00:00.000000Z", seconds={"train": 1.0}, batches=[])
    document = recording.record(memory, run.config, run.plan, other)
    assert document["seconds"] == ({"train": 1.0} if writes == 0 else run.results().seconds)
    counts = {table: len(rows(memory, table)) for table in COLUMNS}
    assert counts == {
        "batches": 0, "validations": 0, "quarantine": 0, "snapshots": 0, "promotions": 0, "discards": 0,
        "corrections": 0, "outputs": 0, "trials": 0, "approvals": 0, "served": 0, "shadow": 0, "labels": 0,
        "drift": 0,
        "runs": 1, "models": 1, "verdicts": 3, "folds": 15, "epochs": 84, "fits": 4, "predictions": 1600,
        "metrics": 40, "stages": len(document["seconds"]), "configuration": 16,
    }  # fmt: skip
    before = everything(memory)
    assert recording.record(memory, run.config, run.plan, run.results()) == document
    assert everything(memory) == before


def test_there_are_exactly_as_many_writes_as_are_killed_above(memory: Store) -> None:
    run = make(memory, page=None)
    recording.record(Mortal(memory, WRITES + 1), run.config, run.plan, run.results())


def test_a_metric_that_is_no_number_is_null_in_the_document(memory: Store) -> None:
    run = make(memory)
    scores = run.evaluation.candidate_scores
    scores = scores.model_copy(update={"metrics": {**scores.metrics, "log_loss": math.nan}})
    evaluation = run.evaluation.model_copy(update={"candidate_scores": scores})
    document = recording.record(memory, run.config, run.plan, run.results(evaluation=evaluation))
    assert document["holdout"]["log_loss"] is None


def test_a_second_run_of_a_version_adds_no_rows_of_the_version(memory: Store) -> None:
    """Another gate, the same model: folds, epochs, models and oof stay those of the run that trained it."""
    first = make(memory)
    recording.record(memory, first.config, first.plan, first.results())
    second = make(memory, run_id="d4" * 6, trained_by=first.verdict.run_id)
    recording.record(memory, second.config, second.plan, second.results())
    for table in ("models", "folds", "epochs", "fits"):
        assert {r["run_id"] for r in rows(memory, table)} == {first.verdict.run_id}
    assert [r["run_id"] for r in rows(memory, "runs")] == [first.verdict.run_id, second.verdict.run_id]
    assert len(rows(memory, "predictions")) == 1200 + 2 * 400


def test_rows_of_a_version_carry_the_run_that_trained_it_whoever_writes_them(memory: Store) -> None:
    run = make(memory, trained_by="e5" * 6)
    recording.record(memory, run.config, run.plan, run.results())
    assert {r["run_id"] for r in rows(memory, "folds")} == {"e5" * 6}
    assert {r["run_id"] for r in rows(memory, "predictions") if r["split"] == "oof"} == {"e5" * 6}
    assert {r["run_id"] for r in rows(memory, "predictions") if r["split"] == "holdout"} == {run.verdict.run_id}


def test_runs_are_listed_newest_last_and_unfinished_ones_not_at_all(memory: Store, monkeypatch: Any) -> None:
    times = iter(["2026-11-24T12:00:00.000000Z", "2026-11-24T11:00:00.000000Z", "2026-11-24T13:00:00.000000Z"])
    monkeypatch.setattr(clock, "now", lambda: next(times))
    for run_id in ("aa" * 6, "bb" * 6):
        run = make(memory, run_id=run_id)
        recording.record(memory, run.config, run.plan, run.results())
    run = make(memory, run_id="cc" * 6)
    with pytest.raises(Killed):
        recording.record(Mortal(memory, 3), run.config, run.plan, run.results())
    # As they were recorded: the clock was set back between the two.
    assert [r["run_id"] for r in recording.runs(memory, "digits")] == ["aa" * 6, "bb" * 6]
    assert recording.runs(memory, "other") == []
    assert recording.standing(memory, "digits", "cc" * 6) == run.verdict


def test_a_damaged_manifest_is_named(memory: Store) -> None:
    memory.create("runs/digits/abc/manifest.json", b"{")
    with pytest.raises(Damaged, match=r"runs/digits/abc/manifest\.json"):
        recording.finished(memory, "digits", "abc")


def test_the_report_of_a_directory_store_is_a_path(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    run = make(store, page=None)
    document = recording.record(store, run.config, run.plan, run.results())
    assert Path(document["report"]).read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "store").rename(tmp_path / "moved")
    moved = open_store((tmp_path / "moved").as_uri())
    again = recording.finished(moved, "digits", run.verdict.run_id)
    assert again and Path(again["report"]).is_file()


# --- batches -------------------------------------------------------------------------------------


def committed(store: Store, *batches: str) -> None:
    for batch in batches:
        commit(store, "batch", {"outcome": outcome(batch=batch).model_dump(mode="json")})


def commit(store: Store, kind: str, body: dict[str, Any]) -> None:
    history = commit_log.read(store, "snapshots/digits/log")
    commit_log.commit(store, history, id=f"{kind} {history.number}", kind=kind, body=body, who="t", why="t")


def test_what_a_crash_left_out_of_batches_and_tables_is_written_from_the_log(memory: Store) -> None:
    committed(memory, "first", "second")
    refused = outcome(batch="third", verdict="refused").model_dump_json().encode()
    memory.create(f"batches/digits/third/{CONTRACT}.json", refused)
    commit(memory, "preprocessing", {"parts": []})
    batch_outcomes.repair_batches(memory, "digits")
    assert [r["batch"] for r in rows(memory, "batches")] == ["first", "second", "third"]
    assert len(rows(memory, "validations")) == 6
    assert {key.split("/")[2] for key, _ in memory.list("batches/digits")} == {"first", "second", "third"}


@pytest.mark.parametrize("writes", range(6))
def test_a_repair_that_is_killed_is_finished_by_the_next(memory: Store, writes: int) -> None:
    committed(memory, "first", "second")
    with pytest.raises(Killed):
        batch_outcomes.repair_batches(Mortal(memory, writes), "digits")
    batch_outcomes.repair_batches(memory, "digits")
    assert [r["batch"] for r in rows(memory, "batches")] == ["first", "second"]
    assert len(rows(memory, "validations")) == 4
    before = everything(memory)
    batch_outcomes.repair_batches(Mortal(memory, 0), "digits")
    assert everything(memory) == before


# --- formats -------------------------------------------------------------------------------------


def test_json_has_no_value_that_json_does_not_know() -> None:
    import decimal
    import json

    table = pa.table({
        "f": [1.5, math.nan, math.inf], "d": [decimal.Decimal("3.00")] * 3, "b": [b"x", None, b""],
        "t": pa.array([0, 1_000_000, None], pa.timestamp("us", tz="UTC")), "l": [[1.0, math.nan], [], None],
    })  # fmt: skip
    found = formats.to_json(table)
    json.dumps(found, allow_nan=False)
    assert [r["f"] for r in found] == [1.5, None, None] and found[0]["d"] == 3 and found[0]["l"] == [1.0, None]
    assert [r["t"] for r in found] == ["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z", None]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_times_are_those_of_pyarrow(unit: str, zone: str | None) -> None:
    """Also before 1970, after a null, and in a column of several chunks."""
    kind = pa.timestamp(unit, tz=zone)
    column = pa.chunked_array([pa.array([-1, None, 0], kind), pa.array([86_399, 1_700_000_000], kind)])
    table = pa.table({"t": column, "n": [1, 2, 3, 4, 5]})
    assert formats.rows(table) == [tuple(row.values()) for row in table.to_pylist()]
    assert formats.rows(table.select([])) == [()] * 5


def test_a_query_imports_neither_pandas_nor_the_records(tmp_path: Path) -> None:
    """pyarrow would import pandas for a single time, which took a third of the whole command."""
    store = open_store((tmp_path / "store").as_uri())
    row = {"pipeline": "p", "run_id": "r", "finished_at": "2026-11-24T10:00:00Z"}
    table_files.write(store, [(store_keys.table_key("runs", "p", "r"), table_files.arrow("runs", [row]))])
    unwanted = ("pandas", "schemas.records", "schemas.config", "yaml", "pyarrow.compute")
    code = f"""
import sys
from cli.main import main
main(["query", "FROM runs", "--store", sys.argv[1], "--format", "csv"])
print([name for name in {unwanted} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, store.uri], capture_output=True, text=True, check=True)
    assert "2026-11-24T10:00:00" in done.stdout.replace(" ", "T") and done.stdout.splitlines()[-1] == "[]", done.stdout


@pytest.mark.parametrize(
    ("sql", "described"),
    [("select foo from fits", "`DESCRIBE fits`"), ("selec 1", "`DESCRIBE runs`"),
     ("select foo from runs join fits on true", "`DESCRIBE runs` or `DESCRIBE fits`")],
)  # fmt: skip
def test_an_error_of_a_query_names_the_tables_that_it_read(memory: Store, sql: str, described: str) -> None:
    with pytest.raises(UsageError, match=f"for the columns, {described}"):
        queries.query(memory, sql)


def test_csv_quotes_what_it_must_and_leaves_null_empty() -> None:
    table = pa.table({"a b": ['x "y",\nz', None, "ü"], "n": [1, None, 3], "ok": [True, None, False]})
    assert formats.to_csv(table) == 'a b,n,ok\n"x ""y"",\nz",1,true\n,,\nü,3,false\n'


def test_csv_moves_no_cursor_and_on_request_no_spreadsheet() -> None:
    table = pa.table({"=a": ["\x1b[2J\r", "=cmd|' /C calc'!A0", "-1", "\u202eevil", "a=1"], "n": [-1, 2, 3, 4, 5]})
    assert formats.to_csv(table).splitlines() == [
        "=a,n", "\\x1b[2J\\r,-1", "=cmd|' /C calc'!A0,2", "-1,3", "\\u202eevil,4", "a=1,5"
    ]  # fmt: skip
    assert formats.to_csv(table, spreadsheet=True).splitlines() == [
        "'=a,n", "\\x1b[2J\\r,-1", "'=cmd|' /C calc'!A0,2", "'-1,3", "\\u202eevil,4", "a=1,5"
    ]  # fmt: skip


def test_parquet_round_trip(tmp_path: Path) -> None:
    table = table_files.arrow("runs", [{"pipeline": "p", "seconds": 1.0}])
    formats.write_parquet(table, tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").equals(table)

"""The tables' files as other programs read them, and the columns that say which example a prediction is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow.core import store_keys
from leptonflow.runs import inventory, recording
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import queries, table_files
from schemas.tables import COLUMNS
from tests.run_examples import Run, make, outcome

FROM_RUNS = (
    "runs", "folds", "epochs", "fits", "predictions", "verdicts", "metrics", "stages", "configuration", "models",
)  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def recorded(store: Store, pipeline: str) -> Run:
    run = make(store, pipeline=pipeline)
    recording.record(store, run.config, run.plan, run.results())
    table_files.write(store, table_files.batch_files(outcome(pipeline)))
    return run


def as_before(store: Store, table: str, pipeline: str, *without: str) -> None:
    """A file as releases wrote it that had `pipeline` as text, and not yet these columns."""
    rows = table_files.arrow(table, [{"pipeline": pipeline, "run_id": "old", "version": "old"}])
    sink = pa.BufferOutputStream()
    pq.write_table(rows.drop_columns(list(without)), sink, compression="zstd")
    store.create(store_keys.table_key(table, pipeline, "0ld"), bytes(sink.getvalue()))


@pytest.mark.parametrize("pipelines", [("digits",), ("digits", "cats")], ids=["one", "two"])
def test_pandas_reads_a_tables_folder(directory: Store, pipelines: tuple[str, ...]) -> None:
    """The folder's name says `pipeline` too: pyarrow refused to merge the two."""
    for pipeline in pipelines:
        recorded(directory, pipeline)
    for table in (*FROM_RUNS, "batches", "validations"):
        found = pd.read_parquet(str(directory.path(f"tables/{table}")))
        (expected,) = queries.query(directory, f"SELECT count(*) AS n FROM {table}").to_pylist()
        assert len(found) == expected["n"] > 0
        assert set(found.columns) == set(COLUMNS[table]) and set(found["pipeline"]) == set(pipelines)


def test_pandas_reads_files_of_an_earlier_release_without_partitioning(directory: Store) -> None:
    recorded(directory, "digits")
    as_before(directory, "runs", "digits")
    found = pd.read_parquet(str(directory.path("tables/runs")), partitioning=None)
    assert sorted(found["run_id"]) == sorted(["old", "b2" * 6]) and set(found["pipeline"]) == {"digits"}


def test_a_prediction_has_its_source_and_whether_it_is_correct(directory: Store) -> None:
    run = recorded(directory, "digits")
    found = queries.query(directory, "FROM predictions WHERE split = 'holdout' ORDER BY example_id").to_pylist()
    assert [row["source"] for row in found] == run.holdout.sources
    assert [row["correct"] for row in found] == [row["label"] == row["predicted"] for row in found]
    right = sum(row["correct"] for row in found) / len(found)
    assert right == pytest.approx(run.evaluation.candidate_scores.metrics["accuracy"])


def test_predictions_of_an_earlier_release_have_no_source(directory: Store) -> None:
    as_before(directory, "predictions", "digits", "source", "correct")
    (row,) = queries.query(directory, "SELECT source, correct, run_id FROM predictions").to_pylist()
    assert row == {"source": None, "correct": None, "run_id": "old"}


@pytest.mark.parametrize("encode", [table_files.encode, table_files.encode_as_text], ids=["now", "before"])
def test_a_batchs_file_of_either_release_is_held_against_its_outcome(encode: Callable[[pa.Table], bytes]) -> None:
    """A single bit that is flipped is seen."""
    for key, rows in table_files.batch_files(outcome()):
        data = encode(rows)
        assert inventory._other_rows(key, rows, data) is None
        at = len(data) // 2
        assert inventory._other_rows(key, rows, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) is not None

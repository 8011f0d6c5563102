"""docs/queries.md: each of its twenty questions is answered, with the columns that are named here, on a small store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from leptonflow.core import clock
from leptonflow.core.hashing import sha256
from leptonflow.data.dataset import batch_outcomes
from leptonflow.runs import recording
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import queries, table_files
from leptonflow.tables.views import VIEWS
from schemas.records import QuarantineRef
from schemas.tables import COLUMNS as COLUMNS_OF
from tests.run_examples import CONTRACT, make, outcome

PAGE = (Path(__file__).parent.parent.parent / "docs" / "queries.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^## (\d+)\. (.*?)\n.*?^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

COLUMNS = {
    1: "pipeline number version kind since until accuracy f1 log_loss",
    2: "finished_at version rule metric slice value bound sentence",
    3: "batch_size versions accuracy lowest highest",
    4: "stage runs mean p95 longest",
    5: "version metric folds mean std spread",
    6: "example_id label before now flip",
    7: "version snapshot batches examples names",
    8: "batch rule examples percent one_of_them",
    9: "run_id started_at seconds longest_stage in_it examples",
    10: "label finished_at version verdict recall change",
    11: "version epoch training held_out seconds",
    12: "decided_at who kind version reason the_gate_said sentence",
    13: "finished_at version rule metric value bound passed low high n distance",
    14: "rule metric passed refused did_not_apply",
    15: "label predicted finished_at version examples sureness",
    16: "version metric cv std holdout gap",
    17: "finished_at version champion metric value champion_value difference verdict",
    18: "confidence_from examples confidence accuracy",
    19: "name version created_at before now",
    20: "version mean std folds verdict finished_at",
}

FIRST, WORSE, LAST = "a1" * 6, "c3" * 6, "e5" * 6
RUNS = {FIRST: "b2" * 6, WORSE: "d4" * 6, LAST: "f6" * 6}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three runs over two batches: promoted, refused and then overridden, promoted; and then the first again."""
    store = open_store((tmp_path_factory.mktemp("queries") / "store").as_uri())
    _batches(store)
    with pytest.MonkeyPatch.context() as patched:
        for day, (version, right) in enumerate(((FIRST, 0.88), (WORSE, 0.8), (LAST, 0.93)), start=24):
            patched.setattr(clock, "now", lambda day=day: f"2026-11-{day}T11:00:00.000000Z")
            champion = {FIRST: None, WORSE: FIRST, LAST: WORSE}[version]
            run = make(
                store, version=version, run_id=RUNS[version], accuracy=right, promoted=version != WORSE,
                champion=champion, batch_size=64 if version == LAST else 32,
                created_at=f"2026-11-{day}T10:30:00+00:00",
            )  # fmt: skip
            recording.record(store, run.config, run.plan, run.results(started_at=f"2026-11-{day}T10:00:00.000000Z"))
    decisions = (
        ("promotion", FIRST, RUNS[FIRST]), ("override", WORSE, None), ("promotion", LAST, RUNS[LAST]),
    )  # fmt: skip
    for number, (kind, version, run_id) in enumerate(decisions):
        body = {"version": version, "previous": [None, FIRST, WORSE][number], "run_id": run_id, "snapshot": "5aa5" * 3,
                "manifest_sha256": "f" * 64, "snapshot_number": 1}  # fmt: skip
        _commit(store, "promotions/digits/log", kind, body)
    return store


def _batches(store: Store) -> None:
    counts = {"arrived": 100, "accepted": 90, "quarantined": 7, "known": 3, "ignored": 1}
    for batch in ("first", "second"):
        same = {"pipeline": "digits", "batch": batch, "contract": CONTRACT, "rule": "unreadable", "reason": "empty"}
        data = table_files.encode(table_files.arrow("quarantine", [{**same, "source": f"{n}.png"} for n in range(7)]))
        part = QuarantineRef(key=f"quarantine/digits/{batch}/{sha256(data)}.parquet", sha256=sha256(data), rows=7)
        store.create(part.key, data)
        told = outcome(batch=batch, quarantine=part).model_dump(mode="json")
        body = {"batch": batch, "snapshot": "5aa5" * 3, "examples": 90, "counts": counts, "outcome": told}
        _commit(store, "snapshots/digits/log", "batch", body)
    batch_outcomes.repair_batches(store, "digits")


def _commit(store: Store, prefix: str, kind: str, body: dict[str, Any]) -> None:
    history = commit_log.read(store, prefix)
    commit_log.commit(store, history, id=f"{kind} {history.number}", kind=kind, body=body, who="ada", why="because")


LATER = {  # what a release before the gate's evidence did not write: a table by its name, or some of its columns
    "metrics": None, "stages": None, "configuration": None,
    "verdicts": {"slice", "low", "high", "confidence", "n", "method"}, "predictions": {"source", "correct"},
}  # fmt: skip


@pytest.fixture(scope="module")
def older(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same store as an earlier release would have left it."""
    older = open_store((tmp_path_factory.mktemp("older") / "store").as_uri())
    for key, _ in store.list(""):
        data, table = store.get(key), key.split("/")[1] if key.startswith("tables/") else ""
        if table in LATER:
            later = LATER[table]
            if later is None:
                continue
            rows = table_files.decode(data, key)
            data = table_files.encode(rows.select([name for name in rows.column_names if name not in later]))
        older.create(key, data)
    return older


def test_there_are_twenty_questions_in_order() -> None:
    assert [int(number) for number, _, _ in QUESTIONS] == list(range(1, 21)) == list(COLUMNS)
    assert PAGE.count("```sql") == 20


@pytest.mark.parametrize("number", COLUMNS, ids=[question for _, question, _ in QUESTIONS])
def test_a_question_is_answered(store: Store, number: int) -> None:
    (sql,) = (sql for n, _, sql in QUESTIONS if int(n) == number)
    answer = queries.query(store, sql)
    assert answer.column_names == COLUMNS[number].split()
    assert answer.num_rows
    # A column that is null in every row would answer nothing; these have no value in runs of made-up numbers.
    silent = {name for name in answer.column_names if answer[name].null_count == answer.num_rows}
    assert silent <= {"slice", "low", "high", "n"}


@pytest.mark.parametrize("number", COLUMNS, ids=[question for _, question, _ in QUESTIONS])
def test_a_store_of_an_earlier_release_answers_too(older: Store, number: int) -> None:
    (sql,) = (sql for n, _, sql in QUESTIONS if int(n) == number)
    answer = queries.query(older, sql)
    assert answer.column_names == COLUMNS[number].split()
    without = {3, 4, 10, 16, 17, 19}  # ask the later tables alone
    assert bool(answer.num_rows) == (number not in without)


def test_every_table_and_view_of_an_earlier_release_has_its_columns(older: Store) -> None:
    for name, columns in {**COLUMNS_OF, **{name: list(view.columns) for name, view in VIEWS.items()}}.items():
        assert queries.query(older, f"FROM {name}").column_names == list(columns)
    nulls = queries.query(older, "SELECT slice, low, high, confidence, n, method FROM verdicts")
    assert nulls.num_rows and all(column.null_count == nulls.num_rows for column in nulls.columns)


def test_an_override_has_one_row_however_often_its_version_was_weighed(store: Store) -> None:
    (sql,) = (sql for n, _, sql in QUESTIONS if int(n) == 12)
    told = queries.query(store, sql).to_pylist()
    assert [(row["version"], row["the_gate_said"]) for row in told] == [(WORSE, "refused")]

"""Tables of texts that somebody copied into landing/: their columns are found, or those that the YAML names."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow.batch_scoring import scored_tables
from leptonflow.data.ingest import intake, label_tables, landing
from leptonflow.data.ingest.label_columns import Columns, of_pipeline
from leptonflow.data.validation import examination
from leptonflow.data.validation.examined_rows import Row
from leptonflow.notebook import original_example
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import Damaged, UsageError

CSV = b'n,label,text\n1,good,"a fine, long day"\n2,bad,it rained\n3,good,\n'


def pipeline(**own: Any) -> Pipeline:
    return Pipeline.model_validate(
        {"name": "mood", "workload": "text_classification", "input": own, "classes": ["bad", "good"],
         "quarantine": {"limit": 0.5},
         "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}]}
    )  # fmt: skip


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def rows(store: Store, config: Pipeline, **files: bytes) -> list[Row]:
    """What a batch of these files, its names with __ for /, gives."""
    for name, data in files.items():
        store.create(f"landing/mood/b/{name.replace('__', '/').replace('_dot_', '.')}", data)
    store.create("landing/mood/b/_READY", b"")
    workload = catalog.load(config.workload)
    batch = landing.open_batch(
        store, "mood", "b", config.classes, workload.suffixes, of_pipeline(workload, config.input)
    )
    return examination.examine(store, config, batch, workload)


def told(found: list[Row]) -> list[tuple[str, str | None, str | None, bytes | None]]:
    return [(row.source, row.label, row.rule, row.encoded) for row in found]


@pytest.mark.parametrize("name", ["t_dot_csv", "data__t_dot_csv"])
def test_a_table_alone_or_in_a_folder(store: Store, name: str) -> None:
    source = name.replace("__", "/").replace("_dot_", ".")
    assert told(rows(store, pipeline(), **{name: CSV, "README_dot_md": b"# a data set"})) == [
        (f"{source}[0]", "good", None, b"a fine, long day"),
        (f"{source}[1]", "bad", None, b"it rained"),
        (f"{source}[2]", "good", "empty-text", None),
    ]


def test_of_several_tables_the_one_with_texts_and_labels(store: Store) -> None:
    found = rows(store, pipeline(), authors_dot_csv=b"id,name\n1,a\n", t_dot_csv=CSV)
    assert [row.source for row in found] == ["t.csv[0]", "t.csv[1]", "t.csv[2]"]


def test_the_columns_of_the_yaml(store: Store) -> None:
    lines = b'{"mood": "good", "head": "Fine", "body": "a day"}\n{"mood": "bad", "head": "", "body": "rain"}\n'
    found = rows(store, pipeline(columns=["head", "body"], label="mood"), t_dot_jsonl=lines)
    assert told(found) == [("t.jsonl[0]", "good", None, b"Fine\n\na day"), ("t.jsonl[1]", "bad", None, b"rain")]


def test_half_of_a_surrogate_pair_is_one_bad_row(store: Store) -> None:
    lines = b'{"text": "fine \\ud800 day", "label": "good"}\n{"text": "rain", "label": "bad"}\n'
    found = rows(store, pipeline(), t_dot_jsonl=lines)
    assert [(row.rule, row.encoded) for row in found] == [("not-utf8", None), (None, b"rain")]


@pytest.mark.parametrize(
    ("suffix", "data", "told"),
    [
        ("csv", b"label,text\ngood,a fine day\nbad,caf\xe9\nba\0d,rain\nbad,it rained\n",
         ("line 3, column 'text': the byte 0xe9 is not UTF-8;", "line 4, column 'label': a NUL,")),
        ("jsonl", b'{"text": "a fine day"}\n\n{"text": "caf\xe9"}\n\0{}\n{"text": "it rained", "label": "bad"}',
         ("line 3: the byte 0xe9 is not UTF-8;", "line 4: a NUL,")),
    ],
)  # fmt: skip
def test_a_byte_that_is_no_text_is_one_bad_row(store: Store, suffix: str, data: bytes, told: tuple[str, str]) -> None:
    found = rows(store, pipeline(), **{f"t_dot_{suffix}": data})
    assert [row.encoded for row in found] == [b"a fine day", None, None, b"it rained"]
    assert [row.rule for row in found[1:3]] == ["not-utf8", "nul-character"]
    assert all((row.reason or "").startswith(start) for row, start in zip(found[1:3], told, strict=True))
    # What is landed of it in part has its other rows alone.
    kept = label_tables.some_rows(f"t.{suffix}", data, [0, 3])
    assert label_tables.read(f"t.{suffix}", kept, Columns(cells=())).cells == [b"a fine day", b"it rained"]


def parquet(**columns: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_a_text_of_parquet_that_is_not_utf8_is_one_bad_row(store: Store, kind: pa.DataType) -> None:
    """Parquet calls any bytes a string, and a writer may not say that its bytes are texts."""

    def column(*cells: bytes | None) -> pa.Array:
        plain = pa.array(cells, pa.binary())
        text = pa.Array.from_buffers(pa.string(), len(cells), plain.buffers())
        if kind == pa.binary():
            return plain
        return text.dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind)

    data = parquet(
        n=pa.array([1, 2, 3, 4]),
        text=column(b"a fine day", b"caf\xe9", b"rain", "é".encode()),
        label=column(b"good", b"bad", b"b\xe4d", b"bad"),
    )
    found = rows(store, pipeline(), t_dot_parquet=data)
    assert [(row.label, row.rule, row.encoded) for row in found] == [
        ("good", None, b"a fine day"), (None, "not-utf8", None), (None, "not-utf8", None), ("bad", None, "é".encode()),
    ]  # fmt: skip
    assert [row.reason for row in found[1:3]] == [
        "column 'text': byte 3 of the cell is 0xe9, which is not UTF-8; save the table as UTF-8",
        "column 'label': byte 1 of the cell is 0xe4, which is not UTF-8; save the table as UTF-8",
    ]
    kept = label_tables.some_rows("t.parquet", data, [0, 3])
    assert label_tables.read("t.parquet", kept, Columns(cells=())).cells == [b"a fine day", "é".encode()]


def test_a_parquet_table_lands_without_its_rows_that_are_not_utf8(store: Store, tmp_path: Path) -> None:
    cells = pa.array([b"a fine day", b"caf\xe9", b"it rained", b"sunny and warm"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 4, cells.buffers())
    table = parquet(text=text, label=pa.array(["good", "bad", "bad", "good"]), group=pa.array(["a", "b", "c", "d"]))
    (tmp_path / "t.parquet").write_bytes(table)
    landed = landing.land(store, pipeline(), tmp_path / "t.parquet", "b", landing.Index())
    assert landed.listing.rows == (0, 2, 3)
    assert [(row.source, row.rule) for row in landed.listing.refused] == [("t.parquet[1]", "not-utf8")]
    named = label_tables.read("t.parquet", table, Columns(path="text", group="group"))  # a column of paths, with groups
    assert named.paths == ["a fine day", None, "it rained", "sunny and warm"] and list(named.ragged) == [1]
    assert named.groups == ["a", None, "c", "d"]


def test_a_structure_or_a_nul_where_a_text_belongs_is_one_bad_row(store: Store, tmp_path: Path) -> None:
    lines = [
        {"text": "a fine day", "label": "good"}, {"text": {"en": "rain"}, "label": "bad"},
        {"text": "rain", "label": ["bad", "good"]}, {"text": "it rained", "label": "bad\0"},
        {"text": "a day", "label": "bad"},
    ]  # fmt: skip
    data = "".join(map(json.dumps, lines)).replace("}{", "}\n{").encode()
    found = rows(store, pipeline(), t_dot_jsonl=data)
    assert [row.rule for row in found] == [None, "not-text", "not-text", "nul-character", None]
    assert found[2].reason == "column 'label': the cell is a list, where a text belongs; name another column"
    (tmp_path / "t.jsonl").write_bytes(data)
    scored = scored_tables.rows(tmp_path / "t.jsonl", Columns(cells=()))
    told = [each if isinstance(each, bytes) else each[0] for each in scored]
    assert told == [b"a fine day", "not-text", b"rain", b"it rained", b"a day"]
    nested = parquet(text=pa.array([["rain"], None]), label=pa.array(["good", "bad\0"]))
    broken = label_tables.read("t.parquet", nested, Columns(cells=())).ragged
    assert [broken[number][0] for number in range(2)] == ["not-text", "nul-character"]


def test_hugging_faces_parquet_names_its_classes(store: Store, tmp_path: Path) -> None:
    told_by = b'{"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}}'
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())], metadata={b"huggingface": told_by})
    pq.write_table(pa.table({"text": ["a fine day", "it rained"], "label": [1, 0]}, schema), tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    found = rows(store, pipeline(), **{"data__train-00000-of-00001_dot_parquet": data})
    assert [(row.label, row.encoded) for row in found] == [("good", b"a fine day"), ("bad", b"it rained")]


def test_a_table_without_the_column_says_which_there_are(store: Store) -> None:
    found = rows(store, pipeline(columns=["words"]), t_dot_csv=CSV)
    assert [row.rule for row in found] == ["missing-column"] * 3
    assert "a text column (words) is missing; the columns are 'n', 'label', 'text'" in (found[0].reason or "")


def test_a_long_cell_is_cut_and_a_quote_that_is_open_is_told_with_its_line(store: Store) -> None:
    words = " ".join(f"word{n}" for n in range(30_000))  # more than the csv module takes by itself
    found = rows(store, pipeline(), t_dot_csv=f'label,text\ngood,"{words}"\nbad,it rained\n'.encode())
    assert [(row.rule, len(row.encoded or b"") > 99_000) for row in found] == [(None, True), (None, False)]
    assert (found[0].note or "").startswith("cut after") and (found[0].facts or {})["cut_characters"] > 100_000
    (open_quote,) = rows(open_store(f"memory://{uuid.uuid4().hex}"), pipeline(), t_dot_csv=b'label,text\na,b\nc,"d\n\n')
    assert open_quote.rule == "unreadable-table"
    assert open_quote.reason == "the row in line 3: a quote is opened and never closed"


def test_an_example_of_a_table_landed_by_hand_is_found_again(store: Store) -> None:
    for row in rows(store, pipeline(), t_dot_csv=CSV)[:2]:
        recorded = {"batch": "b", "key": row.key, "row": row.row, "sha256": row.sha256, "source": row.source}
        assert original_example._original(store, "mood", recorded) == row.encoded
    with pytest.raises(Damaged, match="is not what was accepted"):
        original_example._original(store, "mood", {**recorded, "sha256": "0" * 64})


def test_options_that_have_no_table_are_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "texts" / "good").mkdir(parents=True)
    (tmp_path / "texts" / "good" / "1.txt").write_text("a fine day")
    with pytest.raises(UsageError, match="no table to apply --text-column or --label-column to"):
        intake.ingest(store, pipeline(), tmp_path / "texts", None, Columns(cells=("text",)))
    (tmp_path / "t.csv").write_bytes(CSV.replace(b"label", b"mood"))
    with pytest.raises(UsageError, match=r"known to hold labels.*Received: n, mood, text.*--label-column"):
        intake.ingest(store, pipeline(columns=["text"]), tmp_path / "t.csv", None)
    with pytest.raises(UsageError, match=r"no such column\. Expected: n, mood, text\. Received: head"):
        intake.ingest(store, pipeline(columns=["text"], label="head"), tmp_path / "t.csv", None)
    with pytest.raises(UsageError, match="read as text and as label"):
        intake.ingest(store, pipeline(), tmp_path / "t.csv", None, Columns(cells=("mood",), label="mood"))
    images = pipeline().model_copy(update={"workload": "image_classification", "input": (8, 8, 1)})
    (tmp_path / "t.csv").write_bytes(CSV)
    with pytest.raises(UsageError, match=r"takes no --text-column.*--path-column"):
        intake.ingest(store, images, tmp_path / "t.csv", None, Columns(cells=("text",)))

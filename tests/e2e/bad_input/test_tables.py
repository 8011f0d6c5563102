"""CSV and Parquet tables of paths and labels: bad rows, missing columns, and what is no table at all."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.e2e.bad_input.sources import GOOD_ROWS, files, table
from tests.e2e.helpers import call, ingest, picture, quarantined


def test_bad_rows_of_a_table_are_quarantined(tmp_path: Path, lenient: Path, store: Path) -> None:
    picture(1).save(tmp_path / "secret.png")
    (tmp_path / "t" / "images").mkdir(parents=True)
    os.symlink(tmp_path / "secret.png", tmp_path / "t" / "images" / "link.png")
    (tmp_path / "t" / "images" / "text.png").write_text("no picture")
    bad = [
        ("../secret.png", "cat"),
        (tmp_path / "secret.png", "cat"),
        ("images/../../secret.png", "cat"),
        ("images/link.png", "cat"),
        ("images/gone.png", "cat"),
        ("images", "cat"),
        ("", "cat"),
        ("images/text.png", "cat"),
        ("images/0.png", "bird"),
        ("images/1.png", ""),
        ("images/2.png", "cat"),
    ]
    source = table(tmp_path / "t", GOOD_ROWS + bad)
    document, _ = ingest(lenient, source, "--batch", "table", "--store", store)
    found = quarantined(store, "table")
    assert [found.get(f"labels.csv[{10 + n}]") for n in range(len(bad))] == [
        "path-escape",
        "path-escape",
        "path-escape",
        "path-escape",
        "missing-file",
        "not-a-file",
        "missing-file",
        "unreadable-image",
        "unknown-label",
        "unknown-label",
        "duplicate",
    ]
    assert document["arrived"] == len(GOOD_ROWS) + len(bad)
    assert document["accepted"] == 10
    assert not [f for f in files(store, "table") if "secret" in f or "link" in f]
    # A row more: what is landed is that row and its image.
    picture(400).save(tmp_path / "t" / "images" / "new.png")
    source = table(tmp_path / "t", [*GOOD_ROWS, *bad, ("images/new.png", "dog")])
    grown, _ = ingest(lenient, source, "--batch", "grown", "--store", store)
    assert (grown["accepted"], grown["known"]) == (1, 11)  # the duplicate row is known by its bytes now
    assert "images/new.png" in files(store, "grown") and "images/3.png" not in files(store, "grown")
    assert grown["arrived"] == document["arrived"] + 1


def test_tables_without_their_columns(tmp_path: Path, lenient: Path, strict: Path, store: Path) -> None:
    source = table(tmp_path / "t", GOOD_ROWS, header=("picture", "label"))
    for config in (lenient, strict):
        result = call("ingest", config, source, "--batch", "csv", "--store", store)
        assert result.status == 2 and "path" in result.err and "picture" in result.err  # expected, and there
    pq.write_table(pa.table({"path": ["images/0.png"] * 3, "x": [1, 2, 3]}), tmp_path / "t" / "p.parquet")
    result = call("ingest", lenient, tmp_path / "t" / "p.parquet", "--batch", "parquet", "--store", store)
    assert result.status == 2 and "--label-column NAME names it" in result.err
    assert not list(store.glob("landing/*"))
    for name, data in {
        "broken.parquet": b"PAR1 no",
        "broken.csv": b"\xff\xfe\x00path",
        "quote.csv": b'path,label\n"a',
    }.items():
        (tmp_path / "t" / name).write_bytes(data)
        batch = name.replace(".", "-")
        document, _ = ingest(lenient, tmp_path / "t" / name, "--batch", batch, "--store", store)
        assert document["reasons"] == {"unreadable-table": 1}, name


def test_a_table_as_its_folder_and_as_parquet(tmp_path: Path, lenient: Path, store: Path) -> None:
    table(tmp_path / "t", GOOD_ROWS)
    paths, labels = zip(*GOOD_ROWS, strict=True)
    pq.write_table(pa.table({"file": paths, "class": labels}), tmp_path / "t" / "labels.parquet")
    document, _ = ingest(lenient, tmp_path / "t" / "labels.parquet", "--batch", "parquet", "--store", store)
    assert document["accepted"] == 10
    document, _ = ingest(lenient, tmp_path / "t" / "labels.csv", "--batch", "csv", "--store", store)
    assert (document["accepted"], document["known"]) == (0, 10)
    flat = tmp_path / "flat"
    flat.mkdir()
    picture(500).save(flat / "a.png")
    (flat / "all.csv").write_text("filename;category\na.png;cat\nmissing.png;dog\n")
    document, _ = ingest(lenient, flat, "--batch", "flat", "--store", store)
    assert (document["accepted"], document["reasons"]) == (1, {"missing-file": 1})

"""Sources as people have them, landed and examined: splits, litter, archives of arrays, tables of every make."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow.batch_scoring import scored_tables
from leptonflow.data.dataset.admission import _first_classes
from leptonflow.data.ingest import landing
from leptonflow.data.ingest.label_columns import DEFAULT, Columns
from leptonflow.data.ingest.landing import Index
from leptonflow.storage.store import Store
from schemas.errors import UsageError
from tests.batches import CONFIG, arrive, examined, image, land, put, random_rows, rules


def landed_by(place: Store, source: Path, columns: Columns = DEFAULT, root: Path | None = None) -> Any:
    return landing.land(place, CONFIG, source, None, Index(), None, columns, root)


def labels(place: Store, batch: str) -> dict[str, str | None]:
    return {row.source: row.label for row in examined(place, batch) if row.rule is None}


# --- folders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [False, True])
def test_split_folders_are_one_dataset_with_the_split_as_a_fact(place: Store, source: Path, by_hand: bool) -> None:
    names = [f"{split}/{kind}/{n}.png" for split in ("train", "val") for kind in ("cat", "dog") for n in range(2)]
    data = put(source, *names)
    extra = {"train/cat/a.xml": b"<a/>", "README.md": b"#", "cat/Thumbs.db": b"x", "annotations/a.json": b"{}"}
    if by_hand:
        for name, each in [*zip(names, data, strict=True), *extra.items()]:
            place.create(f"landing/pets/b/{name}", each)
        place.create("landing/pets/b/_READY", b"")
    else:
        for name, each in extra.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(each)
        land(place, source, "b")
    rows = examined(place, "b")
    assert [(r.source, r.label, (r.facts or {})["split"]) for r in rows] == [
        (name, name.split("/")[1], name.split("/")[0]) for name in sorted(names)
    ]
    batch = landing.open_batch(place, "pets", "b")
    assert batch.ignored == len(extra)
    told = " ".join(batch.warnings)
    assert "train, val" in told and "1 .xml" in told and "annotations" in told
    again = landing.open_batch(place, "pets", "b", ["cat", "dog"])
    assert again.shape.roots == batch.shape.roots  # the same once the dataset has its classes


def test_a_folder_without_a_readable_image_is_no_class(place: Store, source: Path) -> None:
    put(source, "cat/a.png", "dog/b.png")
    (source / "masks").mkdir()
    (source / "masks" / "a.bin").write_bytes(b"no image")
    rows = arrive(place, source)
    assert rules(rows)["masks/a.bin"] == "unreadable-image"
    batch = landing.open_batch(place, "pets", landing.closed_batches(place, "pets")[0])
    assert _first_classes(None, rows, batch) == (("cat", "dog"), None)


def test_a_source_of_litter_alone_is_told(place: Store, source: Path) -> None:
    (source / "cat").mkdir()
    (source / "cat" / "a.txt").write_text("x")
    with pytest.raises(UsageError, match="holds no examples"):
        land(place, source)
    np.save(source / "X.npy", random_rows(2))
    with pytest.raises(UsageError, match="x_train and y_train"):
        land(place, source)


# --- arrays ------------------------------------------------------------------------------------------


def test_several_pairs_and_labels_that_skip_zero(place: Store, source: Path) -> None:
    data = random_rows(6)
    np.save(source / "X_train.npy", data[:4])
    np.save(source / "y_train.npy", np.array([1, 2, 10, 1]))
    np.save(source / "X_test.npy", data[4:])
    np.save(source / "y_test.npy", np.array([[2], [1]]))
    rows = arrive(place, source)
    assert [(r.source, r.label) for r in rows] == [
        ("X_test.npy[0]", "2"), ("X_test.npy[1]", "1"), ("X_train.npy[0]", "1"), ("X_train.npy[1]", "2"),
        ("X_train.npy[2]", "10"), ("X_train.npy[3]", "1"),
    ]  # fmt: skip
    batch = landing.open_batch(place, "pets", landing.closed_batches(place, "pets")[0])
    assert _first_classes(None, rows, batch) == (("1", "2", "10"), None)


def npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("given", ["folder", "file"])
def test_an_npz_by_names_or_by_shape(place: Store, source: Path, given: str) -> None:
    data = random_rows(5)
    path = npz(source / "set.npz", x_train=data[:3], y_train=[0, 1, 1], x_test=data[3:], y_test=[1, 0])
    rows = arrive(place, source if given == "folder" else path)
    assert {(r.source, r.label, r.key) for r in rows} == {
        ("set.npz/x_train[0]", "0", "set.npz"), ("set.npz/x_train[1]", "1", "set.npz"),
        ("set.npz/x_train[2]", "1", "set.npz"), ("set.npz/x_test[0]", "1", "set.npz"),
        ("set.npz/x_test[1]", "0", "set.npz"),
    }  # fmt: skip
    npz(path, arr_0=np.array([1, 0, 1]), arr_1=data[:3])
    assert [(r.source, r.label) for r in arrive(place, source)] == [
        ("set.npz/arr_1[0]", "1"), ("set.npz/arr_1[1]", "0"), ("set.npz/arr_1[2]", "1"),
    ]  # fmt: skip


def test_an_npz_that_cannot_be_used(place: Store, source: Path) -> None:
    path = source / "set.npz"
    npz(path, a=random_rows(2), b=np.arange(2), c=np.arange(2))
    (row,) = arrive(place, source)
    assert row.rule == "unreadable-array" and "x_train" in str(row.reason)
    path.write_bytes(b"PK\3\4 no archive")
    assert [r.rule for r in arrive(place, source)] == ["unreadable-array"]
    npz(path, x=np.array([{}, {}], dtype=object), y=np.arange(2))
    assert {r.rule for r in arrive(place, source)} == {"object-array"}
    npz(path, x=random_rows(2), y=np.array(["cat", "dog"]))
    assert all("labels are text (<U3)" in str(r.reason) for r in arrive(place, source))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1, 20000, 20000)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # 400 kB that grow to 400 MB
        archive.writestr("x.npy", header.getvalue() + bytes(400_000_000))
        archive.writestr("y.npy", b"")
    (row,) = arrive(place, source)
    assert row.rule == "unreadable-array" and "would grow" in str(row.reason)


# --- tables ------------------------------------------------------------------------------------------


def test_a_label_is_the_text_and_ragged_rows_are_told(place: Store, source: Path) -> None:
    put(source, *(f"{n}.png" for n in range(6)))
    (source / "t.csv").write_text("path,label\n0.png,1.0\n1.png,01\n2.png,NA\n3.png,null\n4.png,a, b\n5.png\n5.png,\n")
    rows = arrive(place, source)
    assert [r.label for r in rows] == ["1.0", "01", "NA", "null", None, None, None]
    assert [r.rule for r in rows] == [None] * 4 + ["ragged-row"] * 2 + [None]
    assert "2 columns, this row 3" in str(rows[4].reason) and "2 columns, this row 1" in str(rows[5].reason)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-bom"])
def test_a_table_in_the_encodings_of_spreadsheets(place: Store, source: Path, encoding: str) -> None:
    put(source, "images/0.png", "images/1.png")
    text = "path\tlabel\r\nimages/0.png\tcaf\u00e9\r\nimages/1.png\tbar\r\n"
    data = b"\xff\xfe" + text.encode("utf-16-le") if encoding.endswith("-bom") else text.encode(encoding)
    (source / "t.csv").write_bytes(data)
    assert set(labels(place, land(place, source).batch).values()) == {"caf\u00e9", "bar"}


def test_a_table_that_is_no_table_is_told_and_not_passed_over(place: Store, source: Path) -> None:
    put(source, "images/0.png", "images/1.png")
    (source / "t.csv").write_bytes("path,caf\u00e9\nimages/0.png,cat\n".encode("latin-1"))
    told = land(place, source).listing.warnings
    assert any("t.csv cannot be read as a table: line 1: the byte 0xe9 is not UTF-8; save" in line for line in told)


def test_kaggles_table_beside_its_images(place: Store, source: Path) -> None:
    put(source, "train_images/1.png", "train_images/2.jpg", "train_images/sub/3.png", "test_images/1.png", "a/b/4.png")
    (source / "train.csv").write_text("image_id,label\n1.png,cat\n2,dog\nsub/3,cat\n4,dog\n9,dog\n")
    (source / "sample_submission.csv").write_text("image_id,guess\n1,0\n")
    rows = arrive(place, source / "train.csv")
    assert [(r.label, r.key) for r in rows] == [
        ("cat", "train_images/1.png"), ("dog", "train_images/2.jpg"), ("cat", "train_images/sub/3.png"),
        ("dog", "a/b/4.png"), ("dog", None),
    ]  # fmt: skip
    assert rows[4].rule == "missing-file" and "'9'" in str(rows[4].reason)
    put(source, "more/4.png")
    (row,) = [r for r in arrive(place, source / "train.csv") if r.rule == "ambiguous-file"]
    assert "a/b/4.png, more/4.png" in str(row.reason)


def test_a_folder_with_a_table_and_one_folder_of_images(place: Store, source: Path) -> None:
    put(source, "images/a.png", "images/b.png", "images/c.png")
    (source / "train.csv").write_text("id,label\na,cat\nb,dog\n")
    batch = land(place, source).batch
    assert labels(place, batch) == {"train.csv[0]": "cat", "train.csv[1]": "dog"}
    assert landing.open_batch(place, "pets", batch).ignored == 1


def test_columns_root_and_absolute_paths(place: Store, source: Path, tmp_path: Path) -> None:
    put(source, "a.png", "sub/b.png")
    elsewhere = tmp_path / "tables" / "x.csv"
    elsewhere.parent.mkdir()
    elsewhere.write_text(f"picture,breed,path\n{source}/a.png,corgi,x\nsub/b.png,pug,y\n/etc/passwd,pug,z\n")
    batch = landed_by(place, elsewhere, Columns("picture", "breed"), source).batch
    rows = examined(place, batch)
    assert [(r.label, r.key, r.rule) for r in rows] == [
        ("corgi", "a.png", None), ("pug", "sub/b.png", None), ("pug", None, "path-escape"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no such column"):
        landed_by(place, elsewhere, Columns("picture", "race"), source)
    with pytest.raises(UsageError, match="no table"):
        landed_by(place, source, Columns("picture"))


def test_a_backslash_is_named_and_its_file_is_not_left_out(place: Store, source: Path) -> None:
    put(source, "a.png", "b.png")
    (source / "t.csv").write_text("path,label\n.\\a.png,cat\n")
    (row,) = land(place, source, "b").listing.refused
    assert row.rule == "missing-file" and "'.\\a.png' is written with a backslash" in row.reason
    assert landing.open_batch(place, "pets", "b").ignored == 1


def test_hugging_faces_metadata(place: Store, source: Path) -> None:
    put(source, "data/a.png", "data/b.png")
    lines = [{"file_name": "data/a.png", "label": 1.0}, {"file_name": "data/b.png", "label": True}]
    (source / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    batch = land(place, source).batch
    assert labels(place, batch) == {"metadata.jsonl[0]": "1.0", "metadata.jsonl[1]": "true"}
    (source / "metadata.jsonl").write_text('{"file_name": "data/a.png"\n')
    assert [r.rule for r in arrive(place, source / "metadata.jsonl")] == ["unreadable-table"]


def embedded(path: Path, label: list[int], names: list[str] | None, images: list[bytes | None]) -> None:
    cells = [None if data is None else {"bytes": data, "path": None} for data in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind), "label": label})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)


@pytest.mark.parametrize("by_hand", [False, True])
def test_parquet_that_holds_the_pictures(place: Store, source: Path, by_hand: bool) -> None:
    images = [image(n) for n in range(3)]
    embedded(source / "train.parquet", [1, 0, 1, -1], ["cat", "dog"], [*images, None])
    if by_hand:
        place.create("landing/pets/b/train.parquet", (source / "train.parquet").read_bytes())
        place.create("landing/pets/b/_READY", b"")
    else:
        land(place, source, "b")
    rows = examined(place, "b")
    assert [(r.source, r.label, r.rule) for r in rows] == [
        ("train.parquet[0]", "dog", None), ("train.parquet[1]", "cat", None), ("train.parquet[2]", "dog", None),
        ("train.parquet[3]", None, "missing-file"),
    ]  # fmt: skip
    known = {str(row.sha256): str(row.label) for row in rows[:2]}
    listing = land(place, source, "again", Index(known=known)).listing
    assert (listing.known, listing.rows) == (2, (2,))
    assert [(r.row, r.label, r.sha256) for r in examined(place, "again") if r.rule is None] == [
        (2, "dog", rows[2].sha256)
    ]


def test_a_path_beside_a_picture_that_is_not_utf8_is_one_bad_row(place: Store, source: Path) -> None:
    raw = pa.array([b"a.png", b"caf\xe9.png", b"c.png"], pa.binary())
    paths = pa.Array.from_buffers(pa.string(), 3, raw.buffers())  # Parquet does not check what it calls a string
    pictures = pa.StructArray.from_arrays([pa.array(map(image, range(3))), paths], ["bytes", "path"])
    source.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": pictures, "label": ["cat", "dog", "dog"]}), source / "t.parquet")
    listing = land(place, source, "b").listing
    assert listing.rows == (0, 2)
    assert [(row.source, row.rule) for row in listing.refused] == [("t.parquet[1]", "not-utf8")]
    scored = list(scored_tables.rows(source / "t.parquet", Columns()))
    assert [scored[0], scored[2]] == [image(0), image(2)] and scored[1][0] == "not-utf8"


def test_class_numbers_of_such_a_table_are_those_of_the_pipeline(place: Store, source: Path) -> None:
    embedded(source / "d" / "train.parquet", [1, 0], None, [image(1), image(2)])
    batch = land(place, source).batch
    assert [r.label for r in examined(place, batch, ["cat", "dog"])] == ["dog", "cat"]
    assert [r.label for r in examined(place, batch)] == ["1", "0"]

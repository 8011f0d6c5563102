"""`.npy` pairs and tables as batches: which rows there are, and by which rule a row is refused."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow.core.hashing import sha256
from leptonflow.data.ingest import landing
from leptonflow.data.ingest.landing import Index
from leptonflow.storage.store import Store
from schemas.errors import UsageError
from tests.batches import arrive, examined, image, land, npy, put, random_rows

# --- .npy pairs --------------------------------------------------------------------------------------


def test_a_npy_pair(place: Store, source: Path) -> None:
    data = random_rows(4)
    rows = arrive(place, npy(source, data, np.array([0, 1, 2, 1])))
    assert [(r.source, r.label, r.key, r.row, r.rule) for r in rows] == [
        (f"train_data.npy[{i}]", str(label), "train_data.npy", i, None) for i, label in enumerate([0, 1, 2, 1])
    ]
    assert rows[2].sha256 == sha256(data[2].tobytes())


@pytest.mark.parametrize(
    "labels", [np.array([[1], [0]], np.uint8), np.array([1.0, 0.0]), np.eye(2)[::-1], np.eye(2, dtype=bool)[::-1]]
)
def test_labels_are_numbers_or_one_hot(place: Store, source: Path, labels: Any) -> None:
    npy(source, random_rows(2), labels)
    assert [r.label for r in arrive(place, source, ["cat", "dog"])] == ["dog", "cat"]
    # Classes that are numbers are meant by their names, whatever order they stand in.
    assert [r.label for r in arrive(place, source, ["10", "1", "0"])] == ["1", "0"]


@pytest.mark.parametrize(
    ("labels", "classes", "want"),
    [
        (np.array([-1, 0, 5, 1]), ["cat", "dog"], [1, 0, 1, 0]),
        (np.array([-1, 0, 5, 1]), None, [1, 0, 0, 0]),
        (np.array([0.5, 0, np.nan, np.inf]), None, [1, 0, 1, 1]),
        (np.array([[1, 0], [1, 1], [0, 0], [0.5, 0.5]]), None, [0, 1, 1, 1]),
        (np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [2, -1, 0]]), ["cat", "dog"], [1, 0, 0, 1]),
        (np.array([1, 5, 2, 1]), ["1", "5"], [0, 0, 1, 0]),
    ],
)
def test_labels_out_of_range(place: Store, source: Path, labels: Any, classes: Any, want: list[int]) -> None:
    rows = arrive(place, npy(source, random_rows(4), labels), classes)
    assert [r.rule for r in rows] == ["label-out-of-range" if bad else None for bad in want]


@pytest.mark.parametrize(
    ("data", "labels", "rule", "count"),
    [
        (np.array([{"a": 1}, [2], 3], dtype=object), np.arange(3), "object-array", 3),
        (random_rows(3), np.array(["a", None, 2], dtype=object), "object-array", 3),
        (random_rows(3, (9,)), np.arange(3), "wrong-rank", 3),
        (random_rows(3, (9, 9, 2)), np.arange(3), "wrong-rank", 3),
        (random_rows(3, (9, 9, 3, 1)), np.arange(3), "wrong-rank", 3),
        (random_rows(3), np.zeros((3, 2, 2)), "wrong-rank", 3),
        (np.uint8(3), np.arange(3), "wrong-rank", 1),
        (random_rows(3), np.arange(4), "length-mismatch", 3),
        (random_rows(3), np.array(["cat", "dog", "emu"]), "unreadable-array", 3),
        (np.array(["cat", "dog"]), np.arange(2), "unreadable-array", 1),
        (random_rows(3).astype(complex), np.arange(3), "unreadable-array", 1),
    ],
)
def test_npy_pairs_that_cannot_be_used(
    place: Store, source: Path, data: Any, labels: Any, rule: str, count: int
) -> None:
    rows = arrive(place, npy(source, data, labels))
    assert [r.rule for r in rows] == [rule] * count


class Trap:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp") / TRAP,))


TRAP = f"trap-{uuid.uuid4().hex}"


def test_objects_are_never_unpickled(place: Store, source: Path) -> None:
    npy(source, np.array([Trap(), Trap()], dtype=object), np.arange(2), allow_pickle=True)
    assert [r.rule for r in arrive(place, source)] == ["object-array"] * 2
    assert not (Path("/tmp") / TRAP).exists()


def header(shape: str, dtype: str = "|u1", body: bytes = b"") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "unreadable-array"),
        (b"no array", "unreadable-array"),
        (header("(3, 9, 9)", body=b"x" * 20), "unreadable-array"),
        (header("(3000000000, 90000, 90000)"), "unreadable-array"),
        (header("(3000000000,)", "|O"), "object-array"),
        (header("(-3, 9, 9)"), "unreadable-array"),
        (header("__import__('os').abort()"), "unreadable-array"),
    ],
)
def test_headers_that_lie(place: Store, source: Path, data: bytes, rule: str) -> None:
    """The size is held against the header before anything is allocated; the file is one row."""
    npy(source, random_rows(3), np.arange(3))
    (source / "train_data.npy").write_bytes(data)
    assert [(r.source, r.rule) for r in arrive(place, source)] == [("train_data.npy", rule)]


def test_rows_that_are_no_pixels(place: Store, source: Path) -> None:
    data = random_rows(6).astype(np.float32)
    data[1, 0, 0, 0], data[2, 0, 0, 0], data[3, 0, 0, 0] = np.nan, 300.0, 0.5
    rows = arrive(place, npy(source, data, np.arange(6)))
    assert [r.rule for r in rows] == [None, "not-finite", "out-of-range", "out-of-range", None, None]


def test_floats_in_zero_to_one_are_judged_over_the_whole_array(place: Store, source: Path) -> None:
    data = random_rows(2) / np.float32(255)
    data[1, 0, 0, 0] = np.nan
    rows = arrive(place, npy(source, np.asfortranarray(data), np.arange(2)))
    assert [r.rule for r in rows] == [None, "not-finite"]
    assert rows[0].id == arrive(place, npy(source, random_rows(2), np.arange(2)))[0].id


def test_a_pair_is_landed_whole_unless_each_row_is_known(place: Store, source: Path) -> None:
    data = random_rows(3)
    npy(source, data, np.array([0, 1, 1]))
    digits = [sha256(row.tobytes()) for row in data]
    some = Index(known={digits[0]: "cat", digits[1]: "dog"}, classes=("cat", "dog"))
    listing = land(place, source, "some", some).listing
    assert (len(listing.files), listing.known, listing.refused) == (2, 0, ())
    every = Index(known=some.known, recalled={(digits[2], "dog"): ("too-small", "before")}, classes=("cat", "dog"))
    listing = land(place, source, "every", every).listing
    assert (listing.files, listing.known) == ((), 2)
    assert [(r.source, r.row, r.rule) for r in examined(place, "every")] == [("train_data.npy[2]", 2, "too-small")]


# --- tables ------------------------------------------------------------------------------------------


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in r.values()) for r in rows)]
        path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_table(place: Store, source: Path, suffix: str, given: str) -> None:
    inside = "" if given == "folder" else "deep/er/"
    put(source, f"{inside}a.png", f"{inside}b.png", "unnamed.png", "another.png")
    table = source / f"labels{suffix}"
    write_table(
        table,
        [
            {"Image": f"{inside}a.png", "extra": 1.5, "CATEGORY": 3},
            {"Image": f"./{inside}b.png", "extra": 2.5, "CATEGORY": 4},
            {"Image": f"{inside}a.png", "extra": None, "CATEGORY": 3},
        ],
    )
    rows = arrive(place, source if given == "folder" else table)
    name = f"labels{suffix}"
    assert [(r.source, r.label, r.key, r.row, r.rule) for r in rows] == [
        (f"{name}[0]", "3", f"{inside}a.png", 0, None),
        (f"{name}[1]", "4", f"{inside}b.png", 1, None),
        (f"{name}[2]", "3", f"{inside}a.png", 2, None),
    ]
    batch = landing.open_batch(place, "pets", landing.closed_batches(place, "pets")[0])
    assert len(batch.items) == 3
    assert batch.ignored == (2 if given == "folder" else 0)  # what no row names; beside a file it is not looked for


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_bad_rows_of_a_table(place: Store, source: Path, tmp_path: Path, suffix: str) -> None:
    put(source, "a.png", "b.png")
    put(tmp_path, "secret.png", seed=9)
    (source / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(source / "pipe")
    paths = ["a.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "gone.png", None, "pipe", "b.png"]
    write_table(source / f"t{suffix}", [{"path": p, "label": "cat" if p != "b.png" else None} for p in paths])
    rows = arrive(place, source)
    want = [None, "path-escape", "path-escape", "path-escape", "missing-file", "missing-file", "not-a-file", None]
    assert [r.rule for r in rows] == want
    assert [r.row for r in rows] == list(range(8))
    assert rows[7].label is None
    assert sha256(image(9)) not in {sha256(place.get(key)) for key, _ in place.list("landing")}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_without_one_of_its_columns(place: Store, source: Path, suffix: str) -> None:
    put(source, "a.png")
    write_table(source / f"t{suffix}", [{"path": "a.png", "colour": "red"}] * 3)
    with pytest.raises(UsageError, match=r"known to hold labels.*path, colour"):
        arrive(place, source)
    assert place.keys("landing") == []
    # Landed by hand it is data that is refused.
    for file in source.iterdir():
        place.create(f"landing/pets/plain/{file.name}", file.read_bytes())
    place.create("landing/pets/plain/_READY", b"")
    rows = examined(place, "plain")
    assert [(r.source, r.rule) for r in rows] == [(f"t{suffix}[{i}]", "missing-column") for i in range(3)]
    assert "label" in str(rows[0].reason) and "'colour'" in str(rows[0].reason)


@pytest.mark.parametrize("header", ["text,label", "id,text,label"])
def test_a_table_of_texts_is_not_landed_for_a_pipeline_of_images(place: Store, source: Path, header: str) -> None:
    cells = ",".join({"id": "7", "text": "a fine day", "label": "good"}[name] for name in header.split(","))
    (source / "t.csv").write_text(f"{header}\n{cells}\n")
    with pytest.raises(UsageError, match=r"seems to hold texts.*a column 'text'.*makes a pipeline of texts"):
        land(place, source)
    assert place.keys("landing") == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", b"path,caf\xe9\na.png,cat\n"),
        ("t.csv", b'path,label\n"a.png,cat\n'),
        ("t.csv", b"path\0,label\na.png,cat\n"),
        ("t.csv", b"\xff\xfep\0a\0t\0h\0,\0"[:-1]),
        ("t.csv", b""),
        ("t.parquet", b"PAR1 no parquet PAR1"),
        ("t.parquet", b""),
    ],
)
def test_a_table_that_cannot_be_parsed(place: Store, source: Path, name: str, data: bytes) -> None:
    put(source, "a.png")
    (source / name).write_bytes(data)
    assert [(r.source, r.rule) for r in arrive(place, source)] == [(name, "unreadable-table")]


@pytest.mark.parametrize(
    "text",
    ["\ufeffpath;label\r\na.png;cat\r\n\r\nb.png;dog\r\n", 'path\tlabel\n"a.png"\t cat \nb.png\tdog'],
)
def test_csv_as_people_write_it(place: Store, source: Path, text: str) -> None:
    put(source, "a.png", "b.png")
    (source / "t.csv").write_bytes(text.encode())
    assert [(r.source, r.label, r.rule) for r in arrive(place, source)] == [
        ("t.csv[0]", "cat", None), ("t.csv[1]", "dog", None),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_is_landed_with_its_rows_that_are_not_known(place: Store, source: Path, suffix: str) -> None:
    one, two, _ = put(source, "a.png", "b.png", "c.png")
    table = source / f"t{suffix}"
    names = ["a.png", "b.png", "c.png", "a.png", "gone.png"]
    write_table(table, [{"path": n, "label": label, "note": f"n{n}"} for n, label in zip(names, "xxxyx", strict=True)])
    index = Index(known={sha256(one): "x"}, recalled={(sha256(two), "x"): ("duplicate", "before")})
    landed = land(place, source, "b", index)
    assert landed.listing.known == 1 and landed.listing.rows == (2, 3)
    assert [f.name for f in landed.listing.files] == [f"t{suffix}", "a.png", "c.png"]
    assert [(r.source, r.rule) for r in landed.listing.refused] == [
        (f"t{suffix}[1]", "duplicate"), (f"t{suffix}[4]", "missing-file"),
    ]  # fmt: skip
    assert [(r.row, r.label, r.rule) for r in examined(place, "b")] == [
        (1, "x", "duplicate"), (2, "x", None), (3, "y", None), (4, "x", "missing-file"),
    ]  # fmt: skip
    data = place.get(f"landing/pets/b/t{suffix}")
    kept = pq.read_table(pa.BufferReader(data)).to_pylist() if suffix == ".parquet" else data.decode().splitlines()
    assert kept == (
        [{"path": n, "label": label, "note": f"n{n}"} for n, label in (("c.png", "x"), ("a.png", "y"))]
        if suffix == ".parquet"
        else ["path,label,note", "c.png,x,nc.png", "a.png,y,na.png"]
    )

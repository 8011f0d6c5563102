"""Tables and arrays from outside: what is honest is read, what unfolds to gigabytes or is damaged is one line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow.data.ingest import array_files, bounded_parquet, label_tables
from schemas.errors import UsageError


def parquet(table: pa.Table, **how: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **how)
    return bytes(sink.getvalue())


HONEST = parquet(pa.table({"path": ["a.png", "b.png", None], "label": ["cat", "dog", "dog"], "more": [1, 2, 3]}))


def test_an_honest_table() -> None:
    assert bounded_parquet.columns(HONEST, ("label", "path")).to_pydict() == {
        "label": ["cat", "dog", "dog"], "path": ["a.png", "b.png", None],
    }  # fmt: skip
    part = pq.read_table(pa.BufferReader(bounded_parquet.some_rows(HONEST, [2, 0])))
    assert part.to_pylist() == [
        {"path": None, "label": "dog", "more": 3},
        {"path": "a.png", "label": "cat", "more": 1},
    ]


def test_a_few_bytes_that_unfold_to_gigabytes_are_refused() -> None:
    """5,600 times the same megabyte, by a dictionary: less than a kilobyte on the disk."""
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 5600, pa.int32()), pa.array(["x" * 1_000_000]))
    bomb = parquet(pa.table({"path": rows, "label": rows}), store_schema=False, compression="zstd")
    assert len(bomb) < 10_000
    for ask in (lambda: bounded_parquet.columns(bomb, ("path", "label")), lambda: bounded_parquet.some_rows(bomb, [1])):
        with pytest.raises(ValueError, match=r"more than 256 MiB of memory, though the file has \d+ bytes"):
            ask()


@pytest.mark.parametrize("data", [b"", b"PAR1" * 3, HONEST[:-20], HONEST[:30] + bytes(40) + HONEST[70:]])
def test_a_damaged_file_is_one_line(data: bytes) -> None:
    with pytest.raises(ValueError) as refused:
        bounded_parquet.columns(data, ("path", "label"))
    assert str(refused.value) and "\n" not in str(refused.value)


def test_a_table_that_unfolds_to_gigabytes_is_unreadable_by_name() -> None:
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 5600, pa.int32()), pa.array(["x" * 1_000_000]))
    bomb = parquet(pa.table({"path": rows, "label": rows}), store_schema=False, compression="zstd")
    assert label_tables.read("t.parquet", bomb).broken == ("unreadable-table", ANY)
    beside = parquet(pa.table({"path": ["a.png"] * 5600, "label": ["cat"] * 5600, "more": rows}), store_schema=False)
    assert len(label_tables.read("t.parquet", beside)) == 5600  # nobody reads the third column
    with pytest.raises(UsageError, match="cannot be landed in part"):
        label_tables.some_rows("t.parquet", beside, range(5599))


def test_more_rows_than_a_table_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_parquet, "MOST_ROWS", 2)
    for name, data in (("t.parquet", HONEST), ("t.csv", b"path,label\na,b\nc,d\ne,f\n")):
        rule, reason = label_tables.read(name, data).broken or ("", "")
        assert rule == "unreadable-table" and "rows" in reason


def npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


HEADERS = {
    "nothing": b"",
    "no-dict": b"[1, 2]\n",
    "nested": b"(" * 900 + b"\n",
    "unary": b"-" * 9000 + b"1\n",
    "open-string": b"{'descr': '''\n",
    "tokens": b"{'descr': '|u1', 'fortran_order': False, 'shape': (3L, \n",
    "no-shape": b"{'descr': '|u1', 'fortran_order': False}\n",
    "text-shape": b"{'descr': '|u1', 'fortran_order': False, 'shape': ('a',)}\n",
    "negative": b"{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -2, 1)}\n",
    "bool-shape": b"{'descr': '|u1', 'fortran_order': False, 'shape': (True, 1.5)}\n",
    "huge": b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 28, 28)}\n",
    "rows-of-nothing": b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 0, 28)}\n",
    "no-dtype": b"{'descr': 7, 'fortran_order': False, 'shape': (1,)}\n",
    "odd-dtype": b"{'descr': [('a', 'b', 'c', 'd')], 'fortran_order': False, 'shape': (1,)}\n",
    "not-text": b"\xff\xfe\x00\n",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_header_of_an_array_is_one_rule(name: str, tmp_path: Path) -> None:
    data = npy(HEADERS[name], bytes(4))
    labels = io.BytesIO()
    np.save(labels, np.array([0]))
    for source in (data, str(tmp_path / "x_data.npy")):
        (tmp_path / "x_data.npy").write_bytes(data)
        pair = array_files.read(source, labels.getvalue(), None)
        assert len(pair) == 1 and pair.rules[0] is not None and pair.rules[0][0] == "unreadable-array", pair.rules
    other = array_files.read(labels.getvalue(), data, None)  # and as labels
    assert all(rule is not None for rule in other.rules)

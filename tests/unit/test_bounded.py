"""Parquet from outside: what is honest is read, what unfolds to gigabytes or is damaged is one line."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow import bounded


def parquet(table: pa.Table, **how: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **how)
    return bytes(sink.getvalue())


HONEST = parquet(pa.table({"path": ["a.png", "b.png", None], "label": ["cat", "dog", "dog"], "more": [1, 2, 3]}))


def test_an_honest_table() -> None:
    assert bounded.columns(HONEST, ["label", "path"]).to_pydict() == {
        "label": ["cat", "dog", "dog"], "path": ["a.png", "b.png", None],
    }  # fmt: skip
    part = pq.read_table(pa.BufferReader(bounded.some_rows(HONEST, [2, 0])))
    assert part.to_pylist() == [
        {"path": None, "label": "dog", "more": 3},
        {"path": "a.png", "label": "cat", "more": 1},
    ]


def test_a_few_bytes_that_unfold_to_gigabytes_are_refused() -> None:
    """5,600 times the same megabyte, by a dictionary: less than a kilobyte on the disk."""
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 5600, pa.int32()), pa.array(["x" * 1_000_000]))
    bomb = parquet(pa.table({"path": rows, "label": rows}), store_schema=False, compression="zstd")
    assert len(bomb) < 10_000
    for ask in (lambda: bounded.columns(bomb, ["path", "label"]), lambda: bounded.some_rows(bomb, [1])):
        with pytest.raises(ValueError, match=r"more than 256 MiB of memory, though the file has \d+ bytes"):
            ask()


@pytest.mark.parametrize("data", [b"", b"PAR1" * 3, HONEST[:-20], HONEST[:30] + bytes(40) + HONEST[70:]])
def test_a_damaged_file_is_one_line(data: bytes) -> None:
    with pytest.raises(ValueError) as refused:
        bounded.columns(data, ["path", "label"])
    assert str(refused.value) and "\n" not in str(refused.value)

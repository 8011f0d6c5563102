"""Parquet from bytes in memory. What does not belong here: which bytes, and what they must hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def read(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in `data`: all its columns, or those named, in that order.

    In this thread alone. What `pyarrow.parquet.read_table` starts on Arrow's threads may still hold Python's bytes
    when it has returned; a thread that lets go of them while the interpreter ends aborts the process, its work done
    and its status lost (apache/arrow#34314). For tables of this size it is no slower.

    Raises pyarrow.ArrowInvalid where it is not Parquet, KeyError where a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data))
    if columns is None:
        return file.read(use_threads=False)
    return file.read(columns=list(columns), use_threads=False).select(list(columns))


def layout(data: bytes) -> tuple[str, pa.Schema]:
    """The program and the release that wrote the file, as it says, and its columns. Raises pyarrow.ArrowInvalid.

    Files of one layout have the same bytes where they have the same rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data))
    return str(file.metadata.created_by), file.schema_arrow

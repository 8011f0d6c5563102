"""Preprocessed examples as Parquet parts: immutable, under the digest of their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import parquet, store_keys
from leptonflow.core.hashing import sha256
from leptonflow.data.ingest.layouts import shown
from leptonflow.storage.objects import place, recorded
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.records import PartRef

if TYPE_CHECKING:
    import pyarrow as pa

IDENTITY = ("id", "sha256", "label", "batch")
BUFFER = 1 << 20  # bytes that are read of a column at a time, where a part is read by rows


class Accepted(NamedTuple):
    """One accepted example, as it goes into a part. `encoded`: see `Examined`. group: None in a pipeline without."""

    id: str
    sha256: str
    label: str
    source: str
    key: str | None
    row: int | None
    facts: dict[str, Any]
    encoded: bytes
    group: str | None = None


@dataclass(frozen=True)
class EncodedPart:
    """A part's bytes, not yet on a store."""

    data: bytes
    sha256: str
    rows: int


def facts_columns(facts: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
    """The facts of N examples, one array of N for each fact, in the order in which they first occur."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in facts for name in row)
    return {name: pa.array([row.get(name) for row in facts]) for name in names}


def encode_part(
    config: Pipeline, batch: str, examples: Sequence[Accepted], facts: Mapping[str, pa.Array] | None = None
) -> EncodedPart | None:
    """The Parquet of some examples; None where there is no example. The same examples give the same bytes.

    config  its workload's codec says how an example lies in it
    facts  theirs as `facts_columns` gives them, where they are at hand
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not examples:
        return None
    codec = catalog.load(config.workload).codec
    column, kind = codec.column, codec.arrow(config.input)
    facts = facts_columns([e.facts for e in examples]) if facts is None else facts
    columns = {name: pa.array([getattr(e, name) for e in examples], pa.string()) for name in ("id", "sha256", "label")}
    columns["batch"] = pa.array([batch] * len(examples), pa.string())
    columns["source"] = pa.array([e.source for e in examples], pa.string())
    columns["key"] = pa.array([shown(e.key) if e.key else None for e in examples], pa.string())
    columns["row"] = pa.array([e.row for e in examples], pa.int64())
    if config.group is not None:
        columns["group"] = pa.array([e.group for e in examples], pa.string())
    columns["facts"] = _struct(facts, len(examples))
    columns[column] = pa.array([e.encoded for e in examples], kind)
    sink = pa.BufferOutputStream()
    # A dictionary over the examples would only grow them; these columns gain from one.
    pq.write_table(
        pa.table(columns), sink, compression="zstd", use_dictionary=["label", "batch"], row_group_size=16_384
    )
    data = sink.getvalue().to_pybytes()
    return EncodedPart(data, sha256(data), len(examples))


def _struct(columns: Mapping[str, pa.Array], rows: int) -> pa.Array:
    import pyarrow as pa

    if not columns:
        return pa.array([{}] * rows, pa.struct([]))
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def create_part(store: Store, pipeline: str, batch: str, preprocessing: str, part: EncodedPart) -> PartRef:
    """Put a part where its digest says."""
    key = store_keys.examples_key(pipeline, part.sha256)
    place(store, key, part.data)
    return PartRef(key=key, sha256=part.sha256, rows=part.rows, batch=batch, preprocessing=preprocessing)


def write_part(
    store: Store, config: Pipeline, batch: str, preprocessing: str, examples: Sequence[Accepted]
) -> PartRef | None:
    """Write one part; None where there is no example. The same examples give the same bytes and key."""
    part = encode_part(config, batch, examples)
    return None if part is None else create_part(store, config.name, batch, preprocessing, part)


def read_part(store: Store, part: PartRef, columns: Sequence[str]) -> pa.Table:
    """Some columns of a part, its bytes held against the recorded sha256. Raises Damaged."""
    return parquet.read(recorded(store, part.key, part.sha256), columns)


def read_columns(store: Store, part: PartRef, columns: Sequence[str]) -> pa.Table:
    """Some small columns of a part, held against its sha256 too; of a local file no examples are kept in memory."""
    import pyarrow.parquet as pq

    path = _intact(store, part)
    if path is not None:
        return pq.ParquetFile(path).read(columns=list(columns), use_threads=False)
    return read_part(store, part, columns)  # read again, then refused


def read_rows(store: Store, part: PartRef, columns: Sequence[str], count: int) -> Iterator[pa.Table]:
    """Some columns of a part, `count` rows at a time, its bytes held against the recorded sha256 first.

    Of a local file no more than these rows are in memory. Raises Damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _intact(store, part)
    source = pa.BufferReader(recorded(store, part.key, part.sha256)) if path is None else path
    with pq.ParquetFile(source, buffer_size=BUFFER) as file:
        for batch in file.iter_batches(count, columns=list(columns), use_threads=False):
            yield pa.Table.from_batches([batch]).select(list(columns))


def _intact(store: Store, part: PartRef) -> Path | None:
    """The local file of a part that is as it was recorded; None where there is no such file."""
    path = store.path(part.key)
    if path is None or not path.is_file():
        return None
    with path.open("rb") as file:
        return path if hashlib.file_digest(file, "sha256").hexdigest() == part.sha256 else None

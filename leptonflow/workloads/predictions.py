"""Predictions as Parquet bytes: one row per example, with the whole output of the model.

Out-of-fold and holdout predictions have the same columns. Scores are computed from the bytes that
lie on the store, so that two writers of one version tell the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.core import parquet

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from leptonflow.workloads.base import Target


def write(
    target: Target,
    ids: Sequence[str],
    truth: NDArray[Any],
    outputs: NDArray[np.float64],
    classes: Sequence[str],
    fold: int | None,
    sources: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> bytes:
    """N examples' ids, true values, outputs and original names as a Parquet file.

    Columns: example_id, those of `target.columns`, fold (null: holdout), source, and with groups example_group.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = target.columns(truth, outputs, classes)
    listed = own.pop("probabilities", None)  # where it has lain in every release
    table = pa.table(
        {
            "example_id": pa.array(list(ids), pa.string()),
            **own,
            "fold": pa.array([fold] * len(truth), pa.int64()),
            **({} if listed is None else {"probabilities": listed}),
            "source": pa.array([None] * len(truth) if sources is None else list(sources), pa.string()),
            **({} if groups is None else {"example_group": pa.array(list(groups), pa.string())}),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def read(target: Target, data: bytes, classes: Sequence[str]) -> tuple[list[str], NDArray[Any], NDArray[np.float64]]:
    """(ids, N true values, N outputs) of a file that `write` made."""
    table = parquet.read(data, ["example_id", *target.stored])
    return table["example_id"].to_pylist(), *target.restore(table, classes)


def matrix(column: pa.ChunkedArray, count: int | None = None) -> NDArray[np.float64]:
    """A column of lists of K numbers as an N x K array; count: K, where there may be no row."""
    import numpy as np

    flat = np.asarray(column.combine_chunks().flatten(), np.float64)
    return flat.reshape(len(column), flat.size // max(1, len(column)) if count is None else count)

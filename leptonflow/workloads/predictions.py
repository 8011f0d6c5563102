"""Predictions as Parquet bytes: one row per example, with the whole probability vector.

Out-of-fold and holdout predictions have the same columns. Scores are computed from the bytes that
lie on the store, so that two writers of one version tell the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leptonflow.core import parquet

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


def write(
    ids: Sequence[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    fold: int | None,
    sources: Sequence[str] | None = None,
) -> bytes:
    """N examples' ids, true class numbers, N x K probabilities and original names as a Parquet file.

    Columns: example_id, label, predicted (names), probability (of predicted), probability_true, fold
    (null: holdout), probabilities (list of K float64 in class order), source.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = np.asarray(classes, object)
    predicted = probabilities.argmax(axis=1)
    rows = np.arange(len(labels))
    count = probabilities.shape[1]
    offsets = pa.array(np.arange(0, (len(labels) + 1) * count, count, dtype=np.int32))
    table = pa.table(
        {
            "example_id": pa.array(list(ids), pa.string()),
            "label": pa.array(names[labels], pa.string()),
            "predicted": pa.array(names[predicted], pa.string()),
            "probability": pa.array(probabilities[rows, predicted], pa.float64()),
            "probability_true": pa.array(probabilities[rows, labels], pa.float64()),
            "fold": pa.array([fold] * len(labels), pa.int64()),
            "probabilities": pa.ListArray.from_arrays(offsets, pa.array(probabilities.ravel(), pa.float64())),
            "source": pa.array([None] * len(labels) if sources is None else list(sources), pa.string()),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def read(data: bytes, classes: Sequence[str]) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """(ids, true class numbers, N x K probabilities) of a file that `write` made."""
    import numpy as np

    table = parquet.read(data, ["example_id", "label", "probabilities"])
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.asarray([numbers[name] for name in table["label"].to_pylist()], np.int64)
    return table["example_id"].to_pylist(), labels, matrix(table["probabilities"], len(classes))


def matrix(column: pa.ChunkedArray, count: int) -> NDArray[np.float64]:
    """A column of lists of K numbers as an N x K array."""
    import numpy as np

    flat = np.asarray(column.combine_chunks().flatten(), np.float64)
    return flat.reshape(-1, count)

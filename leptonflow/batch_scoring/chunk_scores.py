"""Scores one chunk of examples, in this process or in a child: reads them, predicts, and gives the rows as Parquet.

What does not belong here: which examples make a chunk, and where its rows go (scoring_job).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonflow.batch_scoring.scored_sources import BYTES, FAULT, FILE, ExampleRef
from leptonflow.core import files
from leptonflow.core.child_processes import Answer, Task
from leptonflow.core.concurrency import in_order
from leptonflow.registry import served_models
from leptonflow.registry.served_models import ServedModel
from leptonflow.storage.address import open_store
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Examined, Workload
from schemas.errors import NotFound, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

# A dictionary of a column without few values, and large pages of each column, are memory and no use.
FORMAT: Mapping[str, Any] = {
    "compression": "zstd", "use_dictionary": ["label", "version", "error"], "data_page_size": 1 << 16
}  # fmt: skip
FAILED, RUNTIME = b"leptonflow.failed", b"leptonflow.runtime"  # metadata of a chunk's file


def warm() -> None:
    """What a child does before its first task."""
    import numpy  # noqa: F401
    import pyarrow.parquet  # noqa: F401


def perform(task: Task) -> Answer:
    """([], the chunk's rows as a Parquet file). task: store, pipeline, version, manifest_sha256, code, examples."""
    model = _model(*(task[name] for name in ("store", "pipeline", "version", "manifest_sha256", "code")))
    return [], encoded(rows(model, [ExampleRef(*each) for each in task["examples"]]), model.runtime)


@lru_cache(maxsize=1)  # of this process
def _model(store: str, pipeline: str, version: str, manifest_sha256: str, code: bool) -> ServedModel:
    # One thread: sums over several could differ in their last bits, and processes are what uses more cores.
    return served_models.load(open_store(store), pipeline, version, manifest_sha256, code, threads=1)


def rows(model: ServedModel, examples: Sequence[ExampleRef]) -> pa.Table:
    """source, id, label, probability, a column for each class or output, version, error: a row for each example."""
    import pyarrow as pa

    workload, own = catalog.load(model.manifest.workload), model.manifest.input
    found = list(_examined(workload, own, examples))
    at = [number for number, each in enumerate(found) if each.encoded is not None]
    outputs = None
    predicted: dict[int, tuple[str, float | None]] = {}
    if at:
        stacked = workload.codec.stack([bytes(found[number].encoded or b"") for number in at], own)
        outputs = model.predict_encoded(model.encode(stacked))[0]
        predicted = {n: workload.target.answer(row, model.classes) for n, row in zip(at, outputs, strict=True)}
    predictions = [predicted.get(number, (None, None)) for number in range(len(found))]
    columns: dict[str, Any] = {
        "source": pa.array([_valid(each.name) for each in examples], pa.string()),
        "id": pa.array([each.id for each in found], pa.string()),
        "label": pa.array([label for label, _ in predictions], pa.string()),
        "probability": pa.array([probability for _, probability in predictions], pa.float64()),
        **_outputs(model, at, outputs, len(found)),
        "version": pa.array([model.manifest.version] * len(found), pa.string()),
        "error": pa.array([each.refusal and _valid(each.refusal) for each in found], pa.string()),
    }
    return pa.table(list(columns.values()), names=list(columns))


def _examined(workload: Workload, own: Any, examples: Sequence[ExampleRef]) -> Iterator[Examined]:
    """Objects are fetched side by side, in order; what is on this machine is read one after another."""
    look = partial(_look, workload, own)
    kinds = {each.kind for each in examples}
    return map(look, examples) if kinds <= {FILE, BYTES, FAULT} else in_order(look, examples)


def _look(workload: Workload, own: Any, example: ExampleRef) -> Examined:
    try:
        if example.kind == FAULT:
            return Examined(None, example.value)
        if example.kind == BYTES:
            return workload.examine(base64.b64decode(example.value), own)
        if example.kind == FILE:
            return workload.examine(files.read(Path(example.value), files.EXAMPLES), own)
        return workload.examine(open_store(example.of).get(example.value), own)
    except OSError as error:
        return Examined(None, f"cannot be read: {error.strerror or error}")
    except (NotFound, UsageError) as error:  # an object that is gone, or that no client can name
        return Examined(None, error.line())


def _outputs(
    model: ServedModel, at: Sequence[int], outputs: NDArray[np.float64] | None, count: int
) -> dict[str, pa.Array]:
    """probability[CLASS], or output[0] and so on of a workload without classes; null where there is no prediction."""
    import numpy as np
    import pyarrow as pa

    width = len(model.classes) if outputs is None else outputs.shape[1]
    names = [f"probability[{name}]" for name in model.classes] or [f"output[{number}]" for number in range(width)]
    values = np.zeros((count, width))
    missing = np.ones(count, bool)
    if outputs is not None:
        values[list(at)], missing[list(at)] = outputs, False
    return {name: pa.array(values[:, number], pa.float64(), mask=missing) for number, name in enumerate(names)}


def _valid(text: str) -> str:
    """A name whose bytes are no UTF-8 as it can be recorded."""
    return text.encode("utf-8", "backslashreplace").decode()


def encoded(table: pa.Table, runtime: str) -> bytes:
    """The rows as a Parquet file; the same rows have the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    failed = len(table) - table.column("error").null_count
    sink = pa.BufferOutputStream()
    told = {FAILED: str(failed).encode(), RUNTIME: runtime.encode()}
    pq.write_table(table.replace_schema_metadata(told), sink, **FORMAT)
    return bytes(sink.getvalue())

"""Scores sources of any size by the champion, chunk by chunk: what is finished stays, whatever ends the process.

A chunk's rows are one Parquet file, whose name says its examples, their state and the version: a file that is there is
finished, and one whose examples have changed since is another. Few chunks are in memory at once. What does not belong
here: reading and predicting (chunk_scores).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonflow.batch_scoring import chunk_scores, scored_sources
from leptonflow.batch_scoring.scored_sources import ExampleRef
from leptonflow.core import progress
from leptonflow.core.child_processes import Answer, Pool, Task
from leptonflow.core.hashing import sha256, short
from leptonflow.data.ingest.label_columns import DEFAULT, Columns
from leptonflow.evaluation import champion_predictions
from leptonflow.registry import packages
from leptonflow.storage.address import open_store
from leptonflow.storage.objects import adopt, steady
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas import own_model
from schemas.config import Pipeline
from schemas.errors import ExaminerLost, LeptonflowError, UsageError
from schemas.records import ModelManifest, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_BYTES = 16 << 20  # of encoded examples in one chunk
MOST, LEAST = 512, 16  # examples of one chunk
GROUP_BYTES = 2 << 20  # of rows in one row group of the result
STAGE = "scored examples"


@dataclass(frozen=True)
class Scored:
    """What was scored. parts: the chunks' files, in order; kept: rows that were there before."""

    manifest: ModelManifest
    parts: tuple[ObjectRef, ...]
    rows: int
    failed: int
    kept: int
    runtimes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        return {
            "pipeline": self.manifest.pipeline, "version": self.manifest.version, "rows": self.rows,
            "failed": self.failed, "kept": self.kept, "runtime": ", ".join(self.runtimes),
        }  # fmt: skip


def to_file(
    store: Store,
    config: Pipeline,
    given: Sequence[str],
    output: Path,
    *,
    processes: int = 1,
    columns: Columns = DEFAULT,
    root: Path | None = None,
) -> dict[str, Any]:
    """Score the sources into one Parquet file. Finished chunks lie in OUTPUT.parts until it is there, whole.

    Returns {pipeline, version, rows, failed, kept, runtime, output}. Raises UsageError where there is nothing to score,
    a table has no such column, or another process writes to the same output.
    """
    folder = output.with_name(f"{output.name}.parts")
    if output.is_dir() or not output.name:
        raise UsageError("--output is a folder", expected="the path of a Parquet file", received=str(output))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            "--output cannot be written", expected="a folder that this user may write to", received=str(error)
        ) from None
    with _alone(folder):
        parts = open_store(folder.absolute().as_uri())
        found = score(store, config, given, parts, "", processes=processes, columns=columns, root=root)
        try:
            _merge(parts, found, output)
            shutil.rmtree(folder)
        except OSError as error:
            raise LeptonflowError(
                f"{output} cannot be written", received=error.strerror or str(error),
                hint="Make room for it, and run the same command again: what was scored is kept",
            ) from None  # fmt: skip
    return {**found.document(), "output": str(output)}


def score(
    store: Store,
    config: Pipeline,
    given: Sequence[str],
    parts: Store,
    prefix: str,
    *,
    processes: int = 1,
    columns: Columns = DEFAULT,
    root: Path | None = None,
) -> Scored:
    """Score the sources by the champion into files under `prefix` of the store `parts`, in order. Safe to repeat."""
    champion = champion_predictions.current(store, config.name)
    manifest = packages.manifest(store, config.name, champion.version)
    workload = catalog.load(manifest.workload)
    if workload.cells is None:
        columns = columns._replace(cells=None)
    elif columns.cells is None:
        columns = columns._replace(cells=workload.cells(manifest.input))
    job: Task = {
        "store": store.uri, "pipeline": config.name, "version": champion.version,
        "manifest_sha256": champion.manifest_sha256, "code": own_model.runs_code(config.model),
    }  # fmt: skip
    size = max(LEAST, min(MOST, CHUNK_BYTES // max(1, workload.codec.bytes(manifest.input))))
    chunks = _chunks(scored_sources.examples(given, workload, columns, root), size)
    refs: list[ObjectRef] = []
    rows = failed = kept = 0
    runtimes: dict[str, None] = {}
    for key, data, new in _files(job, chunks, parts, prefix, processes):
        found = _metadata(data)
        refs.append(ObjectRef(key=key, sha256=sha256(data), bytes=len(data)))
        rows, failed = rows + found.num_rows, failed + int(found.metadata[chunk_scores.FAILED])
        kept += 0 if new else found.num_rows
        runtimes[found.metadata[chunk_scores.RUNTIME].decode()] = None
        progress.report(STAGE, rows, 0)
    return Scored(manifest, tuple(refs), rows, failed, kept, tuple(runtimes))


def _chunks(examples: Iterable[ExampleRef], size: int) -> Iterator[list[ExampleRef]]:
    chunk: list[ExampleRef] = []
    for each in examples:
        chunk.append(each)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _files(
    job: Task, chunks: Iterable[list[ExampleRef]], parts: Store, prefix: str, processes: int
) -> Iterator[tuple[str, bytes, bool]]:
    """(key, the file, whether it was made now) of each chunk, in order; those that are missing are made."""
    asked: deque[tuple[str, bool]] = deque()  # the chunks that were read ahead, and whether they are made

    def tasks() -> Iterator[Task]:
        for number, chunk in enumerate(chunks):
            key = f"{prefix}{number:08d}-{_digest(job, chunk)}.parquet"
            new = parts.size(key) is None
            asked.append((key, new))
            if new:
                yield {**job, "examples": chunk}

    with contextlib.ExitStack() as stack:
        if processes > 1:
            pool = stack.enter_context(Pool(chunk_scores.__name__, processes))
            answers: Iterator[Answer] = _translated(pool.map(tasks()))
        else:
            answers = map(chunk_scores.perform, tasks())
        for _, data in answers:
            while not asked[0][1]:
                yield asked[0][0], steady(parts, asked[0][0]), False
                asked.popleft()
            key, _ = asked.popleft()
            yield key, adopt(parts, key, data), True
        for key, _ in asked:
            yield key, steady(parts, key), False


def _digest(job: Task, chunk: list[ExampleRef]) -> str:
    """Of the version, and of what is known of the examples; a file's name may have bytes that are no UTF-8."""
    return short(sha256(json.dumps([job["manifest_sha256"], chunk]).encode()))


def _translated(answers: Iterator[Answer]) -> Iterator[Answer]:
    try:
        yield from answers
    except ExaminerLost as lost:
        raise LeptonflowError(
            "a process that scores examples ended", expected="it runs until it is stopped", received=lost.received,
            hint="Run the same command again to continue; with fewer --processes where the machine ran out of memory",
        ) from None  # fmt: skip


def _metadata(data: bytes) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(data)).metadata


def _merge(parts: Store, found: Scored, output: Path) -> None:
    """The rows of all parts as one file, which is there whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = [str(parts.path(part.key)) for part in found.parts]
    schemas = [pq.read_schema(path).remove_metadata() for path in paths]
    schema = pa.unify_schemas(schemas)  # a chunk without any prediction does not know the outputs' columns
    temporary = output.with_name(f"{output.name}.tmp")
    with pq.ParquetWriter(temporary, schema, **chunk_scores.FORMAT) as writer:
        for group in _groups(paths, schema):
            writer.write_table(group, row_group_size=len(group))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, output)


def _groups(paths: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[pa.Table] = []
    for path in paths:
        with pq.ParquetFile(path, memory_map=True) as file:
            table = file.read(use_threads=False).replace_schema_metadata(None)
        empty = schema.empty_table()
        waiting.append(pa.concat_tables([empty, table], promote_options="default").select(schema.names))
        if sum(each.nbytes for each in waiting) >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time writes to this output; the lock goes with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                "another command writes to the same --output", expected="one at a time", received=str(folder)
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)

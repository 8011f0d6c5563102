"""Parquet from outside, read in a process of its own whose memory is bounded.

A few kilobytes may unfold to gigabytes, and what the file's metadata says of its size may be a lie: only the system's
own limit holds whatever the file does. Our own Parquet is read by `parquet`. What does not belong here: what the
columns mean (label_tables).
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonflow.core.child_processes import python_path
from schemas.errors import ExaminerLost, words_of

if TYPE_CHECKING:
    import pyarrow as pa

LEAST = 256 << 20  # bytes that any table may take, decoded
TIMES = 20  # ... and how many times its own size a larger one may
MOST_ROWS = 10_000_000
_CHILD = "from leptonflow.data.ingest.bounded_parquet import serve; serve()"


@lru_cache(maxsize=1)  # a table is looked at, judged and landed one after the other
def columns(data: bytes, names: tuple[str, ...]) -> pa.Table:
    """These columns of the Parquet file in `data`. Raises ValueError where they cannot be read within the bounds."""
    import pyarrow as pa

    return pa.ipc.open_stream(_ask(data, {"columns": names})).read_all()


def some_rows(data: bytes, rows: Sequence[int]) -> bytes:
    """A Parquet file with only these rows of the one in `data`, in this order. Raises what `columns` raises."""
    return _ask(data, {"rows": list(rows)})


def budget(size: int) -> int:
    """The bytes that a table in a file of `size` bytes may take, decoded."""
    return max(LEAST, TIMES * size)


def _ask(data: bytes, question: Mapping[str, Any]) -> bytes:
    # Arrow's own allocators reserve more than they use, and each thread has its own: the limit counts what is reserved.
    plain = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", _CHILD],
        input=json.dumps(question).encode() + b"\n" + data,
        capture_output=True,
        env={**os.environ, **plain, "PYTHONPATH": python_path()},
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    if done.returncode in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
        how = signal.Signals(-done.returncode).name
        raise ExaminerLost("the process that reads a Parquet table ended", received=f"killed by {how}")
    lines = done.stderr.decode(errors="replace").split("\n")
    told = next((line.removeprefix("refused: ") for line in lines if line.startswith("refused: ")), None)
    raise ValueError(told or _too_large(len(data)))  # without a word: it ran into the limit in a library's own code


def _too_large(size: int) -> str:
    return f"its rows take more than {budget(size) >> 20} MiB of memory, though the file has {size} bytes"


def serve() -> None:
    """What the process does: one question on standard input, its answer on standard output."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    question = json.loads(sys.stdin.buffer.readline())
    data = sys.stdin.buffer.read()
    _limit(2 * budget(len(data)))  # a table, and a copy of it on its way out
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if file.metadata.num_rows > MOST_ROWS:
            raise ValueError(f"{file.metadata.num_rows} rows; a table has {MOST_ROWS} at most")
        sink = pa.BufferOutputStream()
        if "columns" in question:
            table = _bounded(file, len(data), question["columns"]).select(question["columns"])
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        else:
            pq.write_table(_bounded(file, len(data), None).take(question["rows"]), sink)
        sys.stdout.buffer.write(sink.getvalue())
        sys.stdout.flush()
    except MemoryError:
        _refuse(_too_large(len(data)))
    except Exception as error:  # noqa: BLE001 - a file from outside may make a library raise anything
        _refuse(words_of(error))


def _refuse(why: str) -> None:
    print(f"refused: {why}", file=sys.stderr, flush=True)  # noqa: T201 - the answer of this process
    os._exit(1)


def _bounded(file: Any, size: int, names: Sequence[str] | None) -> pa.Table:
    """The table, read by row groups, so that a large one is refused before it is there."""
    import pyarrow as pa

    groups, total = [], 0
    for number in range(file.metadata.num_row_groups):
        groups.append(file.read_row_group(number, columns=names, use_threads=False))
        total += groups[-1].nbytes
        if total > budget(size):
            raise MemoryError
    return pa.concat_tables(groups) if groups else file.read(columns=names, use_threads=False)


def _limit(more: int) -> None:
    """From here on this process gets `more` bytes of memory and no more."""
    try:
        used = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:  # not Linux: what is read is counted all the same, group by group
        return
    if used is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = (int(used[1]) << 10) + more
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))

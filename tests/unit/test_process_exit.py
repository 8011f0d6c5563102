"""How a process of ours ends, and what reads Parquet bytes: no thread of another's may undo a finished command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leptonflow.core import parquet
from leptonflow.tables import table_files

ROOT = Path(__file__).resolve().parents[2]

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

# A daemon thread that comes for the interpreter's lock while it is taken apart is what aborts a process; whether
# one does is chance. That nothing is taken apart is none: an object of the main module would be told.
ENDING = """
import atexit, threading
from cli import main

class Taken:
    def __del__(self):
        print("taken apart")

taken = Taken()
atexit.register(print, "at exit")

def command(arguments):
    threading.Timer(0.2, print, ["from a thread"]).start()
    print("answer")
    {what}

main.main = command
main.run()
"""


@pytest.mark.parametrize(
    ("what", "status", "taken", "told"),
    [
        ("return 4", 4, "", ""), ("return 0", 0, "", ""),
        ("raise ValueError('with --debug')", 1, "taken apart\n", "ValueError: with --debug"),
    ],
)  # fmt: skip
def test_a_command_ends_without_taking_the_interpreter_apart(what: str, status: int, taken: str, told: str) -> None:
    """All else that Python does at the end is done: threads are waited for, the functions called, the rest written."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(what=what)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (status, "answer\nfrom a thread\nat exit\n" + taken)
    assert told in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: no output that is full")
def test_an_answer_that_could_not_be_written_is_one_line_and_no_success() -> None:
    code = "from cli import main; main.main = lambda arguments: print('answer') or 0; main.run()"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, env=BUFFERED, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.decode() == "leptonflow: the output could not be written completely: No space left on device\n"


def test_a_reader_that_left_is_no_traceback() -> None:
    code = "from cli import main; main.main = lambda arguments: print('answer') or 0; main.run()"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, env=BUFFERED, timeout=60
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def written(**columns: list[object]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def test_parquet_bytes_are_read_whole_and_by_column_in_the_order_asked_for() -> None:
    data = written(a=[1, 2], b=["x", None], c=[[0.5], [0.25, 0.25]])
    assert parquet.read(data).to_pydict() == {"a": [1, 2], "b": ["x", None], "c": [[0.5], [0.25, 0.25]]}
    assert list(parquet.read(data, ["c", "a"]).to_pydict().items()) == [("c", [[0.5], [0.25, 0.25]]), ("a", [1, 2])]
    with pytest.raises(KeyError, match="missing"):
        parquet.read(data, ["a", "missing"])
    with pytest.raises(pa.ArrowInvalid):
        parquet.read(b"not Parquet")
    assert table_files.decode(table_files.encode(pa.table({"a": [1]})), "here").to_pydict() == {"a": [1]}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc: threads cannot be counted here")
def test_no_thread_of_arrows_is_started_to_read_bytes(tmp_path: Path) -> None:
    """In a process of its own; `read_table` is what would start some, so that the count is seen to count."""
    path = tmp_path / "rows.parquet"
    path.write_bytes(written(a=list(range(1000)), b=[str(i) for i in range(1000)]))
    code = (
        "import os, sys, pyarrow as pa, pyarrow.parquet as pq; from leptonflow.core import parquet; "
        "data = open(sys.argv[1], 'rb').read(); count = lambda: len(os.listdir('/proc/self/task')); "
        "first = count(); parquet.read(data); second = count(); pq.read_table(pa.BufferReader(data)); "
        "print(second - first, count() > second)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0", "True"], done.stderr

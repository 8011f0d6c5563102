"""`leptonflow watch` at rest: its share of a core, its memory, and what it reads beside 10,000 closed batches.

On a directory (file system events, a poll every 60 s) and on the S3 servers (a poll every 5 s). Nine tenths of the
batches are in the dataset, most others were refused, a hundredth waits and was told of at the start; three are open.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import images, measure
from benchmarks.measure import ROOT, environment, proportional, table
from flows import server
from leptonflow.core import pipeline_files, store_keys
from leptonflow.core.hashing import canonical, sha256
from leptonflow.data.validation import contracts
from leptonflow.runs import planning
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import store_id
from tests import servers

NAME = "bench"
CONTENT = "c" * 64  # of the dataset; a run has finished on it
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 300.0
COUNTED = "import sys; from benchmarks import arrivals; arrivals.count_reads(sys.argv.pop(1)); "
COMMAND = COUNTED + "from cli import main; sys.argv[0] = 'leptonflow'; main.run()"


def count_reads(path: str) -> None:
    """In the watcher's process: count what the stores are asked for; SIGUSR1 writes the counts to a file."""
    from leptonflow.storage.directory_store import DirectoryStore
    from leptonflow.storage.object_store import ObjectStore

    counts: Counter[str] = Counter()

    def counting(verb: str, function: Any) -> Any:
        def counted(self: Any, key: Any) -> Any:
            counts[verb] += 1 if isinstance(key, str) else len(key)
            return function(self, key)

        return counted

    for kind in (DirectoryStore, ObjectStore):
        for verb in ("get", "size", "list", "folders"):
            setattr(kind, verb, counting(verb, getattr(kind, verb)))

    def write(*_: object) -> None:
        Path(path + ".new").write_text(json.dumps(counts))
        os.replace(path + ".new", path)

    signal.signal(signal.SIGUSR1, write)


def fill(store: Store, folder: Path, count: int) -> None:
    """Closed batches, the records of those that are in the dataset, and the outcomes of those that are not."""
    config = pipeline_files.load_config(str(folder / f"{NAME}.yaml"))
    names = [f"batch-{number:05}" for number in range(count)]
    store.create_many((f"landing/{NAME}/{name}/_READY", b"") for name in names)
    store.create_many((f"landing/{NAME}/open-{number}/part", b"x") for number in range(3))
    accepted, refused = names[: count * 9 // 10], names[count * 9 // 10 : -count // 100]
    store.create_many(records(store_id(store), accepted))
    contract = contracts.digest(config)
    store.create_many((store_keys.outcome_key(NAME, name, contract), b"{}") for name in refused)
    run = {"asked": planning.asked(config, CONTENT), "document": {"report": ""}}
    store.create(store_keys.run_key(NAME, "run", "manifest.json"), canonical(run))


def records(identity: str, batches: list[str]) -> Iterator[tuple[str, bytes]]:
    """A commit log of the size that real ones have: about 3 kB a record."""
    expectations = [{"expectation": "expect_column_values_to_be_between", "observed": "x" * 150}] * 12
    previous = None
    for number, batch in enumerate(batches, 1):
        body = {
            "batch": batch,
            "outcome": {"expectations": expectations},
            "labels": {str(n): number for n in range(10)},
            "content": CONTENT,
            "snapshot": CONTENT[:12],
        }
        record = {
            "number": number, "id": batch, "kind": "batch", "who": "bench", "why": batch, "at": "2026-01-01T00:00:00Z",
            "previous": previous, "store": identity, "body": body,
        }  # fmt: skip
        data = canonical(record)
        previous = sha256(data)
        yield f"snapshots/{NAME}/log/{number:08d}.json", data


@contextmanager
def watching(folder: Path, counts: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A watcher that has had its first look."""
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-c", COMMAND, str(counts), "watch", f"{NAME}.yaml"]
        path = {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=folder, env=environment(**variables, **path), stdout=log, stderr=log)
        try:
            until = time.monotonic() + START_SECONDS
            while True:
                log.seek(0)
                told = log.read().decode()
                if "Watching " in told:
                    break
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"the watcher did not start:\n{told[-2000:]}")
                time.sleep(0.2)
            yield process
        finally:
            process.terminate()
            process.wait(30)


def busy(pid: int) -> float:
    """The CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def reads(process: subprocess.Popen[bytes], counts: Path) -> Counter[str]:
    counts.unlink(missing_ok=True)
    process.send_signal(signal.SIGUSR1)
    while not counts.exists():
        if process.poll() is not None:
            raise SystemExit(f"the watcher ended with status {process.returncode}")
        time.sleep(0.01)
    return Counter(json.loads(counts.read_text()))


def at_rest(title: str, folder: Path, seconds: float, variables: Mapping[str, str]) -> tuple[object, ...]:
    """One row: how the watcher does while nothing happens."""
    counts = folder / "counts.json"
    began = time.perf_counter()
    with watching(folder, counts, variables) as process:
        started = time.perf_counter() - began
        time.sleep(min(10.0, seconds))  # the look after the first one, and what Python lays by
        first, before, since = busy(process.pid), reads(process, counts), time.perf_counter()
        time.sleep(seconds)
        share = (busy(process.pid) - first) / (time.perf_counter() - since) * 100
        done = reads(process, counts) - before
        memory = proportional(process.pid)
    what = ", ".join(f"{done[verb]} {word}" for verb, word in WORDS.items() if done[verb]) or "nothing"
    return title, started, share, memory, what


WORDS = {"folders": "listings", "size": "looks at an open batch", "get": "objects", "list": "batches"}


def main() -> None:
    given = measure.options(__doc__)
    count, seconds = (300, 10.0) if given.quick else (10_000, 60.0)
    rows: list[tuple[object, ...]] = []
    with measure.workspace() as folder, server.api(folder / "prefect") as api:
        (folder / f"{NAME}.yaml").write_text(images.pipeline(NAME, folds=2, epochs=1))
        api.wait()
        prefect = {"PREFECT_API_URL": api.url, "PREFECT_API_AUTH_STRING": api.login or ""}
        directory = (folder / "store").as_uri()
        fill(open_store(directory), folder, count)
        rows.append(at_rest("directory", folder, seconds, {**prefect, "LEPTONFLOW_STORE": directory}))
        for started in (servers.minio, servers.seaweedfs):
            if started is servers.minio and servers.minio_binary() is None:
                continue
            with started() as s3:
                os.environ.update(s3.environment)
                uri = f"s3://{s3.bucket}/store"
                fill(open_store(uri), folder, count)
                variables = {**prefect, **s3.environment, "LEPTONFLOW_STORE": uri}
                rows.append(at_rest(s3.name, folder, seconds, variables))
    table(
        f"{count:,} closed batches, {seconds:.0f} s at rest",
        ["", "first look, s", "% of a core", "PSS, MiB", "read meanwhile"],
        rows,
    )
    print("bounds: at most 1% of a core and 150 MB; no closed batch is read again")


if __name__ == "__main__":
    main()

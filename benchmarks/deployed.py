"""What it costs that `leptonflow up` runs a retraining, rather than a person: from `_READY` to the run, and the run.

1. Seconds from `_READY` to the start of the run (its state Running, by the server's clock, which is this machine's),
   debounce 0: on a directory, and on the S3 server that `up --s3` starts.
2. Seconds from scheduled to completed of a deployed run, against the same `retrain` in a terminal on the same server.
"""

from __future__ import annotations

import io
import json
import os
import signal
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import images, measure
from benchmarks.measure import LEPTONFLOW, environment, table
from flows import credentials, server

WAIT = 180.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """The parsed answer of a GET, or of a POST with a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **credentials.headers(url)})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return json.loads(answer.read())


@contextmanager
def up(folder: Path, *arguments: str) -> Iterator[str]:
    """The API's address of a `leptonflow up` in a folder, once all is healthy."""
    command = [LEPTONFLOW, "up", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = ""
        for line in process.stdout:
            address = address or line.split()[1]
            if line.startswith("Ready"):
                break
        else:
            raise SystemExit("`leptonflow up` ended before it was ready")
        login = server.login(f"{address}/api", (folder / server.FOLDER).absolute())
        os.environ["PREFECT_API_AUTH_STRING"] = login or ""  # for `ask`
        yield f"{address}/api"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def runs(api: str, name: str) -> list[dict[str, Any]]:
    """The runs of a pipeline's deployment that nobody's schedule asked for, oldest first."""
    deployment = ask(f"{api}/deployments/name/retrain/{name}")["id"]
    wanted = {"deployments": {"id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return [run for run in ask(f"{api}/flow_runs/filter", wanted) if not run["auto_scheduled"]]


def ended(api: str, name: str, count: int) -> dict[str, Any]:
    """The run of that number (from 1), once it and all before it have ended."""
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        found = runs(api, name)
        if len(found) >= count and all(run["state"]["type"] in ENDED for run in found):
            return found[count - 1]
        time.sleep(0.2)
    raise SystemExit(f"no run number {count} after {WAIT:.0f} s")


def stamp(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def latencies(api: str, put: Callable[[str, bytes], None], times: int) -> list[float]:
    """Seconds from `_READY` to Running, of one batch after another; the first, which trains, is not among them."""
    taken = []
    for number in range(times + 1):
        for each, kind in enumerate(images.CLASSES[:2]):
            for copy in range(12 if number == 0 else 1):
                put(f"b{number}/{kind}/{copy}.png", picture(1000 * number + 100 * each + copy))
        put(f"b{number}/_READY", b"")
        closed = time.time()
        run = ended(api, "bench", number + 1)
        if number:
            taken.append(stamp(run["start_time"]) - closed)
    return taken


def picture(number: int) -> bytes:
    """A small PNG of noise, another one for each number."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def small(folder: Path) -> None:
    (folder / "pipelines").mkdir(parents=True)
    (folder / "pipelines" / "bench.yaml").write_text(
        "name: bench\nworkload: image_classification\ninput: [8, 8, 1]\ndebounce: 0\n"
        "model: {filters: [8], dense: 8}\ntraining: {epochs: 1, folds: 2}\nholdout: {fraction: 0.3}\n"
        "quarantine: {limit: 1.0}\ngate:\n  - {rule: at_least, metric: accuracy, value: 0.0}\n"
    )


def into_folder(store: Path) -> Callable[[str, bytes], None]:
    def put(key: str, content: bytes) -> None:
        path = store / "landing" / "bench" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return put


def into_bucket(folder: Path) -> Callable[[str, bytes], None]:
    import minio

    lines = (folder / ".leptonflow" / "stack" / "s3.env").read_text().splitlines()
    pairs = [line.removeprefix("export ").split("=", 1) for line in lines if "=" in line]
    found = {name: value.strip("'\"") for name, value in pairs}
    client = minio.Minio(
        found["AWS_ENDPOINT_URL"].removeprefix("http://"), access_key=found["AWS_ACCESS_KEY_ID"],
        secret_key=found["AWS_SECRET_ACCESS_KEY"], region="us-east-1", secure=False,
    )  # fmt: skip

    def put(key: str, content: bytes) -> None:
        client.put_object("leptonflow", f"landing/bench/{key}", io.BytesIO(content), len(content))

    return put


def deployed_against_terminal(folder: Path, count: int, times: int) -> tuple[list[float], list[float]]:
    """Seconds of (deployed runs from scheduled to completed, `retrain` in a terminal), in turn, each on new work."""
    (folder / "pipelines").mkdir(parents=True)
    (folder / "pipelines" / "bench.yaml").write_text(images.pipeline("bench"))
    images.write(folder / "images", count)
    ingest = [LEPTONFLOW, "ingest", "bench", str(folder / "images")]
    subprocess.run(ingest, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
    by_worker, by_hand = [], []
    with up(folder) as api:
        ended(api, "bench", 1)  # the watcher asks for a first run, which warms the page cache
        deployment = ask(f"{api}/deployments/name/retrain/bench")["id"]
        for number in range(times):
            body = {"state": {"type": "SCHEDULED"}, "parameters": {"force": True}}
            identity = ask(f"{api}/deployments/{deployment}/create_flow_run", body)["id"]
            run = ended(api, "bench", number + 2)
            assert run["id"] == identity and run["state"]["type"] == "COMPLETED", run["state"]
            by_worker.append(stamp(run["end_time"]) - stamp(run["expected_start_time"]))
            command = [LEPTONFLOW, "retrain", "bench", "--force", "--json"]
            began = time.perf_counter()
            status = subprocess.run(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL).returncode
            assert status in (0, 4), status  # the gate may refuse the same model once more
            by_hand.append(time.perf_counter() - began)
    return by_worker, by_hand


def main() -> None:
    given = measure.options(__doc__)
    times = 2 if given.quick else 10
    os.environ.pop("LEPTONFLOW_STORE", None)
    rows: list[tuple[object, ...]] = []
    with measure.workspace() as folder:
        small(folder / "directory")
        with up(folder / "directory") as api:
            taken = latencies(api, into_folder(folder / "directory" / ".leptonflow"), times)
        rows.append(("directory, file system events", statistics.median(taken), max(taken), "11 s"))
        small(folder / "s3")
        with up(folder / "s3", "--s3") as api:
            kind = "webhook, MinIO" if (folder / "s3/.leptonflow/stack/webhook.token").exists() else "poll, SeaweedFS"
            taken = latencies(api, into_bucket(folder / "s3"), times)
        rows.append((kind, statistics.median(taken), max(taken), "13 s" if "MinIO" in kind else "poll + 11 s"))
        table(
            f"From `_READY` to the start of the run, debounce 0, {times} batches",
            ["", "median seconds", "longest", "bound"],
            rows,
        )
        count = 600 if given.quick else 10_000
        by_worker, by_hand = deployed_against_terminal(folder / "cost", count, given.times)
    pairs = [a - b for a, b in zip(by_worker, by_hand, strict=True)]
    table(
        f"`retrain --force` of {count:,} images, medians of {given.times}",
        ["", "seconds", "more than the terminal's", "bound"],
        [
            ("in a terminal, same server", statistics.median(by_hand), "-", "-"),
            ("deployed, scheduled to completed", statistics.median(by_worker), statistics.median(pairs), "at most 13"),
        ],
    )


if __name__ == "__main__":
    main()

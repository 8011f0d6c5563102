"""`leptonflow serve` beside LitServe and BentoML: requests a second, latencies, cold start, memory, a swap under load.

The digits' small CNN, each server in a process of its own on this machine, the very same clients and request bodies.
The peers run the very same ONNX model in a session of as many threads, in an environment that is made once in
--environment. Servers are measured in turns, and only ratios of one run mean something on a busy machine.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks import measure
from benchmarks.measure import LEPTONFLOW, ROOT, run, table
from benchmarks.serving import peers

THREADS = 1  # of one prediction, in every server
PATHS = {"leptonflow": "/v1/digits/predict", "litserve": "/predict", "bentoml": "/predict"}


@dataclass(frozen=True)
class Server:
    """A server to measure: what starts it, where, and the path that predicts."""

    name: str
    command: list[str]
    cwd: Path
    environment: dict[str, str]
    port: int
    path: str


@dataclass(frozen=True)
class Load:
    """What the clients saw. seconds of each answer, sorted; moments: (when, seconds)."""

    rate: float
    seconds: list[float]
    moments: list[tuple[float, float]]
    failed: int

    def quantile(self, part: float) -> float:
        return quantile(self.seconds, part)


def quantile(values: Sequence[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))]


def trained(folder: Path, quick: bool) -> None:
    """A store with two versions of the digits that were promoted one after the other."""
    from pipelines.digits_images import write_digits

    write_digits(folder / "images", 300 if quick else None)
    document = yaml.safe_load((ROOT / "pipelines" / "digits.yaml").read_text())
    document["gate"] = [{"rule": "at_most", "metric": "log_loss", "value": 100.0}]
    store = {"LEPTONFLOW_STORE": (folder / "store").as_uri()}
    for seed in (0, 1):
        document["training"] = {"epochs": 1 if quick else 4, "folds": 2, "seed": seed}
        (folder / "digits.yaml").write_text(yaml.safe_dump(document))
        if seed == 0:
            run([LEPTONFLOW, "ingest", "digits.yaml", "images", "--json"], folder, **store)
        run([LEPTONFLOW, "retrain", "digits.yaml", "--json"], folder, **store)


def bodies(folder: Path) -> tuple[Path, Path]:
    """Folders of request bodies: JSON with one image as base64, and the same images as they are."""
    images = sorted((folder / "images").rglob("*.png"))[::17][:16]
    as_json, raw = folder / "json", folder / "raw"
    for target in (as_json, raw):
        target.mkdir()
    for number, image in enumerate(images):
        data = image.read_bytes()
        (raw / f"{number:02d}").write_bytes(data)
        (as_json / f"{number:02d}").write_text(json.dumps({"examples": [base64.b64encode(data).decode()]}))
    return as_json, raw


def servers(folder: Path, python: Path) -> list[Server]:
    """leptonflow, and the peers with the champion's ONNX and Keras models."""
    status = json.loads(run([LEPTONFLOW, "status", "digits.yaml", "--json"], folder, **_store(folder)).output)
    package = folder / "store" / "models" / "digits" / status["champion"]
    classes = (package / "labels.json").read_text()
    onnx, keras = package / "model.onnx", package / "model.keras"
    found = [
        Server(
            "leptonflow", [LEPTONFLOW, "serve", "digits.yaml", "--port", (port := str(_free()))], folder,
            measure.environment(**_store(folder)), int(port), PATHS["leptonflow"],
        )
    ]  # fmt: skip
    for name, kind, model in (
        ("LitServe, ONNX", "litserve", onnx), ("LitServe, Keras", "litserve", keras), ("BentoML, ONNX", "bentoml", onnx)
    ):  # fmt: skip
        if model.exists():
            place, free = folder / f"{kind}-{model.suffix[1:]}", _free()
            command = peers.command(kind, python, place, free)
            shape = json.dumps([28, 28, 1])
            variables = peers.variables(model, shape, classes, THREADS)
            found.append(Server(name, command, place, variables, free, PATHS[kind]))
    return found


def _store(folder: Path) -> dict[str, str]:
    return {"LEPTONFLOW_STORE": (folder / "store").as_uri()}


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def started(server: Server, body: bytes) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The running server, and the seconds from its start to its first answer."""
    began = time.perf_counter()
    with (server.cwd / f"{server.port}.log").open("wb") as log:
        process = subprocess.Popen(
            server.command, cwd=server.cwd, env=server.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        while not answers(server, body):
            if process.poll() is not None or time.perf_counter() - began > 180:
                told = (server.cwd / f"{server.port}.log").read_text()[-2000:]
                raise SystemExit(f"{server.name} did not start:\n{told}")
            time.sleep(0.02)
        yield process, time.perf_counter() - began
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):  # workers that outlive their server
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(server: Server, body: bytes) -> bool:
    """Whether it predicts."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{server.path}", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return bool(response.status == 200)
    except OSError:  # refused, or an error's status
        return False


def loaded(server: Server, bodies: Path, *limits: str, kind: str = "application/json") -> Load:
    """What the clients of a process of their own saw."""
    file = server.cwd / "answers.json"
    command = [
        sys.executable, "-m", "benchmarks.serving.client", str(server.port), server.path, str(bodies), str(file),
        "--kind", kind, *limits,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    told: dict[str, Any] = json.loads(file.read_text())
    seconds = sorted(took for _, took in told["each"])
    failed = told["wrong"] + len(told["lost"])
    return Load(told["answers"] / told["seconds"], seconds, [(a, b) for a, b in told["each"]], failed)


def side_by_side(found: Sequence[Server], as_json: Path, raw: Path, given: argparse.Namespace) -> None:
    """Requests a second and latencies at 16 clients, the servers in turns; cold starts."""
    body = next(as_json.iterdir()).read_bytes()
    seconds = "2" if given.quick else "10"
    cold: dict[str, float] = {}
    loads: dict[str, list[Load]] = {}
    for _ in range(given.times):
        for server in found:
            with started(server, body) as (_, took):
                cold[server.name] = min(took, cold.get(server.name, took))
                loaded(server, as_json, "--seconds", "1")
                loads.setdefault(server.name, []).append(loaded(server, as_json, "--seconds", seconds))
                if server.name == "leptonflow":
                    load = loaded(server, raw, "--seconds", seconds, kind="image/png")
                    loads.setdefault("leptonflow, raw bytes", []).append(load)

    def of(name: str, value: Any) -> float:
        return statistics.median(value(load) for load in loads[name])

    rate = {name: of(name, lambda load: load.rate) for name in loads}
    rows = [
        (
            name, round(rate[name]), f"{rate['leptonflow'] / rate[name]:.2f}x",
            of(name, lambda x: 1e3 * x.quantile(0.5)), of(name, lambda x: 1e3 * x.quantile(0.99)),
            cold.get(name, "-"), sum(load.failed for load in loads[name]),
        )
        for name in loads
    ]  # fmt: skip
    columns = ["", "requests/s", "leptonflow is", "p50 ms", "p99 ms", "first answer s", "failed"]
    table(f"16 clients, {seconds} s, medians of {given.times}", columns, rows)


def memory(server: Server, as_json: Path, requests: int) -> None:
    """The memory of the process after a tenth of the requests and after all of them."""
    body = next(as_json.iterdir()).read_bytes()
    with started(server, body) as (process, _):
        loaded(server, as_json, "--requests", str(requests // 10))
        first = resident(process.pid)
        loaded(server, as_json, "--requests", str(requests - requests // 10))
        last = resident(process.pid)
    rows = [(f"{requests // 10:,}", first, "-"), (f"{requests:,}", last, f"{100 * (last / first - 1):+.1f}%")]
    table("memory of leptonflow serve", ["after requests", "MiB", "grown"], rows)


def resident(pid: int) -> float:
    """MiB that the process holds. Its share would change with what other processes share of it."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def windows(moments: Sequence[tuple[float, float]], around: float) -> list[float]:
    """The p99 of every two seconds, those around that moment left out; sorted."""
    found: dict[int, list[float]] = {}
    for when, took in moments:
        if abs(when - around) > 1:
            found.setdefault(int(when // 2), []).append(took)
    return sorted(quantile(sorted(each), 0.99) for each in found.values() if len(each) > 100)


def swap(server: Server, folder: Path, as_json: Path, requests: int) -> None:
    """A rollback while the clients ask: what is lost, and the latency of the seconds around the swap."""
    from leptonflow.core import pipeline_files
    from leptonflow.evaluation import load_check
    from leptonflow.registry import manual_decisions
    from leptonflow.storage.address import open_store

    store = open_store((folder / "store").as_uri())
    config = pipeline_files.load_config(str(folder / "digits.yaml"))
    moment = [0.0]

    def rolled_back(before: str) -> None:
        time.sleep(requests / 8000)
        ensure = partial(load_check.validate, store, config)  # recorded when it was packaged
        manual_decisions.rollback(store, config.name, None, "measured", "benchmark", ensure)
        while version(server) == before:
            time.sleep(0.02)
        moment[0] = time.perf_counter()

    body = next(as_json.iterdir()).read_bytes()
    with started(server, body):
        loaded(server, as_json, "--seconds", "1")
        thread = threading.Thread(target=rolled_back, args=(version(server),))
        began = time.perf_counter()
        thread.start()
        load = loaded(server, as_json, "--requests", str(requests))
        ended = time.perf_counter()
        thread.join()
    if not began < moment[0] < ended:
        print("the swap came after the last request: --requests must be larger")
    at = load.moments[-1][0] - (ended - moment[0])
    near = sorted(took for when, took in load.moments if abs(when - at) <= 1)
    others = windows(load.moments, at)
    rows = [
        ("answered", f"{len(load.seconds):,}"), ("lost or wrong", load.failed),
        ("p99 ms of the 2 seconds around it", 1e3 * quantile(near, 0.99)),
        ("p99 ms of other 2 seconds, median", 1e3 * statistics.median(others)),
        ("and of the worst", 1e3 * others[-1]),
        ("ratio to the median", quantile(near, 0.99) / statistics.median(others)),
    ]  # fmt: skip
    table(f"a rollback while {requests:,} requests are answered", ["", "leptonflow"], rows)


def version(server: Server) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/digits", timeout=30) as response:
        return str(json.load(response)["version"])


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--environment", type=Path, default=ROOT / "build" / "serving-peers")
    parts = ["beside", "memory", "swap"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    mine, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    given = measure.options(__doc__)
    python = peers.environment(mine.environment.absolute())
    with measure.workspace() as folder:
        trained(folder, given.quick)
        as_json, raw = bodies(folder)
        found = servers(folder, python)
        if "beside" in mine.parts:
            side_by_side(found, as_json, raw, given)
        if "memory" in mine.parts:
            memory(found[0], as_json, 3_000 if given.quick else 100_000)
        if "swap" in mine.parts:
            swap(found[0], folder, as_json, 6_000 if given.quick else 20_000)


if __name__ == "__main__":
    main()

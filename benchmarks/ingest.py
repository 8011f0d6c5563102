"""What it costs to take in 10,000 JPEG files of 32 x 32 x 3: the whole `ingest` command, and its inner part.

The whole command is split by what it leaves behind: `_INGEST` is created when landing begins (before it lie imports
and the walk of the source), `_READY` when it ends; the rest is validation, Parquet and the commit.

The inner part is validate + preprocess of a batch that has landed (hash, decode, check, Great Expectations, Parquet),
imports apart, beside a bare loop that opens, reads and decodes the same files with the same library on every core.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import images, measure
from benchmarks.measure import LEPTONFLOW, environment, run, table


def decode(paths: list[str]) -> int:
    """Pillow alone: open, decode, as an array."""
    import numpy as np
    from PIL import Image

    return sum(int(np.asarray(Image.open(path).convert("RGB")).shape[0] > 0) for path in paths)


def admit(folder: Path, source: Path, times: int) -> list[tuple[float, float, float]]:
    """Seconds of (the bare loop on processes, on threads, validate + preprocess + commit) of each landed batch.

    Loop and `admit` read the same files, which lie in the page cache, one after another in each round; the
    workers of all three have imported what they need.
    """
    os.environ.update(environment())
    from leptonflow.core import pipeline_files
    from leptonflow.data.dataset import admission
    from leptonflow.storage.address import open_store
    from schemas.settings import quiet

    quiet()
    (folder / "bench.yaml").write_text(images.pipeline("bench"))
    config = pipeline_files.load_config(str(folder / "bench.yaml"))
    cores = os.cpu_count() or 1
    rounds = []
    spawned = multiprocessing.get_context("spawn").Pool(cores)
    with admission.tools(), spawned as processes, ThreadPoolExecutor(cores) as threads:
        for number in range(times + 1):
            root = folder / f"admit-{number}"
            batch = root / "landing" / "bench" / "batch-1"
            if number:
                shutil.copytree(source, batch)
            else:  # a small one first, so that every worker has imported what it needs
                images.write(batch, 100 * cores, seed=2)
            (batch / "_READY").touch()
            os.sync()  # what landed is on the disk, as `ingest` leaves it
            files = [str(path) for path in sorted(batch.rglob("*.jpg"))]
            chunks = [files[start : start + 64] for start in range(0, len(files), 64)]
            taken = []
            for work in (processes.map, threads.map):
                began = time.perf_counter()
                assert sum(work(decode, chunks)) == len(files)
                taken.append(time.perf_counter() - began)
            began = time.perf_counter()
            outcome = admission.admit(open_store(root.as_uri()), config, "batch-1")
            taken.append(time.perf_counter() - began)
            assert outcome.accepted == outcome.arrived, outcome.sentence
            if number:
                rounds.append((taken[0], taken[1], taken[2]))
    return rounds


def whole(folder: Path, source: Path, times: int) -> list[tuple[float, float, float, float]]:
    """(whole, until landing began, landing, rest) in seconds of each `ingest` on an empty store."""
    found = []
    for number in range(times):
        home = folder / f"whole-{number}"
        home.mkdir()
        (home / "bench.yaml").write_text(images.pipeline("bench"))
        began = time.time()
        command = [LEPTONFLOW, "ingest", "bench.yaml", str(source), "--batch", "batch-1", "--json"]
        measured = run(command, home, LEPTONFLOW_STORE=(home / "store").as_uri())
        assert json.loads(measured.output)["outcome"] == "accepted"
        landing = home / "store" / "landing" / "bench" / "batch-1"
        opened, closed = ((landing / name).stat().st_mtime for name in ("_INGEST", "_READY"))
        end = began + measured.seconds
        found.append((measured.seconds, opened - began, closed - opened, end - closed))
    return found


def copied(folder: Path, source: Path, times: int, flush: bool) -> float:
    """Median seconds of `cp -r`, with or without the flush to disk that landing waits for."""
    taken = []
    for number in range(times):
        target = folder / f"copy-{flush}-{number}"
        began = time.perf_counter()
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)
        if flush:
            subprocess.run(["sync", "-f", str(target)], check=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    given = measure.options(__doc__)
    count = 600 if given.quick else 10_000
    with measure.workspace() as folder:
        source = folder / "images"
        images.write(source, count)
        rounds = admit(folder, source, given.times)
        runs = whole(folder, source, given.times)
        plain, flushed = (copied(folder, source, given.times, flush) for flush in (False, True))
    processes, threads, inner = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(min(loops) / ours for *loops, ours in rounds)
    table(
        f"A landed batch of {count:,} images, imports apart, medians of {given.times}",
        ["", "seconds", "images/s", "of the bare loop", "bound"],
        [
            ("bare decode loop, processes", processes, round(count / processes), "-", "-"),
            ("bare decode loop, threads", threads, round(count / threads), "-", "-"),
            ("validate + preprocess", inner, round(count / inner), ratio, "at least 0.45"),
        ],
    )
    total, before, landing, rest = (statistics.median(column) for column in zip(*runs, strict=True))
    table(
        f"The whole `ingest` of {count:,} images, medians of {given.times}",
        ["", "seconds", "of cp -r"],
        [
            ("whole command", total, "-"),
            ("imports, walk, hash", before, "-"),
            ("landing", landing, landing / plain),
            ("validate, preprocess, commit", rest, "-"),
            ("cp -r", plain, 1.0),
            ("cp -r and sync", flushed, flushed / plain),
        ],
    )


if __name__ == "__main__":
    main()

"""Reading training examples: from Parquet, from the file they lie in where they do not fit, and the memory it takes.

100,000 random images of 32 x 32 x 3 for the speed. For the memory, one epoch of a tiny model on 50,000 and on 200,000
random images of 64 x 64 x 3, each in a process of its own that may hold 100 MB of them.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.measure import ROOT, run, table
from leptonflow.storage.address import open_store

PART = 10_000  # images of a batch
CLASSES = ("a", "b", "c")
FIT = """
import sys
from benchmarks import feeding
from leptonflow.storage.address import open_store
from leptonflow.training import model_fits
side, count = int(sys.argv[1]), int(sys.argv[2])
store, config = open_store(sys.argv[3]), feeding.pipeline(side)
fit = model_fits.fit_final(store, config, feeding.plan(store, config, count))
print(fit.cost.examples_per_second, fit.cost.waiting)
"""


def pipeline(side: int) -> Any:
    """A model that costs hardly more than reading its images."""
    from schemas.config import Pipeline

    return Pipeline.model_validate({
        "name": "bench", "workload": "image_classification", "input": [side, side, 3],
        "model": {"filters": [2], "dense": 4, "dropout": 0.0}, "training": {"epochs": 1, "batch_size": 256},
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.1}],
    })  # fmt: skip


def plan(store: Any, config: Any, count: int) -> Any:
    """The plan of a fit on `count` random images, which are put on the store where they do not lie there yet."""
    from leptonflow.data.dataset import dataset_state, part_files
    from schemas.records import PartRef, Plan, SnapshotRef

    preprocessing, parts = dataset_state.preprocessing(config), []
    size = config.input[0] * config.input[1] * 3
    for first in range(0, count, PART):
        noted = f"noted/{config.input[0]}-{first}.json"
        if store.size(noted) is None:
            rows = min(PART, count - first)
            data = os.urandom(rows * size)
            accepted = []
            for number in range(rows):
                name = f"{first + number}.png"
                identity = hashlib.sha256(name.encode()).hexdigest()
                pixels = data[number * size : (number + 1) * size]
                label = CLASSES[number % len(CLASSES)]
                accepted.append(part_files.Accepted(identity, identity, label, name, name, None, {"n": 1}, pixels))
            part = part_files.write_part(store, config, f"b{first}", preprocessing, accepted)
            store.create(noted, part.model_dump_json().encode() if part else b"")
        parts.append(PartRef.model_validate_json(store.get(noted)))
    snapshot = SnapshotRef(
        pipeline=config.name, number=1, snapshot="s" * 12, content="c" * 64, classes=CLASSES,
        preprocessing=preprocessing, holdout=0.1, parts=tuple(parts), batches=tuple(p.batch for p in parts),
        examples=count,
    )  # fmt: skip
    return Plan(
        pipeline=config.name, attempt=0, version=f"{count:012d}", run_id="b" * 12, snapshot=snapshot, waiting=(),
        trained=False, finished=False,
    )  # fmt: skip


def speeds(folder: Path, count: int, times: int) -> list[tuple[object, ...]]:
    """Images/s: from Parquet into memory and into the file, and of the batches of an epoch from each."""
    from leptonflow.data.dataset import example_sets
    from leptonflow.training import batches
    from leptonflow.workloads import catalog

    store, config = open_store(folder.as_uri()), pipeline(32)
    snapshot = plan(store, config, count).snapshot
    rows: list[tuple[object, ...]] = []
    for place, memory in (("memory", "100GB"), ("the file", "1MB")):
        os.environ["LEPTONFLOW_TRAINING_MEMORY"] = memory
        read, fed = [], []
        for number in range(times + 1):
            began = time.perf_counter()
            examples = example_sets.training_set(store, config, snapshot)
            read.append(len(examples.ids) / (time.perf_counter() - began))
            kept = np.arange(len(examples.ids))
            of = batches.Material(
                examples.inputs, examples.labels, CLASSES, kept, kept[:0], kept[:0], examples.sources
            )  # fmt: skip
            began = time.perf_counter()
            order = batches.Order.of(kept, 0, 1, None)
            for _call in batches.calls(of, catalog.load(config.workload), order, 256, 0, None, lambda: 32, 32):
                pass
            fed.append(len(kept) / (time.perf_counter() - began))
            del examples, of, _call  # as in a run, which reads them once
            if number == 0:  # it imported what reads and took memory from the system for the first time
                read, fed = [], []
        rows.append((f"from Parquet into {place}", statistics.median(read), "at least 75,000"))
        bound = "at least 200,000" if place == "the file" else ""
        rows.append((f"batches of 256 from {place}", statistics.median(fed), bound))
    return rows


def main() -> None:
    given = measure.options(__doc__)
    speed, few, many = (2_000, 1_000, 2_000) if given.quick else (100_000, 50_000, 200_000)
    with measure.workspace() as folder:
        table(f"Reading {speed:,} images of 32 x 32 x 3", ["", "images/s", "bound"], speeds(folder, speed, given.times))
        rows: list[tuple[object, ...]] = []
        store, peaks = (folder / "wide").as_uri(), []
        for count in (few, many):
            plan(open_store(store), pipeline(64), count)
            fit = [sys.executable, "-c", FIT, "64", str(count), store]
            found = run(fit, ROOT, LEPTONFLOW_TRAINING_MEMORY="100MB" if not given.quick else "1MB")
            peaks.append(found.largest)
            speed_of, waiting = map(float, found.output.split())
            rows.append((f"{count:,}", found.largest, found.seconds, speed_of, waiting))
        told = ["images", "largest, MiB", "seconds", "images/s", "waiting"]
        table("An epoch on images of 64 x 64 x 3 from the file", told, rows)
        print(f"\n{peaks[1] / peaks[0]:.2f} of the memory (at most 1.15), {peaks[1]:.0f} MiB (at most 1430)")


if __name__ == "__main__":
    main()

"""A pipeline with 2,000 runs, each of a batch of its own, on a folder store: the pages of the board over HTTP.

The first request after the server's start reads every run; a later one reads what is new. The runs' records are those
of one made-up run under other ids.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from typing import Any

from starlette.testclient import TestClient

from benchmarks import measure
from benchmarks.measure import table
from leptonflow.core import store_keys
from leptonflow.core.hashing import canonical, sha256
from leptonflow.runs import recording
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from serving.app import create_app
from tests import run_examples

RUNS, PROMOTED_EVERY = 2000, 5
PAGES = ("/", "/p/bench", "/p/bench?page=20", "/p/bench/quarantine")
BOUND = "at most 300"


def fill(store: Store, runs: int) -> None:
    """What so many runs leave: their folders, the batches that they trained on, and the promotions."""
    run = run_examples.make(store, pipeline="bench", version="f" * 12, run_id="f" * 12)
    recording.record(store, run.config, run.plan, run.results())
    folder = store_keys.run_folder("bench", "f" * 12)
    template = {key.removeprefix(f"{folder}/"): store.get(key) for key in store.keys(folder)}
    model = store.get(store_keys.package_key("bench", "f" * 12, "manifest.json"))
    dataset = commit_log.read(store, store_keys.dataset_log("bench"))
    promotions = commit_log.read(store, store_keys.promotions_log("bench"))
    before = None
    for number in range(2, runs + 1):
        batch, version = f"batch-{number:05d}", f"{number:012x}"
        promoted = number % PROMOTED_EVERY == 0
        files = {**template, "manifest.json": _manifest(template["manifest.json"], number, promoted, before)}
        items = [(store_keys.run_key("bench", version, name), data) for name, data in files.items()]
        items.append((store_keys.landed_key("bench", batch, store_keys.READY), b""))
        outcome = run_examples.outcome("bench", batch)
        dataset = commit_log.commit(
            store, dataset, id=batch, kind="batch", body=_batch(outcome, number), who="bench", why="landed"
        )
        if promoted:
            key = store_keys.package_key("bench", version, "manifest.json")
            items.append((key, model.replace(b"f" * 12, version.encode())))
            body = {"version": version, "previous": before, "run_id": version, "manifest_sha256": "0" * 64,
                    "snapshot": "5aa5" * 3, "snapshot_number": number}  # fmt: skip
            promotions = commit_log.commit(
                store, promotions, id=version, kind="promotion", body=body, who=f"run {version}", why="it is better"
            )
            before = version
        store.create_many(items)


def _manifest(data: bytes, number: int, promoted: bool, champion: str | None) -> bytes:
    """The run's record under another id, at another time."""
    found: dict[str, Any] = json.loads(data.replace(b"f" * 12, f"{number:012x}".encode()))
    del found["digest"]
    at = f"2026-{1 + number // 200:02d}-{1 + number % 28:02d}T10:00:00.000000Z"
    found |= {"number": number, "started_at": at, "finished_at": at}
    found["document"] |= {
        "verdict": "promoted" if promoted else "refused",
        "champion": f"{number:012x}" if promoted else champion,
    }
    found["digest"] = sha256(canonical(found))
    return json.dumps(found, ensure_ascii=False).encode()


def _batch(outcome: Any, number: int) -> dict[str, Any]:
    return {
        "batch": outcome.batch, "parts": [], "holdout": 0.2, "classes": ["0"], "labels": {"0": number},
        "snapshot": "5aa5" * 3, "content": "5aa5" * 16, "preprocessing": "p" * 12, "examples": 90 * number,
        "outcome": outcome.model_dump(mode="json"),
    }  # fmt: skip


def asked(web: TestClient, path: str) -> float:
    """Milliseconds of one request."""
    began = time.perf_counter()
    response = web.get(path)
    assert response.status_code == 200, response.text
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    given = measure.options(__doc__)
    runs, times = (100, 3) if given.quick else (RUNS, 20)
    with measure.workspace() as folder:
        uri = (folder / "store").as_uri()
        fill(open_store(uri), runs)
        web = TestClient(create_app(open_store(uri), []))
        rows: list[tuple[object, ...]] = [("the first request, which reads every run", asked(web, "/p/bench"), "-")]
        for path in PAGES:
            rows.append((path, statistics.median(asked(web, path) for _ in range(times)), BOUND))
    table(f"the pages of a pipeline with {runs:,} runs, medians of {times}", ["", "ms", "bound"], rows)
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} (above 1, these figures say little)")


if __name__ == "__main__":
    main()

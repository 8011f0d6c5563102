"""What checkpoints cost a fit at one a minute, with what it says of itself every few seconds: at most 2% of its time.

A checkpoint of a model and its optimizer on a directory store, written as a fit does: the time that the fit waits for
the copy, and the processor time of the thread that writes it, which may be missing to the fit. A share of 60 s.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks import measure

CASES: list[tuple[str, dict[str, Any]]] = [
    ("cnn", {"kind": "cnn"}),
    ("resnet, 78,000 weights", {"kind": "resnet", "filters": [16, 32, 64], "blocks": 1}),
    ("resnet, 11 million weights", {"kind": "resnet", "filters": [64, 128, 256, 512], "blocks": 2}),
]


def main() -> None:
    given = measure.options(__doc__)
    from leptonflow.storage.address import open_store
    from leptonflow.training.fit_status import WRITTEN_SECONDS

    rows = []
    with measure.workspace() as folder:
        store = open_store(folder.as_uri())
        for name, model in CASES[: 1 if given.quick else None]:
            state, keeper, teller = begun(store, name, model)
            spent: list[tuple[float, float, float]] = []
            for _ in range(2 + given.times):
                state.step += 1
                began = time.perf_counter()
                keeper.between(state)
                copied, began = time.perf_counter() - began, time.process_time()
                keeper.settle()
                written, began = time.process_time() - began, time.perf_counter()
                teller.write(state)
                spent.append((copied, written, time.perf_counter() - began))
            copy, write, tell = map(statistics.median, zip(*spent, strict=True))
            size = next(bytes for key, bytes in store.list("scratch") if key == keeper.newest)
            share = (copy + write + 60 / WRITTEN_SECONDS * tell) / 60
            rows.append((name, size / 1e6, 1000 * copy, 1000 * write, 1000 * tell, 100 * share, "at most 2"))
    columns = ["", "MB", "copy, ms", "write, ms of processor", "status, ms", "% of a minute", "bound"]
    measure.table("A checkpoint a minute, a status every 5 s, on a directory", columns, rows)


def begun(store: Any, name: str, model: dict[str, Any]) -> tuple[Any, Any, Any]:
    """A fit under way, and what saves and tells it."""
    from leptonflow.core.hashing import sha256
    from leptonflow.training.checkpoints import Keeper
    from leptonflow.training.fit_state import FitPlace, FitState
    from leptonflow.training.fit_status import Teller
    from leptonflow.training.workspace import MODEL_LOCK, Workspace
    from leptonflow.workloads import catalog
    from schemas.config import Pipeline

    config = Pipeline.model_validate({
        "name": "bench", "workload": "image_classification", "input": [32, 32, 3], "model": model,
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.1}],
    })  # fmt: skip
    with MODEL_LOCK:
        models = Workspace().models(catalog.load(config.workload), config, tuple("0123456789"), 0, 100)
    place = FitPlace(store, config.name, sha256(name.encode())[:12], None, 0)
    return FitState(models, [], (10, 1000)), Keeper(place, 1e-9), Teller(place)


if __name__ == "__main__":
    main()

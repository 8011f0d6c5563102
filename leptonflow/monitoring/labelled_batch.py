"""What was served and labelled by people, as a batch that waits for the next retraining.

An example is in it if the prediction log kept its inputs and somebody gave it a label: a prediction alone is never one.
What does not belong here: landing and admitting a batch (landing, admission).
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from leptonflow.data.dataset import dataset_state, known_examples
from leptonflow.data.ingest import landing
from leptonflow.monitoring import labels, served_log
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import UsageError

FOLDER = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,99}")
LONGEST = 255  # bytes of a folder's name


def land(store: Store, config: Pipeline) -> dict[str, Any]:
    """Land every labelled example with its inputs as a closed batch, named by its content; `labels --to-batch --json`.

    {pipeline, batch, examples, known, without_inputs, unnameable, already}; known: so many of the examples are in the
    dataset already. Raises UsageError where there is none, where the workload cannot write an example as a file, and
    where examples need a group.
    """
    workload = catalog.load(config.workload)
    write = workload.file
    if write is None or config.group is not None:
        raise UsageError(
            f"what {config.name} was served cannot become a batch",
            expected="a workload whose examples are files, and a YAML without group",
            received=f"the workload {config.workload}" + (" and a group" if config.group else ""),
        )
    given = {row["request_id"]: row["label"] for row in labels.current(store, config.name).to_pylist()}
    served = served_log.find(store, config.name, list(given), ("request_id", "inputs"))
    kept = {each: row["inputs"] for each, row in served.items() if row["inputs"] is not None}
    named = {each: encoded for each, encoded in kept.items() if nameable(given[each])}
    if not named:
        raise UsageError(
            f"{config.name} has no labelled example whose inputs were logged",
            expected="labels of requests that `serving: {log_inputs: {rate: ...}}` chose",
            received=f"{len(given)} labels, {len(kept)} with inputs",
        )
    there = known_examples.knowledge(store, config, dataset_state.snapshots(store, config.name)).examples
    known = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "served"
        for each, encoded in named.items():
            suffix, data = write(encoded, config.input)
            path = folder / given[each] / f"{each}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            known += workload.examine(data, config.input).id in there
        landed = landing.land(store, config, folder, None, known_examples.index(store, config, False))
    return {
        "pipeline": config.name,
        "batch": landed.batch,
        "examples": len(named),
        "known": known,
        "without_inputs": len(given) - len(kept),
        "unnameable": len(kept) - len(named),
        "already": landed.already,
    }


def nameable(label: str) -> bool:
    """Whether the label can be a folder's name."""
    return FOLDER.fullmatch(label) is not None and len(label.encode()) <= LONGEST

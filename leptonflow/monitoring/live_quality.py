"""How good the predictions were that people have labelled: each version's metrics, and its slices'.

The metrics are those of the workload's scoring, their intervals those of an evaluation. What does not belong here:
whether a number is good enough (gate).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.evaluation import metric_intervals
from leptonflow.gate.rules import slicing
from leptonflow.monitoring import labels
from leptonflow.registry import packages
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Scores, score
from leptonflow.workloads.predictions import matrix
from schemas.config import Pipeline
from schemas.rules import Slices

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

CONFIDENCE = 0.95
BUCKETS = 4
FEWEST = 30  # labelled predictions in a slice that is told of


def measure(store: Store, config: Pipeline, version: str | None = None) -> list[dict[str, Any]]:
    """Of each version with labels, the one with the newest label first: all its labelled predictions, then each slice.

    version: of this one alone.

    The slices are those of the gate's rule `slices`: the label that was given, metadata. A row: {version, slice
    (None: all), n, metrics{name: {value, low, high}}, confidence}; a slice has the first metric alone, and low and
    high are None where there is no interval. Slices of fewer than FEWEST are left out.
    """
    import pyarrow.compute as pc

    rows = labels.current(store, config.name)
    by = [kind for rule in config.gate if isinstance(rule, Slices) for kind in rule.by] or ["class"]
    found = []
    for each in dict.fromkeys(reversed(rows["version"].to_pylist())):
        if version in (None, each):
            found += _of_version(store, config.name, each, rows.filter(pc.equal(rows["version"], each)), by)
    return found


def _of_version(store: Store, pipeline: str, version: str, rows: pa.Table, by: Sequence[str]) -> list[dict[str, Any]]:
    import numpy as np

    manifest = packages.manifest(store, pipeline, version)
    target = catalog.load(manifest.workload).target
    given = rows["label"].to_pylist()
    truth = target.read(given, manifest.classes)
    scores = target.scores(truth, matrix(rows["outputs"]), manifest.classes)
    metadata = [json.loads(each or "{}") for each in rows["metadata"].to_pylist()]
    found = [_row(version, None, scores, None)]
    for name, members in _slices(by, given, metadata):
        if members.sum() >= FEWEST:
            found.append(_row(version, name, scores.of(np.flatnonzero(members)), 1))
    return found


def _row(version: str, name: str | None, scores: Scores, most: int | None) -> dict[str, Any]:
    ends = metric_intervals.between(scores, None, CONFIDENCE)
    values = {key: value for key, value in score(scores).items() if key in ends}
    told = {}
    for key, value in list(values.items())[:most]:
        low, high = ends[key].candidate or (None, None)
        told[key] = {"value": value, "low": low, "high": high}
    return {"version": version, "slice": name, "n": len(scores), "metrics": told, "confidence": CONFIDENCE}


def _slices(
    by: Sequence[str], given: Sequence[str], metadata: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    import numpy as np

    for kind in by:
        values = [each.get(kind) for each in metadata]
        if kind == "class":
            found = slicing.of_values("class", "classes", np.asarray(given, object))
        elif all(value is None for value in values):
            continue
        elif all(value is None or (isinstance(value, int | float)) for value in values):
            numbers = np.asarray([np.nan if value is None else float(value) for value in values])
            found = slicing.of_buckets(kind, numbers, BUCKETS)
        else:
            found = slicing.of_values(kind, "values", np.asarray(values, object))
        for each in found:
            if each.judged:
                yield each.name, each.members

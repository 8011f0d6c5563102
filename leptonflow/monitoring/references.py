"""What a version is compared with: examples that it did not learn from, as it predicts them, recorded once.

A model is surer of its training examples, and its features of them lie elsewhere; and what the folds predict of them is
another model's: two fits of one configuration favour different classes. So all that a model says is the champion's, of
the holdout. Metadata is no matter of learning, and comes from all examples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from leptonflow.core import parquet, store_keys
from leptonflow.data.dataset import dataset_contents, dataset_state, example_sets
from leptonflow.monitoring.drift_tests import Observed
from leptonflow.registry import packages, served_models
from leptonflow.registry.champion_log import Champion
from leptonflow.storage.objects import adopt
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.predictions import matrix
from schemas import own_model
from schemas.config import Pipeline
from schemas.errors import Damaged
from schemas.records import ModelManifest, SnapshotRef

if TYPE_CHECKING:
    import pyarrow as pa

MOST_HELD_OUT, MOST_OTHERS = 5_000, 10_000  # examples; the first by their ids, which are as good as drawn


def of(store: Store, config: Pipeline, champion: Champion) -> tuple[Observed, int]:
    """The reference of the champion, and its number of holdout examples. It is made and recorded where it is missing.

    Raises Damaged and NotFound where what it is made from is not there, TrainingError where the model cannot be loaded.
    """
    key = store_keys.drift_reference_key(config.name, champion.version)
    data = store.get(key) if store.size(key) is not None else adopt(store, key, _made(store, config, champion))
    return _observed(parquet.read(data), catalog.load(config.workload).target.classes)


def _observed(rows: pa.Table, classes: bool) -> tuple[Observed, int]:
    import numpy as np
    import pyarrow.compute as pc

    held = rows.filter(pc.field("held_out"))
    metadata = [json.loads(each) for each in rows["metadata"].to_pylist()]
    outputs, features = held["outputs"].drop_null(), held["features"].drop_null()
    said = matrix(outputs) if len(outputs) else None
    confidence = held["probability"].drop_null().to_numpy()
    return Observed(
        metadata=columns(metadata),
        predicted=held["predicted"].drop_null().to_pylist() if classes else (),
        values=said[:, 0] if said is not None and not classes else None,
        outputs=said if classes else None,
        confidence=confidence if len(confidence) else None,
        features=np.asarray(matrix(features)) if len(features) else None,
    ), len(held)


def columns(rows: list[dict[str, Any]], without: frozenset[str] = frozenset()) -> dict[str, list[Any]]:
    """Metadata by column."""
    names = {name for row in rows for name in row} - without
    return {name: [row.get(name) for row in rows] for name in names}


def _made(store: Store, config: Pipeline, champion: Champion) -> bytes:
    """A row for each example: as text its metadata; what was predicted of it, of the holdout by the champion itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    manifest = packages.manifest(store, config.name, champion.version)
    snapshot = _snapshot(store, config, manifest)
    as_trained = config.model_copy(update={"input": manifest.input})
    held = _held_out(store, as_trained, champion, snapshot)
    rows = list(held.values())
    metadata = _metadata(store, config, snapshot)
    for each in sorted(metadata.keys() - held.keys())[:MOST_OTHERS]:
        rows.append({"example_id": each, "held_out": False})
    for row in rows:
        row["metadata"] = json.dumps(metadata.get(row["example_id"], {}))
    schema = pa.schema([
        ("example_id", pa.string()), ("held_out", pa.bool_()), ("predicted", pa.string()),
        ("probability", pa.float64()), ("outputs", pa.list_(pa.float32())), ("features", pa.list_(pa.float32())),
        ("metadata", pa.string()),
    ])  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return bytes(sink.getvalue())


def _held_out(store: Store, config: Pipeline, champion: Champion, snapshot: SnapshotRef) -> dict[str, dict[str, Any]]:
    """The champion's predictions of the holdout, by the example's id, in the order of the ids."""
    model = served_models.load(
        store, config.name, champion.version, champion.manifest_sha256, own_model.runs_code(config.model)
    )
    target = catalog.load(config.workload).target
    examples = example_sets.holdout_set(store, config, snapshot)
    ids = examples.ids[:MOST_HELD_OUT]
    outputs, features = model.predict_encoded(model.encode(examples.inputs[: len(ids)]))
    found = {}
    for number, each in enumerate(ids):
        predicted, probability = target.answer(outputs[number], model.classes)
        found[each] = {
            "example_id": each, "held_out": True, "predicted": predicted, "probability": probability,
            "outputs": outputs[number], "features": None if features is None else features[number],
        }  # fmt: skip
    return found


def _metadata(store: Store, config: Pipeline, snapshot: SnapshotRef) -> dict[str, Mapping[str, Any]]:
    """Of each example what was recorded of it, without what is a matter of its file alone."""
    carriers = catalog.load(config.workload).carriers
    found: dict[str, Mapping[str, Any]] = {}
    for table in dataset_contents.tables(store, snapshot.parts, snapshot.changes, ("id", "facts")):
        for each, facts in zip(table["id"].to_pylist(), table["facts"].to_pylist(), strict=True):
            found[each] = {name: value for name, value in facts.items() if name not in carriers}
    return found


def _snapshot(store: Store, config: Pipeline, manifest: ModelManifest) -> SnapshotRef:
    """The dataset that the version learned from, whatever came later."""
    log = dataset_state.snapshots(store, config.name)
    number = manifest.snapshot_number
    state = dataset_state.state(config, replace(log, entries=log.entries[:number]))
    if state is None or log.number < number:
        raise Damaged(
            f"{log.prefix} is shorter than it was",
            expected=f"record {number}, which the version {manifest.version} learned from",
            received=f"{log.number} records",
            hint="Put the missing records back from a backup",
        )
    return state.model_copy(update={"classes": manifest.classes})

"""What a version is compared with: examples that it did not learn from, as it predicts them, recorded once.

A model is surer of its training examples, and its features of them lie elsewhere; and what the folds predict of them is
another model's: two fits of one configuration favour different classes. So all that a model says is the champion's, of
the holdout. Metadata is no matter of learning, and comes from all examples. Of a large dataset it is a sample: the
first by their ids, which are hashes of the content, so that they are as good as drawn, and the same each time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.core import progress, store_keys
from leptonflow.data.dataset import dataset_contents
from leptonflow.data.dataset.holdout_split import in_holdout
from leptonflow.monitoring.drift_tests import Observed
from leptonflow.registry import lineage, packages, served_models
from leptonflow.registry.champion_log import Champion
from leptonflow.storage.objects import adopt
from leptonflow.storage.store import Store
from leptonflow.tables import table_files
from leptonflow.workloads import catalog
from leptonflow.workloads.predictions import matrix
from schemas import own_model
from schemas.config import Pipeline
from schemas.records import ModelManifest, SnapshotRef

if TYPE_CHECKING:
    import pyarrow as pa

    Facts = dict[str, dict[str, Any]]  # by the example's id

MOST_HELD_OUT, MOST_OTHERS = 5_000, 10_000  # examples
ROWS = 10_000  # of a part that are in memory at once,
READ = 8 << 20  # or so many bytes of examples


def of(store: Store, config: Pipeline, champion: Champion) -> tuple[Observed, int]:
    """The reference of the champion, and its number of holdout examples. It is made and recorded where it is missing.

    Raises Damaged and NotFound where what it is made from is not there, TrainingError where the model cannot be loaded.
    """
    key = store_keys.drift_reference_key(config.name, champion.version)
    manifest = packages.manifest(store, config.name, champion.version)
    there = store.size(key) is not None
    data = store.get(key) if there else adopt(store, key, _made(store, config, champion, manifest))
    classes = manifest.classes if catalog.load(config.workload).target.classes else None
    return _observed(table_files.decode(data, key), classes)


def _observed(rows: pa.Table, classes: Sequence[str] | None) -> tuple[Observed, int]:
    import numpy as np
    import pyarrow.compute as pc

    held = rows.filter(pc.field("held_out"))
    outputs, features = held["outputs"].drop_null(), held["features"].drop_null()
    said = matrix(outputs) if len(outputs) else None
    confidence = held["probability"].drop_null().to_numpy()
    return Observed(
        metadata=columns(rows["metadata"]),
        inputs=columns(held["input_statistics"]),
        predicted=held["predicted"].drop_null().to_pylist() if classes is not None else (),
        values=said[:, 0] if said is not None and classes is None else None,
        outputs=said if classes is not None else None,
        classes=classes or (),
        confidence=confidence if len(confidence) else None,
        features=np.asarray(matrix(features)) if len(features) else None,
    ), len(held)


def columns(documents: pa.ChunkedArray, without: frozenset[str] = frozenset()) -> dict[str, list[Any]]:
    """JSON objects, or nulls, by their keys."""
    rows = [json.loads(each or "{}") for each in documents.to_pylist()]
    names = {name for row in rows for name in row} - without
    return {name: [row.get(name) for row in rows] for name in names}


def _made(store: Store, config: Pipeline, champion: Champion, manifest: ModelManifest) -> bytes:
    """A row for each example: as text its metadata; what was predicted of it, of the holdout by the champion itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    snapshot = lineage.snapshot_of(store, config, manifest)
    held, others = _sample(store, config, snapshot)
    as_trained = config.model_copy(update={"input": manifest.input})
    rows = [
        {**said, "example_id": each, "held_out": True, "metadata": json.dumps(held[each])}
        for each, said in sorted(dict(_predicted(store, as_trained, champion, snapshot, list(held))).items())
    ]
    rows += [{"example_id": each, "held_out": False, "metadata": json.dumps(facts)} for each, facts in others.items()]
    schema = pa.schema([
        ("example_id", pa.string()), ("held_out", pa.bool_()), ("predicted", pa.string()),
        ("probability", pa.float64()), ("outputs", pa.list_(pa.float32())), ("features", pa.list_(pa.float32())),
        ("metadata", pa.string()), ("input_statistics", pa.string()),
    ])  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return bytes(sink.getvalue())


def _sample(store: Store, config: Pipeline, snapshot: SnapshotRef) -> tuple[Facts, Facts]:
    """Of the holdout, and of the other examples: what was recorded, without what is a matter of an example's file."""
    carriers = catalog.load(config.workload).carriers
    held: Facts = {}
    others: Facts = {}
    unit = "id" if snapshot.group is None else "group"
    names = tuple(dict.fromkeys(("id", "facts", unit)))
    for table in dataset_contents.tables(store, snapshot.parts, snapshot.changes, names, rows=ROWS):
        progress.pulse()
        every = (table[name].to_pylist() for name in ("id", "facts", unit))
        for each, facts, whole in zip(*every, strict=True):
            kept = held if in_holdout(whole, snapshot.holdout) else others
            kept[each] = {name: value for name, value in facts.items() if name not in carriers}
        held, others = _first(held, MOST_HELD_OUT), _first(others, MOST_OTHERS)
    return held, others


def _first(found: Facts, most: int) -> Facts:
    """Those with the smallest ids, `most` at most."""
    return {each: found[each] for each in sorted(found)[:most]}


def _predicted(
    store: Store, config: Pipeline, champion: Champion, snapshot: SnapshotRef, chosen: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, what the champion says of it and the workload's numbers of it) of each of these examples."""
    import pyarrow as pa
    import pyarrow.compute as pc

    code = own_model.runs_code(config.model)
    model = served_models.load(store, config.name, champion.version, champion.manifest_sha256, code)
    workload = catalog.load(config.workload)
    codec, ids = workload.codec, pa.array(chosen, pa.string())
    count = max(1, READ // codec.bytes(config.input))
    for table in dataset_contents.tables(store, snapshot.parts, snapshot.changes, ("id", codec.column), rows=count):
        progress.pulse()
        table = table.filter(pc.is_in(table["id"], value_set=ids)).combine_chunks()
        for chunk in table[codec.column].chunks:  # one, or none where no example of these is there
            examples = codec.read(chunk, config.input)
            outputs, features = model.predict_encoded(model.encode(examples))
            numbers = workload.input_statistics(examples, config.input) if workload.input_statistics else {}
            for place, each in enumerate(table["id"].to_pylist()):
                predicted, probability = workload.target.answer(outputs[place], model.classes)
                said = {name: float(values[place]) for name, values in numbers.items()}
                yield each, {
                    "predicted": predicted, "probability": probability, "outputs": outputs[place],
                    "features": None if features is None else features[place],
                    "input_statistics": json.dumps(said) if said else None,
                }  # fmt: skip

"""Holdout examples as the pages show them: those that a version was wrong on, or least sure of, and what they are.

What does not belong here: metrics and their intervals (version_comparison), and how an example looks on a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.core import parquet, store_keys
from leptonflow.data.dataset import dataset_state, part_files
from leptonflow.runs import recording
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Evaluated, Shown
from schemas.errors import NotFound, TrainingError
from schemas.records import ModelManifest, PartRef

if TYPE_CHECKING:
    import pyarrow as pa

    from leptonflow.workloads.base import Candidate

WRONG, UNCERTAIN = "wrong", "uncertain"
COLUMNS = ("example_id", "label", "predicted", "probability", "probability_true", "source")
LONGEST_TEXT = 600  # characters of a text that are shown
ROWS = 4096  # of a part that are in memory at once


@dataclass(frozen=True)
class Prediction:
    """Of one example. chance: the probability of the true label. Null is what its workload does not predict."""

    example_id: str
    label: str
    predicted: str
    probability: float | None
    chance: float | None
    source: str | None

    @property
    def right(self) -> bool:
        return self.label == self.predicted


def predictions(store: Store, pipeline: str, run_id: str) -> list[Prediction]:
    """A run's predictions on its holdout, by example id. Raises NotFound where it has none, Damaged."""
    key = store_keys.run_key(pipeline, run_id, "holdout-predictions.parquet")
    file = recording.reference(store, pipeline, run_id, key)
    if file is None:
        raise NotFound("that run has no holdout predictions", expected="a finished run", received=run_id)
    table = parquet.read(recorded(store, file.key, file.sha256))
    there = table.select([name for name in COLUMNS if name in table.column_names]).to_pylist()
    return [
        Prediction(
            row["example_id"], row["label"], row["predicted"], row.get("probability"), row.get("probability_true"),
            row.get("source"),
        )
        for row in there
    ]  # fmt: skip


def chosen(found: Sequence[Prediction], which: str) -> list[Prediction]:
    """The wrong ones, the surest first; or the least certain of all."""
    if which == WRONG:
        return sorted((p for p in found if not p.right), key=lambda p: -(p.probability or 0.0))
    return sorted((p for p in found if p.probability is not None), key=lambda p: p.probability or 0.0)


def shown(store: Store, manifest: ModelManifest, ids: Sequence[str]) -> dict[str, Shown]:
    """How each of these examples looks, as far as the dataset still holds it. Raises Damaged."""
    import pyarrow as pa

    workload = catalog.load(manifest.workload)
    codec = workload.codec
    table = _encoded(store, manifest.pipeline, codec.column, ids)
    names = [] if table is None else table["id"].to_pylist()
    if table is None or not names:
        return {}
    column = table[codec.column].combine_chunks()
    if pa.types.is_string(column.type):
        return {name: Shown(text=_beginning(text)) for name, text in zip(names, column.to_pylist(), strict=True)}
    if column.type != codec.arrow(manifest.input):  # encoded for another `input`
        return {}
    inputs = codec.read(column, manifest.input)
    found = workload.panels(Evaluated(inputs, manifest.input, _no_model)).shown(range(len(names)))
    return {names[number]: each for number, each in found.items()}


def _no_model() -> Candidate:
    raise TrainingError("examples are shown without a model", expected="a workload whose panels need none")


def _beginning(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT].rstrip()} …"


def _encoded(store: Store, pipeline: str, column: str, ids: Sequence[str]) -> pa.Table | None:
    """Those of the examples that the dataset holds: id, and the example as its part has it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    left, found = set(ids), []
    for part in _parts(store, pipeline):
        if not left:
            break
        there = left.intersection(part_files.read_columns(store, part, ("id",))["id"].to_pylist())
        if there:
            wanted = pa.array(sorted(there), pa.string())
            tables = part_files.read_rows(store, part, ("id", column), ROWS)
            found += [table.filter(pc.is_in(table["id"].cast(pa.string()), wanted)) for table in tables]
            left -= there
    return pa.concat_tables(found) if found else None


def _parts(store: Store, pipeline: str) -> list[PartRef]:
    """The parts in the dataset's present encoding, the newest first."""
    found: list[PartRef] = []
    for entry in dataset_state.snapshots(store, pipeline).entries:
        if entry.kind == "preprocessing":
            found = []
        found += [PartRef.model_validate(part) for part in entry.body.get("parts", ())]
    return found[::-1]

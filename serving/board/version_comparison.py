"""Two versions side by side: configuration, data, and the metrics on the holdout examples that both were evaluated on.

What does not belong here: which differences matter (gate), and how anything looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leptonflow.core import parquet, store_keys
from leptonflow.evaluation import metric_intervals
from leptonflow.evaluation.metric_intervals import Between
from leptonflow.gate.evidence import together
from leptonflow.runs import comparison, recording
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from leptonflow.workloads import base, catalog
from schemas.errors import Damaged, NotFound
from serving.board import holdout_examples
from serving.board.holdout_examples import Prediction
from serving.board.run_records import CONFIDENCE, Run

if TYPE_CHECKING:
    import pyarrow as pa

LEFT_OUT = ("lineage", "files", "metrics", "data.content")  # of the differences: other with each training, or shown


@dataclass(frozen=True)
class Compared:
    """A metric of both versions over the same examples. between.candidate is the right one's interval."""

    name: str
    left: float | None
    right: float | None
    between: Between


@dataclass(frozen=True)
class Pair:
    """What both versions predicted of one example."""

    left: Prediction
    right: Prediction


@dataclass(frozen=True)
class Comparison:
    """left, right: the documents of `models --show`. lost: right before and wrong now; won: the other way.

    examples: that both were evaluated on. note: why there are no metrics, "" where there are.
    """

    left: dict[str, Any]
    right: dict[str, Any]
    differences: tuple[dict[str, Any], ...]
    examples: int
    metrics: tuple[Compared, ...]
    lost: tuple[Pair, ...]
    won: tuple[Pair, ...]
    note: str


def compare(store: Store, pipeline: str, left: str, right: str, runs: Sequence[Run]) -> Comparison:
    """runs: the pipeline's, newest first. Raises UsageError for no name, NotFound, Damaged."""
    evaluated = {name: _documents(store, pipeline, name, runs) for name in (left, right)}
    found = comparison.compare(store, pipeline, left, right, evaluated)
    differences = [each for each in found["differences"] if not each["key"].startswith(LEFT_OUT)]
    metrics: tuple[Compared, ...] = ()
    pairs: list[Pair] = []
    note = ""
    measured = [_run_of(runs, version) for version in (left, right)]
    if None in measured:
        missing = left if measured[0] is None else right
        note = f"No finished run has evaluated {missing} on the holdout."
    else:
        try:
            pairs, metrics = _on_the_same(store, pipeline, found, [run.run_id for run in measured if run])
        except (Damaged, NotFound) as error:
            note = error.line()
        if not note and not metrics:
            note = "They predict other classes, or have no holdout example in common: no metric compares them."
    return Comparison(
        found["left"],
        found["right"],
        tuple(differences),
        len(pairs),
        metrics,
        _surest((pair.right, pair) for pair in pairs if pair.left.right and not pair.right.right),
        _surest((pair.left, pair) for pair in pairs if pair.right.right and not pair.left.right),
        note,
    )


def _documents(store: Store, pipeline: str, version: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """That of the newest finished run about a version, if there is one."""
    run = next((run for run in runs if run.version == version), None)
    found = None if run is None else recording.finished(store, pipeline, run.run_id)
    return [] if found is None else [found]


def _surest(found: Iterable[tuple[Prediction, Pair]]) -> tuple[Pair, ...]:
    """The pairs, those first whose wrong prediction was the surest."""
    return tuple(pair for _, pair in sorted(found, key=lambda each: -(each[0].probability or 0.0)))


def _run_of(runs: Sequence[Run], version: str) -> Run | None:
    return next((run for run in runs if run.version == version and any(on == "holdout" for _, on in run.metrics)), None)


def _on_the_same(
    store: Store, pipeline: str, found: dict[str, Any], run_ids: Sequence[str]
) -> tuple[list[Pair], tuple[Compared, ...]]:
    left, right = (holdout_examples.predictions(store, pipeline, run_id) for run_id in run_ids)
    theirs = {each.example_id: each for each in left}
    pairs = [
        Pair(theirs[each.example_id], each)
        for each in right
        if each.example_id in theirs and theirs[each.example_id].label == each.label
    ]
    if not pairs or found["left"]["classes"] != found["right"]["classes"]:
        return pairs, ()
    ids = [pair.right.example_id for pair in pairs]
    tables = [_table(store, pipeline, run_id, ids) for run_id in run_ids]
    return pairs, _metrics(found["right"], tables, ids)


def _table(store: Store, pipeline: str, run_id: str, ids: Sequence[str]) -> pa.Table:
    """The file of a run's predictions, of these examples alone, in this order."""
    key = store_keys.run_key(pipeline, run_id, "holdout-predictions.parquet")
    file = recording.reference(store, pipeline, run_id, key)
    if file is None:
        raise NotFound("that run has no holdout predictions", received=run_id)
    table = parquet.read(recorded(store, file.key, file.sha256))
    place = {example: row for row, example in enumerate(table["example_id"].to_pylist())}
    return table.take([place[example] for example in ids])


def _metrics(document: dict[str, Any], tables: Sequence[pa.Table], ids: Sequence[str]) -> tuple[Compared, ...]:
    target = catalog.load(document["workload"]).target
    classes = document["classes"]
    left, right = (target.scores(*target.restore(table, classes), classes) for table in tables)
    named = "example_group" in tables[1].column_names
    groups = dict(zip(ids, tables[1]["example_group"].to_pylist(), strict=True)) if named else {}
    between = metric_intervals.between(right, left, CONFIDENCE, together(groups, ids))
    before, now = base.score(left), base.score(right)
    return tuple(Compared(name, before.get(name), now.get(name), ends) for name, ends in between.items())

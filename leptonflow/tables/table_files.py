"""Writes the tables' rows: one Parquet file per table and run (or version, or batch), its key fixed by both.

The rows of a file follow from recorded things alone (an outcome, a fit's manifest, a verdict that was
adopted), and a file is only ever created. So a crash and a re-run leave each row once, and whoever
comes second adopts what is there. Reading them as SQL belongs to `queries`; the columns to
`schemas.tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from leptonflow.core import parquet
from leptonflow.core.hashing import canonical, sha256, short
from leptonflow.core.store_keys import fold_table_key, table_folder, table_key
from leptonflow.storage.objects import BACK, adopt, recorded
from leptonflow.storage.store import Store
from schemas.errors import Damaged

if TYPE_CHECKING:
    import pyarrow as pa

    from schemas.records import Evaluation, FitResult, ModelManifest, ObjectRef, Outcome, PackageRef, Verdict

Row = Mapping[str, Any]


def batch_id(batch: str, contract: str) -> str:
    """The id of a batch's files: one for each contract that it was judged under."""
    return f"{batch}-{short(contract)}"


def moment(text: str | None) -> datetime | None:
    """A recorded time (ISO 8601, UTC) as an aware datetime."""
    if text is None:
        return None
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def arrow(table: str, rows: Sequence[Row]) -> pa.Table:
    """Rows as the table's schema says. A missing column is null, an unknown one a programming error."""
    import pyarrow as pa

    from schemas import tables as declared

    schema = declared.schema(table)
    strangers = {name for row in rows for name in row} - set(schema.names)
    if strangers:
        raise ValueError(f"the table {table} has no column {', '.join(sorted(strangers))}")
    times = {field.name for field in schema if pa.types.is_timestamp(field.type)}
    columns = [
        pa.array([moment(row.get(n)) if n in times else row.get(n) for row in rows], schema.field(n).type)
        for n in schema.names
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def encode(table: pa.Table) -> bytes:
    """A table as Parquet bytes; the same rows give the same bytes.

    `pipeline` is written as a dictionary: for pyarrow the folder's name `pipeline=<name>` is a column of that type, and
    it refuses to read a folder whose files have the column with another type.
    """
    import pyarrow as pa

    return _encoded(table, pa.dictionary(pa.int32(), pa.string()))


def encode_as_text(table: pa.Table) -> bytes:
    """As `encode`, the way releases before it did: `pipeline` is text. For comparing with what they wrote."""
    import pyarrow as pa

    return _encoded(table, pa.string())


def _encoded(table: pa.Table, pipeline: pa.DataType) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(_pipeline_as(table, pipeline), sink, compression="zstd")
    return bytes(sink.getvalue())


def decode(data: bytes, where: str) -> pa.Table:
    """Parquet bytes as a table, `pipeline` as text whichever release wrote it. Raises Damaged, naming `where`."""
    import pyarrow as pa

    try:
        return _pipeline_as(parquet.read(data), pa.string())
    except (pa.ArrowException, OSError) as error:
        raise Damaged(
            f"{where} cannot be read", expected="a Parquet file", received=str(error).splitlines()[0],
            hint=BACK,
        ) from None  # fmt: skip


def _pipeline_as(table: pa.Table, kind: pa.DataType) -> pa.Table:
    place = table.schema.get_field_index("pipeline")
    return table if place < 0 else table.set_column(place, "pipeline", table["pipeline"].cast(kind))


def write(store: Store, files: Iterable[tuple[str, pa.Table]]) -> list[ObjectRef]:
    """Create each (key, table), or adopt what lies there already; references to what now lies there."""
    from schemas.records import ObjectRef

    written = {name: encode(table) for name, table in files}
    for name in store.create_many(written.items()):
        written[name] = adopt(store, name, written[name])
    return [ObjectRef(key=name, sha256=sha256(data), bytes=len(data)) for name, data in written.items()]


# --- what a batch leaves -------------------------------------------------------------------------


def batch_files(outcome: Outcome) -> list[tuple[str, pa.Table]]:
    """The files of the tables `batches` and `validations` for one outcome."""
    same = {"pipeline": outcome.pipeline, "batch": outcome.batch, "contract": outcome.contract, "at": outcome.at}
    counts = ("outcome", "arrived", "accepted", "quarantined", "known", "ignored", "snapshot", "listing", "sentence")
    batch = {**same, **{name: getattr(outcome, name) for name in counts}}
    validations = [
        {
            **same,
            "number": number,
            "expectation": found.expectation,
            "fact": found.column,
            "kwargs": canonical(found.kwargs).decode(),
            "success": found.success,
            "observed": found.observed,
            "unexpected": found.unexpected,
        }
        for number, found in enumerate(outcome.expectations, start=1)
    ]
    name = batch_id(outcome.batch, outcome.contract)
    return [
        (table_key("batches", outcome.pipeline, name), arrow("batches", [batch])),
        (table_key("validations", outcome.pipeline, name), arrow("validations", validations)),
    ]


# --- what a version and a run leave --------------------------------------------------------------


def version_files(
    store: Store, manifest: ModelManifest, package: PackageRef, fits: Sequence[FitResult], final: FitResult
) -> list[tuple[str, pa.Table]]:
    """The files that a version leaves once: models, folds, epochs, fits and its out-of-fold predictions.

    They carry the run that trained the version, as its manifest names it, whoever writes them.
    """
    p, version = manifest.pipeline, manifest.version
    same = {"pipeline": p, "version": version, "run_id": manifest.run_id}
    model = {
        **same,
        "manifest_sha256": package.manifest_sha256,
        "bytes": package.bytes,
        "created_at": manifest.created_at,
        "workload": manifest.workload,
        "snapshot": manifest.snapshot,
        "snapshot_number": manifest.snapshot_number,
    }
    folds = [
        {**same, "fold": fit.fold, "metric": metric, "value": value}
        for fit in fits
        for metric, value in fit.metrics.items()
    ]
    return [
        (table_key("models", p, version), arrow("models", [model])),
        (table_key("folds", p, version), arrow("folds", folds)),
        *(_other_fits(store, table, same, (*fits, final)) for table in _OF_FITS),
        (table_key("configuration", p, version), arrow("configuration", _configuration(manifest.config, same))),
        *_of_examples(p, f"{version}-oof", [
            (_read(store, file), {**same, "split": "oof", "fold": fit.fold})
            for fit in fits
            for file in fit.files
            if file.key.endswith("oof.parquet")
        ]),
    ]  # fmt: skip


def fold_files(
    store: Store, pipeline: str, version: str, run_id: str, fits: Sequence[FitResult]
) -> list[tuple[str, pa.Table]]:
    """The files of `epochs` and `fits` of a run that was stopped early, one for each of its folds.

    A later run of the same version uses these folds again: `version_files` leaves out what has a file here.
    """
    same = {"pipeline": pipeline, "version": version, "run_id": run_id}
    return [
        (fold_table_key(table, pipeline, version, fit.fold), arrow(table, rows(fit, same)))
        for table, rows in _OF_FITS.items()
        if store.size(table_key(table, pipeline, version)) is None
        for fit in fits
    ]


def _other_fits(store: Store, table: str, same: Row, fits: Sequence[FitResult]) -> tuple[str, pa.Table]:
    """The version's file of `epochs` or `fits`: of all fits but the folds that have a file of their own."""
    p, version = same["pipeline"], same["version"]
    there = set(store.keys(table_folder(table, p)))
    others = [fit for fit in fits if fold_table_key(table, p, version, fit.fold) not in there]
    return table_key(table, p, version), arrow(table, [row for fit in others for row in _OF_FITS[table](fit, same)])


def _epochs(fit: FitResult, same: Row) -> list[Row]:
    return [{**same, "fold": fit.fold, **epoch.model_dump()} for epoch in fit.epochs]


def _fit(fit: FitResult, same: Row) -> list[Row]:
    row = {
        **same,
        "fold": fit.fold,
        "examples": fit.examples,
        "epochs": max((each.epoch for each in fit.epochs), default=0),
        "best_epoch": fit.best_epoch,
        "seconds": fit.seconds,
        "precision": fit.precision or "float32",
        **(fit.cost.model_dump() if fit.cost is not None else {}),
    }
    return [row]


_OF_FITS: Mapping[str, Callable[[FitResult, Row], list[Row]]] = {"epochs": _epochs, "fits": _fit}


def run_files(
    store: Store,
    pipeline: str,
    verdict: Verdict,
    evaluation: Evaluation | None,
    run: Row,
    cv: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> list[tuple[str, pa.Table]]:
    """The files that a run leaves once: runs, verdicts, metrics, stages and its holdout predictions.

    evaluation: None of a run that was stopped early; run: its row in `runs`; cv: {metric: {mean, std}} of the
    candidate; seconds: of each stage.
    """
    same = {"pipeline": pipeline, "run_id": verdict.run_id, "version": verdict.version}
    rules = [{**same, "number": n, **rule.model_dump()} for n, rule in enumerate(verdict.rules, start=1)]
    stages = [{**same, "stage": stage, "seconds": spent} for stage, spent in seconds.items()]
    predictions = []
    if evaluation is not None:
        found = _read(store, evaluation.predictions), {**same, "split": "holdout", "fold": None}
        predictions = _of_examples(pipeline, f"{verdict.run_id}-holdout", [found])
    return [
        (table_key("runs", pipeline, verdict.run_id), arrow("runs", [{**same, **run}])),
        (table_key("verdicts", pipeline, verdict.run_id), arrow("verdicts", rules)),
        (table_key("metrics", pipeline, verdict.run_id), arrow("metrics", _metrics(evaluation, cv, same))),
        (table_key("stages", pipeline, verdict.run_id), arrow("stages", stages)),
        *predictions,
    ]


def _metrics(evaluation: Evaluation | None, cv: Mapping[str, Mapping[str, Any]], same: Row) -> list[Row]:
    """The candidate's metrics, those over the folds first; the champion's beside those of the same holdout."""
    champion = evaluation.champion_scores if evaluation is not None else None
    told = {"champion": champion.version} if champion else {}
    theirs = champion.metrics if champion else {}
    folded = [
        {**same, "split": "cv", "metric": metric, "label": _label(metric), "value": of["mean"], "std": of["std"]}
        for metric, of in cv.items()
    ]
    held_out = [
        {**same, **told, "split": "holdout", "metric": metric, "label": _label(metric), "value": value,
         "champion_value": theirs.get(metric)}
        for metric, value in (evaluation.candidate_scores.metrics if evaluation is not None else {}).items()
    ]  # fmt: skip
    return [*folded, *held_out]


def _label(metric: str) -> str | None:
    """The class that a metric such as recall[cat] is about."""
    return metric[metric.index("[") + 1 : -1] if metric.endswith("]") and "[" in metric else None


def _configuration(config: Mapping[str, Any], same: Row) -> list[Row]:
    """A row for each leaf of the configuration, its name the path in the YAML; a list is one leaf, as JSON."""
    found: list[Row] = []
    waiting = list(config.items())
    while waiting:
        name, value = waiting.pop(0)
        if isinstance(value, Mapping):
            waiting[:0] = [(f"{name}.{inner}", of) for inner, of in value.items()]
        elif value is not None:
            text = value if isinstance(value, str) else canonical(value).decode()
            number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
            found.append({**same, "name": name, "value": text, "number": number})
    return found


def _read(store: Store, where: ObjectRef) -> pa.Table:
    """What training or evaluation left there."""
    return decode(recorded(store, where.key, where.sha256), where.key)


def _of_examples(pipeline: str, name: str, found: Sequence[tuple[pa.Table, Row]]) -> list[tuple[str, pa.Table]]:
    """The files of `predictions`, and of `outputs` where there are any. found: files, and what all their rows share."""
    import pyarrow as pa

    predictions = [_predictions(table, same) for table, same in found]
    rows = pa.concat_tables(predictions) if predictions else arrow("predictions", [])
    outputs = [own for table, same in found for own in _outputs(table, same)]
    files = [(table_key("predictions", pipeline, name), rows)]
    return [*files, (table_key("outputs", pipeline, name), pa.concat_tables(outputs))] if outputs else files


def _predictions(found: pa.Table, same: Row) -> pa.Table:
    """Its rows under the columns of `predictions`. Null: what the workload, or an earlier release, does not have."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from schemas import tables as declared

    schema = declared.schema("predictions")
    if "probability" in found.column_names:  # right or wrong, with a probability to be so
        found = found.append_column("correct", pc.equal(found["label"], found["predicted"]))
    constants = {**dict.fromkeys(set(schema.names) - set(found.column_names)), **same}
    columns = [
        found[field.name].cast(field.type).combine_chunks()
        if field.name not in constants
        else pa.repeat(pa.scalar(constants[field.name], field.type), found.num_rows)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _outputs(found: pa.Table, same: Row) -> list[pa.Table]:
    """The numbers that are a workload's own, a table for each."""
    import pyarrow as pa

    from schemas import tables as declared

    schema = declared.schema("outputs")
    own = [field.name for field in found.schema if field.name not in declared.COLUMNS["predictions"]]
    tables = []
    for name in (name for name in own if pa.types.is_floating(found.schema.field(name).type)):
        constants = {**same, "name": name}
        columns = [
            pa.repeat(pa.scalar(constants[field.name], field.type), found.num_rows)
            if field.name in constants
            else found["example_id" if field.name == "example_id" else name].cast(field.type).combine_chunks()
            for field in schema
        ]
        tables.append(pa.Table.from_arrays(columns, schema=schema))
    return tables

"""The subcommands about what is served: label, labels, monitor. Thin: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.common import JSON, PIPELINE, STORE, Answer, answer, looked_at
from schemas.settings import store_uri
from schemas.text import counted, printable

DRIFTED = 3  # the data is not what the champion knows
TOLD = 10  # refused labels that are printed one by one


def label(
    pipeline: PIPELINE,
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="columns request_id, label and, if you like, who")],
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Give labels to served predictions, by request id."""
    from leptonflow.core import person, pipeline_files
    from leptonflow.monitoring import label_files
    from leptonflow.monitoring import labels as recorded
    from leptonflow.storage.address import open_store

    config = pipeline_files.load_config(pipeline)
    given = label_files.read(file)
    document = recorded.record(open_store(store_uri(store)), config.name, given, person.person())
    return answer(Answer(document, lambda: _labelled(document), 1 if document["refused"] else 0), as_json)


def labels(
    pipeline: PIPELINE,
    to_batch: Annotated[
        bool, typer.Option("--to-batch", help="land what was served with its inputs and labelled, as a batch")
    ] = False,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """How good served predictions with a label are."""
    from leptonflow.core import pipeline_files
    from leptonflow.monitoring import labelled_batch, live_quality

    config = pipeline_files.load_config(pipeline)
    if to_batch:
        landed = labelled_batch.land(looked_at(store, required=True), config)
        return answer(Answer(landed, lambda: _landed(landed)), as_json)
    document = {"pipeline": config.name, "quality": live_quality.measure(looked_at(store), config)}
    return answer(Answer(document, lambda: _quality(document)), as_json)


def monitor(
    pipeline: PIPELINE,
    rows: Annotated[
        int | None, typer.Option("--rows", min=50, max=10_000, help="so many of the newest predictions")
    ] = None,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Look for drift in what the champion is served. Recorded, with a page; exit status 3 where there is one."""
    from leptonflow.core import pipeline_files
    from leptonflow.monitoring import drift_looks

    config = pipeline_files.load_config(pipeline)
    opened = looked_at(store, required=True)
    asked = rows or (config.serving.monitor.rows if config.serving.monitor else drift_looks.ROWS)
    found = drift_looks.record(opened, drift_looks.examine(opened, config, asked))
    document = {**found.model_dump(mode="json"), "page": drift_looks.page(opened, found)}
    return answer(Answer(document, lambda: _looked(document), DRIFTED if found.verdict == "drift" else 0), as_json)


def _looked(document: dict[str, Any]) -> None:
    print(printable(f"{document['pipeline']}: {document['sentence']}"))
    for test in document["tests"]:
        what = test["what"] if test["name"] is None else f"{test['what']}.{test['name']}"
        print(printable(f"{'drift' if test['drifted'] else '-':6}{what}: {test['sentence']}"))
    print(printable(f"page: {document['page']}"))


def _labelled(document: dict[str, Any]) -> None:
    from cli import show

    print(f"{counted(document['accepted'], 'label')} recorded")
    for row in document["rows"][:TOLD]:
        show.warn(printable(f"row {row['row']}, {row['request_id']!r}: {row['sentence']}"))
    if document["refused"] > TOLD:
        reasons = ", ".join(f"{rows} {reason}" for reason, rows in document["reasons"].items())
        show.warn(f"{document['refused']} rows were refused: {reasons}")


def _landed(document: dict[str, Any]) -> None:
    known = f", {document['known']} of them in the dataset already" if document["known"] else ""
    print(printable(f"batch {document['batch']}: {counted(document['examples'], 'labelled example')}{known}, pending"))
    if document["without_inputs"]:
        print(f"{counted(document['without_inputs'], 'label')} left out: their inputs were not logged")
    if document["unnameable"]:
        print(f"{counted(document['unnameable'], 'label')} left out: no folder can be named so")


def _quality(document: dict[str, Any]) -> None:
    if not document["quality"]:
        print("no served prediction has a label yet")
    for row in document["quality"]:
        told = []
        for name, found in row["metrics"].items():
            ends = "no interval" if found["low"] is None else f"{found['low']:.4f} to {found['high']:.4f}"
            told.append(f"{name} {found['value']:.4f} ({ends})")
        of = row["slice"] or "all"
        print(printable(f"{row['version']}  {of}  {counted(row['n'], 'label')}  {', '.join(told)}"))
    if any(found["low"] is None for row in document["quality"] for found in row["metrics"].values()):
        print("no interval: no resample of these labels changes the metric, which says nothing about how sure it is")

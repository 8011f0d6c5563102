"""The subcommands around the dataset: what a source holds, into it, and out of it. Thin: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.common import JSON, PIPELINE, STORE, Answer, answer
from schemas.errors import UsageError
from schemas.settings import store_uri
from schemas.text import printable

PATH_COLUMN = Annotated[str | None, typer.Option("--path-column", metavar="NAME", help="a table's column of paths")]
TEXT_COLUMN = Annotated[
    list[str] | None,
    typer.Option("--text-column", metavar="NAME", help="of a table that holds texts; several are joined"),
]
LABEL_COLUMN = Annotated[str | None, typer.Option("--label-column", metavar="NAME", help="a table's column of labels")]
ROOT = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="the folder that a table's paths are relative to")
]


def init(
    target: Annotated[str, typer.Argument(metavar="NAME|DIR", help="a name under pipelines/, or a folder")],
    source: Annotated[
        Path | None, typer.Option("--from", metavar="SOURCE", help="data to inspect: its workload, classes and input")
    ] = None,
    path_column: PATH_COLUMN = None,
    text_column: TEXT_COLUMN = None,
    label_column: LABEL_COLUMN = None,
    root: ROOT = None,
    as_json: JSON = False,
) -> int:
    """Write a commented pipeline YAML and contract to start from."""
    from cli import pipeline_template, show

    summary = None
    if source is not None:
        from leptonflow.data.ingest import source_summary, source_workload
        from leptonflow.data.ingest.label_columns import Columns

        columns = Columns(path_column, label_column, tuple(text_column) if text_column else None)
        workload, found, why = source_workload.choose(source, columns, root)
        summary = source_summary.summarise(found, workload)
        for warning in (*([why] if why else []), *summary.warnings()):
            show.warn(warning)
    path = pipeline_template.write(target, summary, source)
    document = {"path": str(path), **({"seen": summary.document()} if summary else {})}

    def tell() -> None:
        for line in pipeline_template.lines(summary) if summary is not None else ():
            print(printable(line))
        written = summary is not None and summary.columns  # the YAML names the column of labels beside those
        given = pipeline_template.options(path_column, None if written else label_column, root)
        print(pipeline_template.next_steps(path, source, given))

    return answer(Answer(document, tell), as_json)


def ingest(
    pipeline: PIPELINE,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="a folder, arrays, or a table")],
    batch: Annotated[str | None, typer.Option("--batch", metavar="NAME", help="default: from SOURCE's content")] = None,
    path_column: PATH_COLUMN = None,
    text_column: TEXT_COLUMN = None,
    label_column: LABEL_COLUMN = None,
    root: ROOT = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="relabel examples that the dataset has under another label")
    ] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="the reason of --correct, recorded")
    ] = None,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Validate a source and add it to the dataset. --correct relabels what the dataset holds."""
    from cli import batch_lines, show
    from leptonflow.core import pipeline_files
    from leptonflow.data.ingest import intake
    from leptonflow.data.ingest.label_columns import Columns
    from leptonflow.storage.address import open_store

    config = pipeline_files.load_config(pipeline)
    columns = Columns(path_column, label_column, tuple(text_column) if text_column else None)
    if reason is not None and not correct:
        raise UsageError("--reason belongs to --correct", expected="--correct --reason TEXT", received="no --correct")
    with show.progress():
        document, warnings = intake.ingest(
            open_store(store_uri(store)), config, source, batch, columns, root, correct=correct, reason=reason
        )
    for warning in warnings:
        show.warn(warning)
    status = 3 if document["outcome"] == "refused" else 0
    return answer(Answer(document, lambda: batch_lines.ingested(pipeline, config.name, document), status), as_json)


def retract(
    pipeline: PIPELINE,
    examples: Annotated[list[str], typer.Argument(metavar="EXAMPLE...", help="files or rows as ingested, or ids")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="recorded")],
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Remove examples from the dataset. Their files stay in landing/."""
    from cli import show
    from leptonflow.core import pipeline_files
    from leptonflow.data.dataset import corrections, dataset_state
    from leptonflow.storage.address import open_store

    config = pipeline_files.load_config(pipeline)
    opened = open_store(store_uri(store))
    changes = corrections.retract(opened, config, examples, reason)
    head = dataset_state.snapshots(opened, config.name).head
    document = {
        "retracted": [change.row for change in changes],
        "record": head.number if head and changes else None,
        "snapshot": head.body["snapshot"] if head else None,
        "examples": head.body["examples"] if head else 0,
    }
    return answer(Answer(document, lambda: show.retracted(document)), as_json)

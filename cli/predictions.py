"""The subcommand `predict`: a few examples to the terminal, or many to a Parquet file. Thin: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.common import DEBUG, JSON, PIPELINE, STORE, Answer, answer, looked_at
from cli.dataset import PATH_COLUMN, ROOT, TEXT_COLUMN
from schemas.config import Pipeline
from schemas.errors import UsageError
from schemas.text import counted


def predict(
    pipeline: PIPELINE,
    examples: Annotated[
        list[str],
        typer.Argument(metavar="EXAMPLE...", help="files, folders of them; texts, or tables; with --output s3:// too"),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE.parquet", help="of many examples; safe to repeat")
    ] = None,
    processes: Annotated[int, typer.Option("--processes", min=1, max=64, metavar="N", help="side by side")] = 1,
    path_column: PATH_COLUMN = None,
    text_column: TEXT_COLUMN = None,
    root: ROOT = None,
    store: STORE = None,
    as_json: JSON = False,
    debug: DEBUG = False,
) -> int:
    """The champion's prediction for each image or text."""
    from cli import show
    from leptonflow.core import pipeline_files
    from leptonflow.evaluation import champion_predictions

    config = pipeline_files.load_config(pipeline)
    if output is not None:
        return _score(config, examples, output, processes, path_column, text_column, root, store, as_json)
    given = {"--processes": processes > 1, "--path-column": path_column, "--text-column": text_column, "--root": root}
    if alone := [name for name, value in given.items() if value]:
        raise UsageError(
            f"{alone[0]} is about predictions that go to a file", expected="--output FILE", received="no --output"
        )
    found = champion_predictions.predict(looked_at(store), config, examples)
    failed = any(a["error"] for a in found)
    return answer(Answer(found, lambda: show.predicted(found), 1 if failed else 0), as_json)


def _score(
    config: Pipeline,
    examples: list[str],
    output: Path,
    processes: int,
    path_column: str | None,
    text_column: list[str] | None,
    root: Path | None,
    store: str | None,
    as_json: bool,
) -> int:
    from cli import show
    from leptonflow.batch_scoring import scoring_job
    from leptonflow.data.ingest.label_columns import Columns

    columns = Columns(path=path_column, cells=tuple(text_column) if text_column else None)
    with show.progress():
        document = scoring_job.to_file(
            looked_at(store), config, examples, output, processes=processes, columns=columns, root=root
        )
    status = 1 if document["failed"] else 0
    if status:
        show.warn(f"{counted(document['failed'], 'example')} could not be scored: the column `error` says why")
    return answer(Answer(document, lambda: _scored(document), status), as_json)


def _scored(document: dict[str, Any]) -> None:
    kept = f", {document['kept']:,} of them kept from before" if document["kept"] else ""
    print(f"{document['rows']:,} rows{kept}, {document['failed']:,} without a prediction")
    print(f"version {document['version']} ({document['runtime']}): {document['output']}")

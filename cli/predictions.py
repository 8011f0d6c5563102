"""The subcommand `predict`: a few examples to the terminal, or many to a Parquet file. Thin: parse, call, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.common import JSON, PIPELINE, STORE, Answer, answer, looked_at
from cli.dataset import PATH_COLUMN, ROOT, TEXT_COLUMN
from schemas.errors import UsageError
from schemas.text import counted, printable

LONGEST = 250  # characters of an example's name
MOST_WORDS = 10  # of an explained text

if TYPE_CHECKING:
    from schemas.config import Pipeline


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
    explain: Annotated[bool, typer.Option("--explain", help="which parts of each example mattered")] = False,
    path_column: PATH_COLUMN = None,
    text_column: TEXT_COLUMN = None,
    root: ROOT = None,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """The champion's prediction for each image or text."""
    from leptonflow.core import pipeline_files
    from leptonflow.evaluation import champion_predictions

    config = pipeline_files.load_config(pipeline)
    if output is not None and explain:
        raise UsageError("--explain is of a few examples", expected="no --output", received=f"--output {output}")
    if output is not None:
        return _score(config, examples, output, processes, path_column, text_column, root, store, as_json)
    given = {"--processes": processes > 1, "--path-column": path_column, "--text-column": text_column, "--root": root}
    if alone := [name for name, value in given.items() if value]:
        raise UsageError(
            f"{alone[0]} is about predictions that go to a file", expected="--output FILE", received="no --output"
        )
    found = champion_predictions.predict(looked_at(store), config, examples, explain)
    failed = any(a["error"] for a in found)
    return answer(Answer(found, lambda: _predicted(found), 1 if failed else 0), as_json)


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


def _predicted(predictions: Sequence[dict[str, Any]]) -> None:
    """One line an example, of a long text its beginning."""
    for each in predictions:
        file = printable(each["file"]) or '""'
        file = file if len(file) <= LONGEST else f"{file[:LONGEST]}…"
        if each["error"]:
            print(f"{file}: {printable(each['error'])}", file=sys.stderr)
        else:
            sure = "" if each["probability"] is None else f" ({each['probability']:.4f})"
            print(f"{file}: {printable(each['label'])}{sure}")
            for line in _explained(each.get("explanation")):
                print(f"  {line}")


def _explained(found: dict[str, Any] | None) -> list[str]:
    """The words that mattered most; of an image the effect of every part, in hundredths, as the parts lie in it.

    The line before them says what the numbers are.
    """
    if found is None:
        return []
    of, part, least = ("marks", "word", 0.0001) if "marks" in found else ("patches", "part of the image", 0.01)
    if all(abs(each["effect"]) < least / 2 for each in found[of]):
        return [f"no single {part} matters: without any one of them the probability changes by less than {least}"]
    if "marks" in found:
        told = sorted(found["marks"], key=lambda mark: -abs(mark["effect"]))[:MOST_WORDS]
        lines = [f"{mark['effect']:+.4f}  {printable(mark['text'])}" for mark in told]
        return ["what the probability loses without each word, the words that matter most first:", *lines]
    rows: dict[int, list[str]] = {}
    for patch in found["patches"]:
        rows.setdefault(patch["top"], []).append(f"{round(100 * patch['effect']):+4d}")
    lines = [" ".join(row) for row in rows.values()]
    return ["what the probability loses without each part of the image, in hundredths, as the parts lie in it:", *lines]

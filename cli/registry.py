"""The subcommands that show versions and decisions: models, explain, reproduce. Thin: parse, call, print."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.common import JSON, PIPELINE, STORE, Answer, answer, looked_at
from schemas.errors import UsageError
from schemas.text import printable


def models(
    pipeline: PIPELINE,
    show: Annotated[
        str | None, typer.Option("--show", metavar="V", help="everything of one version: configuration, data, lineage")
    ] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option("--diff", metavar="V W", help="two versions side by side")
    ] = None,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """The model versions, newest last. With --show all about one, with --diff two side by side."""
    from cli import show as shown
    from cli import status_tables
    from leptonflow.core import pipeline_files
    from leptonflow.runs import comparison, pipeline_status

    if show is not None and diff is not None:
        raise UsageError("--show and --diff exclude each other", expected="--show V or --diff V W", received="both")
    config = pipeline_files.load_config(pipeline)
    opened = looked_at(store)
    if show is not None:
        document = comparison.version(opened, config.name, show)
        return answer(Answer(document, lambda: _version(document)), as_json)
    if diff is not None:
        compared = comparison.compare(opened, config.name, *diff)
        return answer(Answer(compared, lambda: _compared(compared)), as_json)
    rows = pipeline_status.models(opened, config)
    for row in rows:
        if row["damage"]:
            shown.warn(row["damage"])
    return answer(Answer(rows, lambda: status_tables.models(rows)), as_json)


def explain(
    pipeline: PIPELINE,
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="default: the newest finished run")] = None,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Why a candidate was promoted or refused. Also what would have changed the verdict."""
    from cli import show
    from leptonflow.core import pipeline_files
    from leptonflow.runs import run_explanation

    config = pipeline_files.load_config(pipeline)
    document = run_explanation.explain(looked_at(store), config, run_id)
    told = " ".join(filter(None, (document["paragraph"], document.get("advice"))))
    return answer(Answer(document, lambda: print(show.wrapped(show.advice(told), _width()))), as_json)


def reproduce(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID")],
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", metavar="X", help="of two probabilities; default: 0.001")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="of model.function's module; default: pipelines")
    ] = None,
    folds: Annotated[bool, typer.Option("--folds", help="train every fold again too, one fit each")] = False,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Train a recorded version again and compare. Nothing is written."""
    from cli import show
    from leptonflow.core import pipeline_files
    from leptonflow.runs import reproduction

    limit = reproduction.TOLERANCE if tolerance is None else tolerance
    with show.progress():
        document = reproduction.reproduce(looked_at(store), run_id, limit, folder or pipeline_files.PIPELINES, folds)
    status = 0 if document["within_tolerance"] else 1
    if status:
        show.warn(f"not reproduced: {document['sentence']}")
    return answer(Answer(document, lambda: _reproduced(document), status), as_json)


def _reproduced(document: dict[str, Any]) -> None:
    """The outcome, then whatever differs from the record."""
    from cli import show

    print(printable(document["sentence"]))
    if document["folds"]:
        show.rows(document["folds"], ("fold", "equal", "largest_difference", "examples", "flipped"))
    if document["differs"]:
        show.rows(document["differs"], ("what", "key", "recorded", "here"), long=("recorded", "here"))


def _width() -> int:
    return min(100, shutil.get_terminal_size().columns)


def _version(document: dict[str, Any]) -> None:
    """Key by key; the first lines say whether it is the champion and undamaged."""
    from leptonflow.runs import comparison

    kind = "the champion" if document["champion"] else "not the champion"
    print(f"version {document['version']}, {kind}; run {document['run_id']} at {document['created_at']}")
    print(f"  {printable(document['damage'] or 'every file is as recorded')}")
    for record in document["promotions"]:
        print(f"  record {record['number']}: {record['kind']} by {printable(record['who'])} at {record['at']}")
    for key, value in comparison.flat(document).items():
        print(f"{key:<32} {printable(comparison.text(value))}")


def _compared(document: dict[str, Any]) -> None:
    """All keys of both, side by side, those that differ marked."""
    from cli import show
    from leptonflow.runs import comparison

    left, right = (comparison.flat(document[side]) for side in ("left", "right"))
    differing = {each["key"] for each in document["differences"]}
    rows = [
        {
            "": "*" if key in differing else "",
            "key": key,
            document["versions"][0]: comparison.text(left.get(key)),
            document["versions"][1] + " ": comparison.text(right.get(key)),
        }
        for key in comparison.keys(left, right)
    ]
    columns = list(rows[0])
    show.rows(rows, columns, long=columns[2:])
    print(f"{len(differing)} of {len(rows)} differ (marked *)")

"""The subcommand `report`: the path of a run's report, or the report in a browser. Thin: parse, call, print."""

from __future__ import annotations

import re
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.common import JSON, STORE, Answer, answer, looked_at
from schemas.errors import LeptonflowError, NotFound

if TYPE_CHECKING:
    from leptonflow.storage.store import Store

RUN = re.compile(r"[0-9a-f]{12}")


def report(
    run: Annotated[str, typer.Argument(metavar="RUN_ID|PIPELINE", help="a pipeline: its newest finished run")],
    browse: Annotated[bool, typer.Option("--open", help="show it in a browser")] = False,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """The path of a run's HTML report. With --open, the report in a browser."""
    from leptonflow.runs import pipeline_status

    opened = looked_at(store)
    run_id = run if RUN.fullmatch(run) else _newest(opened, run)
    path = pipeline_status.report(opened, run_id)
    if browse:
        _browse(opened, path, run_id)
    return answer(Answer({"path": path}, lambda: print(path)), as_json)


def _newest(store: Store, pipeline: str) -> str:
    """The id of the pipeline's newest run that has a report."""
    from leptonflow.core import pipeline_files
    from leptonflow.runs import pipeline_status

    config = pipeline_files.load_config(pipeline)
    finished = [each["run_id"] for each in pipeline_status.runs(store, config) if each["report"]]
    if not finished:
        raise NotFound(
            f"no run of {config.name} has a report", expected="a finished run",
            hint=f"`leptonflow retrain {pipeline}` makes one",
        )  # fmt: skip
    return str(finished[-1])


def _browse(store: Store, path: str, run_id: str) -> None:
    """Show the report; of an S3 store, a local copy of it."""
    from leptonflow.runs import pipeline_status

    file = Path(path)
    if "://" in path:
        file = Path(tempfile.mkdtemp(prefix="leptonflow-")) / f"{run_id}.html"
        file.write_bytes(pipeline_status.report_page(store, run_id))
    if not webbrowser.open(file.as_uri()):
        raise LeptonflowError(
            "no browser could be started", expected="a browser on this machine, or the variable BROWSER",
            hint=f"Open {file} yourself",
        )  # fmt: skip

"""The subcommands by which a person decides about a run that waits: approve, reject. Thin: parse, call, print."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.common import JSON, PIPELINE, STORE, Answer, answer, looked_at

RUN = Annotated[str, typer.Argument(metavar="RUN", help="the run that waits, as `status` names it")]


def approve(
    pipeline: PIPELINE,
    run: RUN,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="recorded")] = "",
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Promote a run that waits for approval."""
    from cli import show
    from leptonflow.core import clock, person, pipeline_files
    from leptonflow.runs import approval

    config = pipeline_files.load_config(pipeline)
    who = person.person()
    with show.progress():
        document = approval.approve(looked_at(store, required=True), config, run, who, reason, clock.now())
    status = 4 if document["outcome"] == "refused" else 0
    return answer(Answer(document, lambda: _decided(document), status), as_json)


def reject(
    pipeline: PIPELINE,
    run: RUN,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="recorded")],
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """End the wait of a run: it is not promoted."""
    from leptonflow.core import clock, person, pipeline_files
    from leptonflow.runs import approval

    config = pipeline_files.load_config(pipeline)
    opened = looked_at(store, required=True)
    document = approval.reject(opened, config, run, person.person(), reason, clock.now())
    return answer(Answer(document, lambda: _decided(document)), as_json)


def _decided(document: dict[str, Any]) -> None:
    from cli import show
    from cli.status_tables import when

    at = f" at {when(document['at'])}" if document["at"] else ""
    print(show.advice(f"run {document['run_id']} {document['outcome']}: {document['sentence']}{at}"))
    record = f" (record {document['record']['number']})" if document["record"] else ""
    print(f"champion {document['champion'] or 'none'}{record}")

"""The subcommands that ask where a pipeline stands: status, runs, history. Thin: parse, call, print."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.common import JSON, PIPELINE, STORE, Answer, answer, looked_at
from schemas.errors import UsageError
from schemas.settings import named_store, store_uri


def status(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False) -> int:
    """Champion, dataset, batches that need attention, last run."""
    from cli import status_tables
    from leptonflow.core import pipeline_files
    from leptonflow.runs import pipeline_status
    from leptonflow.storage.address import open_store

    config = pipeline_files.load_config(pipeline)
    named = store is not None or named_store() is not None
    opened = looked_at(store, required=True) if named else open_store(store_uri())
    document = pipeline_status.status(opened, config)
    failed = 1 if document["damage"] else 0
    return answer(Answer(document, lambda: status_tables.status(pipeline, config.name, document), failed), as_json)


def runs(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False) -> int:
    """The runs of a pipeline, newest last."""
    from cli import status_tables
    from leptonflow.core import pipeline_files
    from leptonflow.runs import pipeline_status

    config = pipeline_files.load_config(pipeline)
    opened = looked_at(store)
    found = pipeline_status.runs(opened, config)

    def shown() -> None:
        status_tables.runs(found, pipeline_status.rejected(opened, config, found))

    return answer(Answer(found, shown), as_json)


def history(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False) -> int:
    """The promotions log, oldest first."""
    from cli import status_tables
    from leptonflow.core import pipeline_files
    from leptonflow.runs import pipeline_status

    config = pipeline_files.load_config(pipeline)
    found = pipeline_status.history(looked_at(store), config)
    return answer(Answer(found, lambda: status_tables.history(found)), as_json)


def verify(
    pipeline: Annotated[
        str | None, typer.Argument(metavar="[PIPELINE]", help="its name, or a path to its YAML")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="every pipeline that the store holds")] = False,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Find damaged or missing objects. Reads every object that the store's records name."""
    from cli import show
    from leptonflow.core import pipeline_files, progress
    from leptonflow.runs import integrity, stored_pipelines

    if (pipeline is None) != everything:
        received = "neither" if pipeline is None else "both"
        raise UsageError("verify what?", expected="a pipeline, or --all", received=received)
    config = pipeline_files.load_config(pipeline) if pipeline is not None else None
    opened = looked_at(store, required=True)
    with show.progress():
        names = [config.name] if config is not None else stored_pipelines.names(opened)
        document = integrity.verify(opened, names, progress.report)
    return answer(Answer(document, lambda: show.verified(document), 1 if document["damaged"] else 0), as_json)

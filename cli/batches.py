"""The subcommands about single batches. Thin: parse, call, print."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.common import JSON, PIPELINE, STORE, Answer, answer
from schemas.settings import store_uri
from schemas.text import printable


def discard(
    pipeline: PIPELINE,
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="a batch that was not accepted")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="recorded")],
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Discard a batch that was not accepted. A record keeps it from ever being read (again)."""
    from leptonflow.core import person, pipeline_files
    from leptonflow.data.ingest import discards
    from leptonflow.storage.address import open_store

    config = pipeline_files.load_config(pipeline)
    record, made = discards.discard(open_store(store_uri(store)), config.name, batch, reason, person.person())
    document = {**record.model_dump(), "outcome": "discarded" if made else "reused"}
    when = "is discarded" if made else f"was discarded before, at {record.at} by {record.who}"
    text = f"batch {record.batch} {when}: {record.reason}"
    return answer(Answer(document, lambda: print(printable(text))), as_json)

"""The subcommand that takes examples out of the dataset. Thin: parse, call, print."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.common import DEBUG, JSON, PIPELINE, STORE, Answer, answer
from schemas.settings import store_uri


def retract(
    pipeline: PIPELINE,
    examples: Annotated[list[str], typer.Argument(metavar="EXAMPLE...", help="ids, or the beginning of each")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT")],
    store: STORE = None,
    as_json: JSON = False,
    debug: DEBUG = False,
) -> int:
    """Withdraw examples from the dataset by a record; what arrived stays in landing/."""
    from cli import show
    from leptonflow import corrections, planning
    from leptonflow.store import open_store

    config = planning.load_config(pipeline)
    opened = open_store(store_uri(store))
    changes = corrections.retract(opened, config, examples, reason)
    head = planning.snapshots(opened, config.name).head
    document = {
        "retracted": [change.row for change in changes],
        "record": head.number if head and changes else None,
        "snapshot": head.body["snapshot"] if head else None,
        "examples": head.body["examples"] if head else 0,
    }
    return answer(Answer(document, lambda: show.retracted(document)), as_json)

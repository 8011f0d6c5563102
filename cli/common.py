"""What every module of subcommands shares: the arguments that mean the same everywhere, and how an answer is told.

What does not belong here: any subcommand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from schemas.errors import LeptonflowError
from schemas.settings import store_uri

if TYPE_CHECKING:
    from leptonflow.storage.store import Store


def _pipelines(incomplete: str) -> list[str]:
    """What a shell offers for a pipeline."""
    from leptonflow.core import pipeline_files

    return [name for name in pipeline_files.available() if name.startswith(incomplete)]


PIPELINE = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE", help="a name under pipelines/, or a path to a YAML", autocompletion=_pipelines
    ),
]
STORE = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="file:///..., s3://bucket/prefix or a folder")
]
JSON = Annotated[bool, typer.Option("--json", help="exactly one JSON document on standard output")]
DEBUG = Annotated[bool, typer.Option("--debug", help="a traceback where there is an error")]


@dataclass(frozen=True)
class Answer:
    """What a command has to say: a document for --json, a function that shows it to a person."""

    document: Any
    show: Callable[[], None]
    status: int = 0


def looked_at(named: str | None, required: bool = False) -> Store:
    """The store, for a command that only reads it: one that is not there is never made by that, and said.

    Raises LeptonflowError where it must be there.
    """
    from cli import show
    from leptonflow.storage.address import open_store
    from leptonflow.storage.store_identity import exists

    store = open_store(store_uri(named))
    if not exists(store):
        missing = LeptonflowError(
            f"there is no store at {store.uri}",
            expected="a store that leptonflow made, or batches in landing/",
            received="neither",
            hint="Check --store and LEPTONFLOW_STORE; the first `leptonflow ingest` makes one",
        )
        if required:
            raise missing
        show.warn(missing.line())
    return store


def answer(found: Answer, as_json: bool) -> int:
    """Tell it; the exit status."""
    if as_json:
        output.tell(found.document)
    else:
        found.show()
    return found.status

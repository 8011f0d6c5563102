"""What every module of subcommands shares: the arguments that mean the same everywhere, and how results are printed.

What does not belong here: any subcommand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from schemas.settings import store_uri

if TYPE_CHECKING:
    from leptonflow.storage.store import Store


def _pipelines(incomplete: str) -> list[str]:
    """Completions of a pipeline's name."""
    from leptonflow.core import pipeline_files

    return [name for name in pipeline_files.available() if name.startswith(incomplete)]


PIPELINE = Annotated[
    str,
    typer.Argument(metavar="PIPELINE", help="a name under pipelines/, or a path to a YAML", autocompletion=_pipelines),
]
STORE = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="file:///..., s3://bucket/prefix or a folder")
]
JSON = Annotated[bool, typer.Option("--json", help="exactly one JSON document on standard output")]


@dataclass(frozen=True)
class Answer:
    """A command's result: a document for --json, a function that prints it for a person, an exit status."""

    document: Any
    show: Callable[[], None]
    status: int = 0


def looked_at(named: str | None, required: bool = False) -> Store:
    """The store, for a command that only reads it. A store that does not exist is not created; a warning says so.

    Raises LeptonflowError where it is required and does not exist.
    """
    from cli import show
    from leptonflow.storage.address import open_store
    from leptonflow.storage.store_identity import exists, missing, require

    store = open_store(store_uri(named))
    if required:
        require(store)
    elif not exists(store):
        show.warn(missing(store).line())
    return store


def answer(found: Answer, as_json: bool) -> int:
    """Print the result; the exit status."""
    if as_json:
        output.tell(found.document)
    else:
        found.show()
    return found.status

"""What every module of subcommands shares: the arguments that mean the same everywhere, and how an answer is told.

What does not belong here: any subcommand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli import output

PIPELINE = Annotated[str, typer.Argument(metavar="PIPELINE", help="a name under pipelines/, or a path to a YAML")]
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


def answer(found: Answer, as_json: bool) -> int:
    """Tell it; the exit status."""
    if as_json:
        output.tell(found.document)
    else:
        found.show()
    return found.status

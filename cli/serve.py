"""`serve`: the champions over HTTP until it is stopped. `serving` does the work."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.common import DEBUG, STORE
from schemas.settings import store_uri


def serve(
    pipelines: Annotated[list[str], typer.Argument(metavar="PIPELINE...", help="names under pipelines/, or paths")],
    host: Annotated[str, typer.Option("--host", help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8080,
    store: STORE = None,
    debug: DEBUG = False,
) -> int:
    """Serve the champions' predictions over HTTP, until Ctrl-C."""
    from leptonflow.core import pipeline_files
    from leptonflow.storage.address import open_store
    from serving import running

    configs = [pipeline_files.load_config(name) for name in pipelines]
    return running.run(open_store(store_uri(store)), configs, host, port)

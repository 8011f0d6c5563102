"""`board`: the pages about a store, until it is stopped. `serving` makes them."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.common import STORE, looked_at
from cli.serve import say


def board(
    host: Annotated[str, typer.Option("--host", help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 4240,
    insecure: Annotated[bool, typer.Option("--insecure", help="no keys although other machines can ask")] = False,
    store: STORE = None,
) -> int:
    """Show pipelines, runs, reports and quarantine as web pages. They are there until Ctrl-C."""
    from serving import api_keys, running
    from serving.access import PAGES

    rules = running.rules(host, api_keys.configured(), insecure, PAGES)
    return running.run(looked_at(store), [], host, port, rules, None, say)

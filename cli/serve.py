"""`serve`: the champions over HTTP until it is stopped. `serving` does the work."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cli.common import STORE
from schemas.errors import Damaged, StoreUnreachable, UsageError
from schemas.settings import store_uri
from schemas.text import printable

if TYPE_CHECKING:
    from leptonflow.storage.store import Store

STORE_SECONDS = 2.0  # that one request to a store away is repeated: who asks for the readiness learns of it


def _new_key(name: str | None) -> None:
    if name is not None:
        from serving import api_keys

        key, entry = api_keys.new(name)
        print(f"key, for the client, shown once: {key}\nentry, for the server:           {entry}")
        raise typer.Exit()


def serve(
    pipelines: Annotated[list[str], typer.Argument(metavar="PIPELINE...", help="names under pipelines/, or paths")],
    host: Annotated[str, typer.Option("--host", help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8080,
    pin: Annotated[str | None, typer.Option("--pin", metavar="V", help="serve this version, not the champion")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="of --pin; recorded")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="no keys although other machines can ask")] = False,
    new_key: Annotated[
        str | None,
        typer.Option("--new-key", metavar="NAME", callback=_new_key, is_eager=True, help="print an API key, and end"),
    ] = None,
    store: STORE = None,
) -> int:
    """Serve the champions' predictions over HTTP, until Ctrl-C."""
    from leptonflow.core import person, pipeline_files
    from leptonflow.registry import serving_decisions
    from leptonflow.storage import s3
    from leptonflow.storage.address import open_store
    from serving import api_keys, running

    configs = [pipeline_files.load_config(name) for name in pipelines]
    if pin is not None and len(configs) > 1:
        raise UsageError("--pin is of one pipeline", expected="one pipeline", received=", ".join(pipelines))
    if pin is None and reason:
        raise UsageError("--reason is the reason of --pin", expected="--pin V --reason TEXT", received="no --pin")
    pinned = serving_decisions.checked(pin, person.person(), reason) if pin is not None else None
    rules = running.rules(host, api_keys.configured(), insecure)
    with s3.patient(STORE_SECONDS):
        opened = open_store(store_uri(store))
    if pin is not None:
        _known(opened, configs[0].name, pin)
    return running.run(opened, configs, host, port, rules, pinned, say)


def _known(store: Store, pipeline: str, version: str) -> None:
    """Raises NotFound for a version that a store has not. What cannot be read now may be there later."""
    from leptonflow.registry import packages
    from leptonflow.storage import store_identity

    with suppress(StoreUnreachable, Damaged):
        if store_identity.exists(store):
            packages.known(store, pipeline, version, "--pin")


def say(line: str) -> None:
    print(printable(f"{time.strftime('%H:%M:%S')} {line}"), flush=True)

"""One retraining at a time on the GPUs of a host: a global concurrency limit of the Prefect server for each such host.

`deploy` creates it, a run holds a slot of it while it trains. It is Prefect's own: a person may change it there, and
it stays so. What does not belong here: which GPU a fit sees (leptonflow.training.runners.seats).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from leptonflow.core import accelerators, progress
from schemas.config import Pipeline

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

VARIABLE = "LEPTONFLOW_GPU_HOST"  # what this host is called, where its own name changes, as in a container


def limit_name() -> str | None:
    """The limit of this host; None where it has no GPU that it may use, nor is called a GPU host."""
    called = os.environ.get(VARIABLE) or (socket.gethostname() if accelerators.gpus() else None)
    return called and f"leptonflow-gpus-{called}"


def limit(client: SyncPrefectClient) -> list[dict[str, Any]]:
    """Create this host's limit where there is none yet; what was done."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    name = limit_name()
    if name is None:
        return []
    outcome = "unchanged"
    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        try:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            outcome = "created"
        except ObjectAlreadyExists:  # a deploy beside this one was quicker
            pass
    return [{"name": name, "outcome": outcome}]


@contextmanager
def alone(config: Pipeline) -> Iterator[None]:
    """Hold a slot of this host's limit, once there is one; nothing where the server has no such limit."""
    name = None if config.training.runner.name == "ray" else limit_name()
    if name is None:
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectNotFound

    with suppress(ObjectNotFound), get_client(sync_client=True) as client:
        found = client.read_global_concurrency_limit_by_name(name)
        if found.active_slots >= found.limit:
            progress.note(f"another retraining uses the GPUs of this host ({name}); waiting for it to end")
    with concurrency(name, raise_on_lease_renewal_failure=False):
        yield

"""Runs the retraining flow in this process, against the configured Prefect API or this folder's own server.

Start-ups overlap here: the server and the children that validation needs boot while Prefect and
Keras are imported. Nothing heavy is imported before they are under way.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from flows import addresses, credentials, environment, ray_cluster, server
from flows.wake_signals import waking
from leptonflow.core import garbage_collection, progress
from leptonflow.data.dataset import admission, dataset_state
from leptonflow.data.ingest import pending_batches
from leptonflow.keras_runtime import keras_models
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.errors import ServerError
from schemas.settings import verbose

DELIVERY_SECONDS = 5.0
# Prefect's client waits 2, 4, 8, ... seconds between its tries: with this many, two minutes in all.
RETRIES = 6
LOCAL_RETRIES = 2  # an embedded server is on this machine: it is there or it is gone


def _log_levels() -> dict[str, str]:
    """The run's log goes to the API, and to the terminal only with --verbose."""
    return {
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose() else "CRITICAL",
        "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
    }


def retrain(config: Pipeline, pipeline: str, store: str, force: bool = False) -> dict[str, Any]:
    """The document of a retraining of `pipeline` (a name or a YAML's path, read already as `config`).

    Raises the engine's errors as they are, and ServerError where there is no Prefect API.
    """

    def imports() -> None:
        import flows.retrain  # noqa: F401

        keras_models.keras()

    ray_cluster.check(config)
    with ExitStack() as stack:
        opened = open_store(store)
        if pending_batches.waiting(opened, config, dataset_state.snapshots(opened, config.name)):
            stack.enter_context(admission.tools())
        stack.enter_context(prefect(meanwhile=imports))
        stack.enter_context(_interruptible())
        from flows.retrain import retrain as flow

        document: dict[str, Any] = flow(pipeline=pipeline, store=store, force=force)  # type: ignore[assignment]
    return document


@contextmanager
def prefect(meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """A Prefect API for the flows of this process, and no word of theirs on its terminal.

    `meanwhile` is called, to import what the flows need, while the server boots.
    """
    with server.api() as api, environment.changed(_log_levels()), ExitStack() as stack:
        with garbage_collection.paused(freeze=True):  # collections take a quarter of the time of imports
            import httpx
            from prefect import settings

            meanwhile()
        api.wait()
        changed: dict[Any, Any] = {settings.PREFECT_API_URL: api.url}  # Prefect may have been imported for another API
        if api.login is not None:
            changed |= {settings.PREFECT_API_AUTH_STRING: api.login, settings.PREFECT_API_KEY: None}
        if api.folder is not None:
            # No worker is there to run a terminal's run again, and the end of its heartbeat takes a second.
            changed[settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
        embedded = api.folder is not None and not api.full
        least = LOCAL_RETRIES if embedded else max(RETRIES, settings.PREFECT_CLIENT_MAX_RETRIES.value())
        changed[settings.PREFECT_CLIENT_MAX_RETRIES] = least
        stack.enter_context(settings.temporary_settings(changed))
        logging.raiseExceptions = False  # a log record that the API did not take is no word for the terminal
        try:
            yield
        except httpx.HTTPError as error:  # what Prefect's client raises; the engine has no use of httpx
            shown = addresses.without_credentials(api.url)
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403):
                raise credentials.refused(shown, error.response.status_code) from error
            raise ServerError(
                f"the Prefect server at {shown} stopped answering",
                expected="a Prefect API that answers until the run ends",
                received=str(error) or type(error).__name__,
                hint="Run the same command again to continue",
            ) from error
        finally:
            _deliver()


def _deliver() -> None:
    """Send what Prefect still queues: task states travel as events, and the server may end after this."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for queue in (EventsWorker, APILogWorker):
        queue.drain_all(timeout=DELIVERY_SECONDS)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the thread that trains, at its next batch: Prefect would wait for the whole fold."""

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield
        return
    with progress.listen() as end_the_work:

        def stop(number: int, frame: FrameType | None) -> None:
            end_the_work()
            signal.default_int_handler(number, frame)

        signal.signal(signal.SIGINT, stop)
        try:
            with waking(signal.SIGINT, signal.SIGTERM):  # Prefect's own handler raises in the main thread
                yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

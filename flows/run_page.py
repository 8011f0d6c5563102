"""Puts a run's name, tags and artifacts on the Prefect server.

The store is right without them: what the server does not take is one line in the log, and fails no run.
What does not belong here: what they say (run_names, artifacts).
"""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import Logger, LoggerAdapter
from typing import TYPE_CHECKING, Any

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from flows import addresses, artifacts, credentials, reports, run_names
from flows.artifacts import Artifact
from schemas.errors import StoreError, UsageError
from schemas.settings import board_url

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

INTERVAL = 1.0  # seconds between two updates of the progress artifact
LAST_WORD = 2.0  # seconds that the end of the training waits for its last update

Log = Logger | LoggerAdapter[Logger]


@contextmanager
def tolerated(log: Log) -> Iterator[None]:
    """An answer that the Prefect server, or the store that is read for it, does not give ends this block alone."""
    try:
        yield
    except (httpx.HTTPError, PrefectException, StoreError) as error:
        # Not its text: that quotes addresses, which may hold credentials.
        log.warning("the Prefect UI misses a part of this run: %s", error_name(error))


def error_name(error: BaseException) -> str:
    """What kind of error it is, with its HTTP status where it has one: nothing that may hold a secret."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return type(error).__name__ + (f" (HTTP status {status})" if status else "")


class Page:
    """This run's page in the Prefect UI."""

    def __init__(self, pipeline: str) -> None:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None or not isinstance(context.client, SyncPrefectClient):
            raise RuntimeError("a page belongs to a flow run")
        self.pipeline = pipeline
        self.log = get_run_logger()
        self.client = context.client
        self.run: FlowRun = context.flow_run

    def name(self, snapshot: str | None, doing: str, end: str | None = None) -> None:
        """Say what the run is about and does; `end` is how it ended."""
        with tolerated(self.log):
            name = run_names.run_name(self.pipeline, snapshot, doing)
            tags = run_names.tags(self.run.tags, self.pipeline, end)
            self.client.update_flow_run(self.run.id, name=name, tags=tags)
            self.run.name = name

    def report_address(self, run_id: str | None) -> str | None:
        """Where a browser finds a run's report: on the board, or on the server of this page if that serves reports."""
        api = str(self.client.api_url).rstrip("/")
        if run_id is None:
            return None
        if (board := _board(self.log)) is not None:
            return f"{board}/p/{self.pipeline}/runs/{run_id}/report.html"
        address = addresses.without_credentials(api).removesuffix("/api") + reports.path(run_id)
        return address if addresses.answers(address, addresses.ANSWER_SECONDS, credentials.headers(api)) else None

    def show(self, artifacts: Sequence[Artifact]) -> None:
        """Add artifacts to the page."""
        with tolerated(self.log):
            for artifact in artifacts:
                self.create(artifact)

    def show_changed(self, artifact: Artifact) -> None:
        """Add an artifact unless the newest of its key says the same."""
        with tolerated(self.log):
            of_key = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact.key]))
            newest = self.client.read_artifacts(artifact_filter=of_key, sort=ArtifactSort.UPDATED_DESC, limit=1)
            if not newest or newest[0].data != artifact.data:
                self.create(artifact)

    def create(self, artifact: Artifact) -> Any:
        """The id of a new artifact. Raises what Prefect's client raises."""
        data = json.dumps(artifact.data) if artifact.type == "table" else artifact.data
        created = self.client.create_artifact(
            ArtifactCreate(
                key=artifact.key, type=artifact.type, description=artifact.description, data=data,
                flow_run_id=self.run.id,
            )
        )  # fmt: skip
        return created.id


def _board(log: Log) -> str | None:
    """Where the board is; an address that is none is told in the log, and fails no run."""
    try:
        return board_url()
    except UsageError as error:
        log.warning("%s", error.line())
        return None


class Moving:
    """A progress artifact that follows the training, written by a thread of its own once a second at most.

    `report` and `detail` are listeners of leptonflow.core.progress. The artifact begins with the first report of a fit.
    """

    def __init__(self, page: Page, folds: int) -> None:
        self._page = page
        self._folds = folds
        self._now: tuple[float, str] | None = None
        self._shares: dict[str, float] = {}  # of each stage
        self._details: dict[str, str] = {}  # of each stage: what it is at
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def report(self, stage: str, done: int, total: int) -> None:
        """Take note of how far a fit is. Costs microseconds: it is called after every batch."""
        with self._lock:
            self._shares[stage] = done / total if total else 0.0
            now = run_names.moved(self._shares, self._folds)
            if now is None:
                return
            under_way = {each: self._details.get(each) for each, share in self._shares.items() if share < 1}
            self._now = now[0], run_names.detailed(now[1], under_way)
            if self._thread is None:
                context = contextvars.copy_context()  # with the settings of the run's own thread
                self._thread = threading.Thread(target=context.run, args=(self._follow,), name="progress", daemon=True)
                self._thread.start()

    def detail(self, stage: str, text: str) -> None:
        """Take note of what a fit is at: the next report says it too."""
        with self._lock:
            self._details[stage] = text

    def close(self) -> None:
        """Write where it stands. A server that does not answer is not waited for."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(LAST_WORD)

    def _follow(self) -> None:
        try:
            self._write()
        except RuntimeError:  # of httpx: the client is closed
            if not self._ended.is_set():
                raise  # else the run has ended meanwhile, and its client with it

    def _write(self) -> None:
        shown: tuple[float, str] | None = None
        identity: Any = None
        ended = False
        with tolerated(self._page.log):
            while not ended:
                ended = self._ended.wait(INTERVAL if shown else 0)
                now = self._now
                if now is None or now == shown:
                    continue
                percent, told = round(now[0], 1), now[1]
                if identity is None:
                    key = artifacts.key("progress", self._page.pipeline)
                    identity = self._page.create(Artifact(key, "progress", told, percent))
                else:
                    self._page.client.update_artifact(identity, ArtifactUpdate(data=percent, description=told))
                shown = now

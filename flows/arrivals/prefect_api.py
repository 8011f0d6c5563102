"""A small client of the Prefect REST API: raise events, find a deployment and its runs, ask for a run.

Prefect itself is never imported, whose client alone takes more memory than the whole watcher. Address and credentials
are those of Prefect's own settings. What does not belong here: when an event is raised, and what is done about an
answer that does not come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from flows import addresses, credentials, server
from schemas.arrivals import FLOW
from schemas.errors import ServerError

SECONDS = 10.0  # for one answer
UNBEGUN = ("SCHEDULED", "PENDING")
UNDER_WAY = (*UNBEGUN, "RUNNING", "PAUSED", "CANCELLING")
SKEW = timedelta(seconds=2)  # less than that between two clocks is the whole seconds of an HTTP date


class Api:
    """The API at an address. Every call raises ServerError where it does not answer, or says no."""

    def __init__(self, url: str) -> None:
        self.shown = addresses.without_credentials(url)
        self._url = url
        self._skew = timedelta(0)

    def now(self) -> datetime:
        """The time on the server's clock, UTC."""
        return datetime.now(UTC) + self._skew

    def raise_events(self, events: Sequence[Mapping[str, Any]]) -> datetime:
        """Record events, as of now. Returns when that was."""
        at = self.now()
        self._call("POST", "/events", [{**event, "occurred": at.isoformat()} for event in events])
        return at

    def occurred(self, event: str) -> datetime | None:
        """When the event of this id was raised; None where the server has recorded none."""
        found = self._call("POST", "/events/filter", {"filter": {"id": {"id": [event]}}, "limit": 1})["events"]
        return datetime.fromisoformat(found[0]["occurred"]) if found else None

    def deployment(self, name: str) -> str | None:
        """The id of the deployment `retrain/<name>`, or None."""
        found = self._call("GET", f"/deployments/name/{FLOW}/{quote(name, safe='')}", missing=True)
        return None if found is None else str(found["id"])

    def expects_run(self, deployment: str, since: datetime, until: datetime) -> bool:
        """Whether a run of the deployment was due after `since`, or has yet to begin and is due by `until`."""
        return bool(self.states(deployment, until, since)) or bool(self.states(deployment, until, None, UNBEGUN))

    def states(
        self, deployment: str, until: datetime, since: datetime | None = None, among: Sequence[str] = ()
    ) -> set[str]:
        """The types of the states of the deployment's runs that are due by `until` and after `since`."""
        return {str(run["state_type"]) for run in self._runs(deployment, until, since, among)}

    def works(self, deployment: str, until: datetime, settling: float) -> bool:
        """Whether a run is under way or due by `until`, or crashed less than `settling` seconds ago."""
        since = self.now() - timedelta(seconds=settling)
        found = self._runs(deployment, until, None, (*UNDER_WAY, "CRASHED"))
        ends = [run["state"]["timestamp"] for run in found if run["state_type"] == "CRASHED"]
        return len(ends) < len(found) or any(datetime.fromisoformat(end) > since for end in ends)

    def _runs(self, deployment: str, until: datetime, since: datetime | None, among: Sequence[str]) -> Any:
        due = {"before_": until.isoformat(), **({"after_": since.isoformat()} if since is not None else {})}
        wanted: dict[str, Any] = {"deployment_id": {"any_": [deployment]}, "expected_start_time": due}
        if among:
            wanted["state"] = {"type": {"any_": list(among)}}
        return self._call("POST", "/flow_runs/filter", {"flow_runs": wanted})

    def create_run(self, deployment: str, key: str) -> str:
        """Ask for a run of the deployment, once for each idempotency key. Returns the run's name."""
        run = self._call("POST", f"/deployments/{deployment}/create_flow_run", {"idempotency_key": key})
        return str(run["name"])

    def _call(self, method: str, path: str, body: object = None, *, missing: bool = False) -> Any:
        """The answer's JSON, None for no content, and for "not found" where that is an answer (`missing`)."""
        try:
            login = credentials.headers(self._url, server.login(self._url))  # each time: a new `up` may have another
            sent = datetime.now(UTC)
            answer = addresses.request(method, self.shown.rstrip("/") + path, SECONDS, login, body)
            if answer.is_success:
                self._set_clock(answer.headers.get("Date"), sent)
                return answer.json() if answer.content else None
        except (OSError, ValueError) as error:
            raise ServerError(
                f"the Prefect server at {self.shown} does not answer",
                expected="a Prefect API",
                received=str(error) or type(error).__name__,
                hint="Start that server, or fix PREFECT_API_URL",
            ) from None
        if missing and answer.status_code == 404:
            return None
        raise self._refused(answer.status_code)

    def _refused(self, status: int) -> ServerError:
        if status in (401, 403):
            return credentials.refused(self.shown, status)
        return ServerError(
            f"the Prefect server at {self.shown} did not do what it was asked to",
            expected="a Prefect 3 API, whose address ends in /api",
            received=f"HTTP status {status}",
            hint="See that server's log",
        )

    def _set_clock(self, date: str | None, sent: datetime) -> None:
        """Learn how far the server's clock is from ours: it compares the times of events from many machines.

        A date between the request and its answer is right, however long that took.
        """
        try:
            skew = parsedate_to_datetime(date or "") - sent
        except (ValueError, TypeError):
            return
        took = datetime.now(UTC) - sent
        self._skew = skew if skew < -SKEW or skew > took + SKEW else timedelta(0)

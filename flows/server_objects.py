"""One thing at a time on a Prefect server: made where it is missing, changed where it differs, else left alone.

Each function says what it did: created, updated, unchanged or removed. What a person paused stays paused. What does
not belong here: what is wanted (wanted_deployments, automations), and whose a deployment is (deployments).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from flows import addresses, automations, credentials, pool, server, wanted_deployments
from schemas.arrivals import EVENT, FLOWS, POOL, TAG
from schemas.errors import ConfigurationError, ServerError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

Document = dict[str, Any]

SLUG = "pipeline"  # of the schedule that a pipeline's YAML states; others are a person's own
PAGE = 200


@contextmanager
def connected(api: str) -> Iterator[SyncPrefectClient]:
    """A client of that API. What it raises becomes ServerError, without credentials."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    shown = addresses.without_credentials(api)
    wanted: dict[Any, Any] = {PREFECT_API_URL: api}
    login = server.login(api)
    if login is not None:
        wanted[PREFECT_API_AUTH_STRING] = login
    try:
        with temporary_settings(wanted), get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise credentials.refused(shown, status) from None
        raise ServerError(
            f"the Prefect server at {shown} rejected a request",
            expected=f"a server of Prefect 3.8 that accepts {error.request.method} {error.request.url.path}",
            received=f"HTTP status {status}",  # its detail repeats what was sent, job variables included
            hint="See the server's log",
        ) from None
    except httpx.HTTPError as error:
        raise ServerError(
            f"the Prefect server at {shown} stopped answering",
            expected="a Prefect API that answers until everything is registered",
            received=type(error).__name__,
            hint="Run the same command again to continue",
        ) from None


def deployments(client: SyncPrefectClient) -> list[Document]:
    """All deployments of our flows that the server has."""
    found: list[Document] = []
    while True:
        query = {"flows": {"name": {"any_": list(FLOWS)}}, "limit": PAGE, "offset": len(found)}
        page = client.request("POST", "/deployments/filter", json=query).json()
        found += page
        if len(page) < PAGE:
            return found


def work_pool(client: SyncPrefectClient, name: str) -> Document:
    """The work pool; ours is created where it is missing, as a pool of processes."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    try:
        return client.read_work_pool(name).model_dump(mode="json")
    except ObjectNotFound:
        if name != POOL:
            raise ConfigurationError(
                f"{wanted_deployments.FILE} names a work pool that the Prefect server does not have",
                expected="a work pool of that server",
                received=name,
                hint=f"Create it there: `prefect work-pool create {name} --type TYPE`",
            ) from None
    from prefect.workers.process import ProcessWorker

    template = pool.closed(ProcessWorker.get_default_base_job_template(), ())
    with suppress(ObjectAlreadyExists):  # a worker that starts beside us was quicker
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
    return client.read_work_pool(name).model_dump(mode="json")


def close_pool(client: SyncPrefectClient, there: Document, names: Collection[str]) -> None:
    """Let the runs of our pool change these environment variables of theirs, those of before, and nothing else."""
    template = pool.closed(there["base_job_template"], names)
    if template != there["base_job_template"]:
        path = {"name": there["name"]}
        client.request("PATCH", "/work_pools/{name}", path_params=path, json={"base_job_template": template})


# --- deployments ---------------------------------------------------------------------------------


def deployment(
    client: SyncPrefectClient, wanted: Document, there: Document | None, schedule: Document | None
) -> tuple[str, str]:
    """(outcome, id). `wanted` is what the API takes; its labels are set only as a whole, so that they come first."""
    if there is None:
        schedules = [] if schedule is None else [{"schedule": schedule, "slug": SLUG, "active": True}]
        made = client.request("POST", "/deployments/", json={**wanted, "schedules": schedules}).json()
        return "created", str(made["id"])
    changed = not (there["labels"] or {}).items() >= wanted["labels"].items()
    if changed:  # `prefect deploy` made it, or its folder has moved
        kept = [{key: each[key] for key in ("schedule", "slug", "active", "parameters")} for each in there["schedules"]]
        document = {**wanted, "paused": there["paused"], "schedules": kept}
        there = client.request("POST", "/deployments/", json=document).json()
    path = {"id": there["id"]}
    differ = {key: value for key, value in wanted.items() if key not in ("labels", "flow_id", "name")}
    differ = {key: value for key, value in differ.items() if _shown(there, key) != value}
    if _schedule(client, path, there["schedules"], schedule):
        differ = differ or {"description": wanted["description"]}  # touched: scheduled in seconds
    if differ:
        client.request("PATCH", "/deployments/{id}", path_params=path, json=differ)
    return "updated" if changed or differ else "unchanged", str(there["id"])


def _shown(there: Document, key: str) -> Any:
    """A deployment's value as the server shows it, in the form in which it is sent."""
    if key == "concurrency_limit":
        return (there["global_concurrency_limit"] or {}).get("limit")
    if key == "concurrency_options":
        return {name: value for name, value in (there[key] or {}).items() if value is not None}
    if key == "pull_steps":
        return there[key] or []
    return there[key]


def _schedule(client: SyncPrefectClient, path: Document, there: list[Document], wanted: Document | None) -> bool:
    """Make the deployment's own schedule the wanted one, or none; whether that took anything.

    A schedule without a slug that says the same is `prefect deploy`'s, and becomes ours.
    """
    ours = [each for each in there if each["slug"] == SLUG]
    ours = ours or [each for each in there if each["slug"] is None and each["schedule"] == wanted][:1]
    document = {"schedule": wanted, "slug": SLUG}
    if wanted is None:
        for each in ours:  # the server takes the runs away that it scheduled by it
            _one_schedule(client, "DELETE", path, each)
        return bool(ours)
    if not ours:
        client.request("POST", "/deployments/{id}/schedules", path_params=path, json=[{**document, "active": True}])
        return True
    if all(ours[0][key] == value for key, value in document.items()):
        return False
    _one_schedule(client, "PATCH", path, ours[0], json=document)
    return True


def _one_schedule(
    client: SyncPrefectClient, method: str, path: Document, schedule: Document, json: Document | None = None
) -> None:
    route = {**path, "schedule_id": schedule["id"]}
    client.request(method, "/deployments/{id}/schedules/{schedule_id}", path_params=route, json=json)  # type: ignore[arg-type]


def remove(client: SyncPrefectClient, there: Document) -> list[Document]:
    """Take a deployment away with its schedules, the runs that have not begun, and its automations; these, as lines."""
    owned = arrivals(client, there["id"])
    for each in owned:
        client.delete_automation(each["id"])
    client.delete_deployment(there["id"])
    return [{"name": each["name"], "outcome": "removed"} for each in owned]


# --- automations ---------------------------------------------------------------------------------


def arrivals(client: SyncPrefectClient, deployment_id: str) -> list[Document]:
    """The automations that run the deployment when a batch arrives; a person's others are left alone."""
    resource = {"resource_id": f"prefect.deployment.{deployment_id}"}
    related = client.request("GET", "/automations/related-to/{resource_id}", path_params=resource).json()
    return [
        each
        for each in related
        if EVENT in each["trigger"].get("expect", [])
        and any(action.get("deployment_id") == deployment_id for action in each["actions"])
    ]


def named(client: SyncPrefectClient, name: str) -> list[Document]:
    """The automations of that name."""
    query = {"automations": {"name": {"any_": [name]}}, "limit": PAGE}
    found: list[Document] = client.request("POST", "/automations/filter", json=query).json()
    return found


def automation(
    client: SyncPrefectClient, wanted: Document, there: list[Document], owner: str | None = None
) -> Document:
    """Make the wanted automation the only one of `there`; switched off where a person switched it off."""
    for each in there[1:]:
        client.delete_automation(each["id"])
    if not there:
        client.request("POST", "/automations/", json={**wanted, "owner_resource": owner})
        outcome = "created"
    elif len(there) == 1 and automations.same(wanted, there[0]):
        outcome = "unchanged"
    else:
        document = {**wanted, "enabled": there[0]["enabled"]}
        client.request("PUT", "/automations/{id}", path_params={"id": there[0]["id"]}, json=document)
        outcome = "updated"
    return {"name": wanted["name"], "outcome": outcome}


def watch_runs(client: SyncPrefectClient) -> None:
    """Begin the watch over all deployed runs anew: a server that was down for long has forgotten them."""
    query = {
        "flows": {"name": {"any_": list(FLOWS)}},
        "deployments": {"tags": {"all_": [TAG]}},
        "flow_runs": {"state": {"type": {"any_": list(automations.WATCH)}}},
        "limit": PAGE,
    }
    runs = client.request("POST", "/flow_runs/filter", json=query).json()
    events = [event for run in runs if (event := automations.watched(run)) is not None]
    if events:
        client.request("POST", "/events", json=events)

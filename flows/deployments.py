"""Registers a folder's pipelines on a Prefect server: deployments, their schedules and triggers, the work pool.

Done twice, nothing is there twice, and what is as wanted is not touched. What the folder no longer has is taken away,
and only what this folder registered. What does not belong here: what the folder wants (wanted_deployments), what the
automations say (automations), how one thing is made as wanted (server_objects).
"""

from __future__ import annotations

import fcntl
import importlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import automations, gpu_host, pool, server_objects, wanted_deployments
from flows.wanted_deployments import Deployable
from schemas.arrivals import FLOW, FLOWS, POOL, TAG
from schemas.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

Document = dict[str, Any]

FOLDER_LABEL = "leptonflow.folder"
HOST_LABEL = "leptonflow.host"
SET_FOLDER = "prefect.deployments.steps.set_working_directory"
PACKAGES = ("cli", "flows", "leptonflow", "schemas", "tasks")
ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_options": {"collision_strategy": "ENQUEUE"}}  # a second one waits


def deploy(folder: Path, api: str) -> Document:
    """Register what `folder` wants on the server at `api`; what was done, deployment by deployment.

    Raises ConfigurationError for what is wrong in prefect.yaml before anything is registered, and for the YAML of a
    pipeline after: the others are registered, and what was registered of the wrong one stays. Raises ServerError where
    the server does not do its part.
    """
    folder = folder.resolve()
    with _alone(folder):
        return _deploy(folder, api)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for another deploy of this folder: two at once would each create what neither found."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _deploy(folder: Path, api: str) -> Document:
    wrong: dict[Path, UsageError] = {}
    wanted = wanted_deployments.read(folder, wrong)
    schedules = {each.key: _schedule(each) for each in wanted}
    with server_objects.connected(api) as client:
        flows = {name: str(client.create_flow_from_name(name)) for name in FLOWS}
        named = {identity: name for name, identity in flows.items()}
        there = {(named[each["flow_id"]], each["name"]): each for each in server_objects.deployments(client)}
        for each in wanted:
            _check_owner(there.get(each.key), folder, each.flow)
        names = sorted({each.work_pool.name for each in wanted} - {POOL})
        pools = {name: server_objects.work_pool(client, name) for name in [*names, POOL]}
        documents = {each.key: _document(each, folder, pools[each.work_pool.name]) for each in wanted}
        # An open template takes the deployments of before and those of now, a closed one the names that it lists.
        wishes = {name for each in documents.values() for name in each["job_variables"]["env"]}
        ours = pools[POOL]["type"] == "process"
        was_closed = pool.is_closed(pools[POOL]["base_job_template"])
        if ours and was_closed:
            server_objects.close_pool(client, pools[POOL], wishes)
        lines: list[Document] = []
        triggers: list[Document] = []
        for each in wanted:
            document = {**documents[each.key], "flow_id": flows[each.flow]}
            line, trigger = _registered(client, each, document, there.get(each.key), schedules[each.key])
            lines.append(line)
            triggers += trigger
        for key in sorted(there.keys() - {each.key for each in wanted}):
            yaml = wanted_deployments.yaml_of(folder, there[key]["parameters"].get("pipeline"))
            if _is_ours(there[key], folder) and yaml.resolve() not in wrong:
                triggers += server_objects.remove(client, there[key])
                lines.append(_line(*key, "removed"))
        for wish in automations.for_lost_runs():
            triggers.append(server_objects.automation(client, wish, server_objects.named(client, wish["name"])))
        if ours and not was_closed:
            server_objects.close_pool(client, pools[POOL], wishes)
        limits = gpu_host.limit(client)
        server_objects.watch_runs(client)
    for error in wrong.values():
        raise error
    return {"deployments": lines, "automations": triggers, "limits": limits}


def _registered(
    client: SyncPrefectClient, each: Deployable, wanted: Document, there: Document | None, schedule: Document | None
) -> tuple[Document, list[Document]]:
    """Make one deployment as wanted; its line, and that of the automation on arrival, which a retraining has."""
    outcome, identity = server_objects.deployment(client, wanted, there, schedule)
    if each.flow != FLOW:
        return _line(*each.key, outcome, each), []
    owned = server_objects.arrivals(client, identity) if there is not None else []
    wish = automations.on_arrival(each.config, identity)
    trigger = server_objects.automation(client, wish, owned, f"prefect.deployment.{identity}")
    if outcome == "unchanged" and trigger["outcome"] != "unchanged":
        outcome = "updated"
    return _line(*each.key, outcome, each), [trigger]


def _line(flow: str, name: str, outcome: str, each: Deployable | None = None) -> Document:
    schedule = each.schedule if each is not None else None
    return {
        "name": f"{flow}/{name}",
        "schedule": f"{schedule.cron} {schedule.timezone}" if schedule is not None else None,
        "debounce": each.config.debounce if each is not None and flow == FLOW else None,
        "outcome": outcome,
    }


def _schedule(each: Deployable) -> Document | None:
    """The YAML's schedule as the API takes it. Raises ConfigurationError where Prefect does not know it."""
    if each.schedule is None:
        return None
    from prefect.client.schemas.schedules import CronSchedule

    said = each.schedule.model_dump()
    try:
        return CronSchedule(**said).model_dump(mode="json")
    except ValueError:
        raise ConfigurationError(
            f"Prefect does not understand the schedule of the pipeline {each.name}",
            expected="five fields of cron and a time zone of the IANA database",
            received=f"{said['cron']} {said['timezone']}",
        ) from None


def _document(each: Deployable, folder: Path, there: Document) -> Document:
    """The deployment as the API takes it, its flow and schedule apart."""
    from prefect.utilities.callables import parameter_schema

    variables = _job_variables(each)
    steps = []
    if there["type"] == "process":  # the folder in which the flow finds pipelines/, which no run may change
        _check_names(folder)
        steps = [{SET_FOLDER: {"directory": variables.pop("working_dir", str(folder))}}]
    if there["type"] == "process" and there["name"] == POOL:
        pool.check(variables, f"{wanted_deployments.FILE}: work_pool.job_variables of {each.name}")
    return {
        "name": each.name,
        "description": each.description,
        "tags": list(each.tags),
        "entrypoint": wanted_deployments.ENTRYPOINTS[each.flow],
        "path": None,
        "pull_steps": steps,
        "parameters": each.parameters,
        "parameter_openapi_schema": parameter_schema(_flow(each.flow)).model_dump(mode="json", exclude_unset=True),
        "enforce_parameter_schema": True,
        "work_pool_name": there["name"],
        **({"work_queue_name": each.work_pool.work_queue_name} if each.work_pool.work_queue_name else {}),
        "job_variables": variables,
        **ONE_AT_A_TIME,
        "labels": {FOLDER_LABEL: str(folder), HOST_LABEL: socket.gethostname()},
    }


def _flow(name: str) -> Any:
    module, function = wanted_deployments.ENTRYPOINTS[name].rsplit(".", 1)
    return getattr(importlib.import_module(module), function)


def _job_variables(each: Deployable) -> Document:
    """What the worker is told: heartbeats, and what prefect.yaml says."""
    from prefect.utilities.templating import apply_values

    given: Document = apply_values(each.work_pool.job_variables, dict(os.environ), remove_notset=True)  # {{ $NAME }}
    heartbeat = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(automations.HEARTBEAT_SECONDS)}
    return {**given, "env": heartbeat | (given.get("env") or {})}


def _check_names(folder: Path) -> None:
    """Raises ConfigurationError where a worker would take the folder's own module for ours: Prefect puts it first."""
    if (folder / "flows" / "retrain.py").exists():  # a checkout of leptonflow
        return
    for name in PACKAGES:
        for path in (folder / name / "__init__.py", folder / f"{name}.py"):
            if path.exists():
                raise ConfigurationError(
                    f"{path.relative_to(folder)} hides leptonflow's own package {name} from the runs in this folder",
                    expected=f"a folder without modules named {', '.join(PACKAGES)}",
                    received=str(folder),
                    hint="Rename it, or keep pipelines/ in a folder of its own",
                )


# --- whose a deployment is -----------------------------------------------------------------------


def _check_owner(there: Document | None, folder: Path, flow: str) -> None:
    """Raises ConfigurationError where a deployment of that name is another's.

    A folder that is gone from this machine has moved: its deployments go with it.
    """
    if there is None:
        return
    owner = _folder(there)
    moved = owner is not None and _here(there) and not Path(owner).exists()
    ours = (*wanted_deployments.OURS, wanted_deployments.ENTRYPOINTS[flow])
    if owner == str(folder) or moved or (owner is None and there["entrypoint"] in ours):
        return
    raise ConfigurationError(
        f"the deployment {flow}/{there['name']} belongs to somebody else on that Prefect server",
        expected="a pipeline's name that nobody else has deployed there",
        received=f"a deployment of {owner}" if owner else f"a deployment with the entrypoint {there['entrypoint']}",
        hint=f"Give the pipeline another name; or, if it has moved, `prefect deployment delete {flow}/{there['name']}`",
    )


def _is_ours(there: Document, folder: Path) -> bool:
    return TAG in there["tags"] and _folder(there) == str(folder) and _here(there)


def _folder(there: Document) -> str | None:
    """Which folder's a deployment is, or None where it does not say."""
    steps = [step.get(SET_FOLDER) for step in there["pull_steps"] or []]
    pulled = next((step.get("directory") for step in steps if step), None)
    found = _labels(there).get(FOLDER_LABEL) or (there["job_variables"] or {}).get("working_dir") or pulled
    return str(found) if found else None


def _here(there: Document) -> bool:
    return _labels(there).get(HOST_LABEL) in (None, socket.gethostname())


def _labels(there: Document) -> Document:
    return there["labels"] or {}

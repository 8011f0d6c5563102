"""The work pool's template: a run may set a few variables, and nothing else gets through."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.utilities.schema_tools import ValidationError, validate
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows import pool
from schemas.errors import ConfigurationError

HEARTBEAT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
ATTACKS: list[dict[str, Any]] = [
    {"command": "touch owned"},
    {"working_dir": "/tmp"},
    {"name": "x"},
    {"labels": {"a": "b"}},
    {"stream_output": False},
    {"env": {"PATH": "/tmp"}},
    {"env": {"LD_PRELOAD": "/tmp/x.so"}},
    {"env": {"PYTHONPATH": "/tmp"}},
    {"env": {"BASH_ENV": "/tmp/x"}},
    {"env": {**HEARTBEAT, "PREFECT_API_URL": "http://attacker.example"}},
    {"env": {"path": "/tmp"}},
    {"env.PYTHONPATH": "/tmp"},
    {"env.LD_PRELOAD": "/tmp/x.so", "env": HEARTBEAT},
    {"env[PYTHONPATH]": "/tmp"},
    {"command.x": "touch owned"},
    {"env": "PYTHONPATH=/tmp"},
    {"env": {"OMP_NUM_THREADS": {"PYTHONPATH": "/tmp"}}},
]


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return pool.closed(ProcessWorker.get_default_base_job_template(), ["COLOUR"])


def configured(template: dict[str, Any], values: dict[str, Any]) -> ProcessJobConfiguration:
    """As Prefect's worker makes it of what a run says. Nothing is asked of any server."""
    client = PrefectClient("http://127.0.0.1:1/api")
    made = ProcessJobConfiguration.from_template_and_values(
        base_job_template=template, values=pool.kept(template, values), client=client
    )
    return asyncio.run(made)


@pytest.mark.parametrize("values", ATTACKS, ids=str)
def test_what_is_not_listed_is_refused_by_the_server_and_dropped_by_the_worker(
    template: dict[str, Any], values: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        validate(values, template["variables"], raise_on_error=True)
    made = configured(template, values)
    assert made.command is None and made.working_dir is None and made.stream_output
    assert set(made.env) <= set(pool.NAMES) and made.labels == {} and made.name is None


def test_a_worker_that_knows_no_list_runs_no_command_either(template: dict[str, Any]) -> None:
    """Any other worker of the pool: the template has no place for one."""
    client = PrefectClient("http://127.0.0.1:1/api")
    values = {"command": "touch owned", "working_dir": "/tmp", "env": HEARTBEAT}
    made: Any = asyncio.run(ProcessJobConfiguration.from_template_and_values(template, values, client=client))
    assert made.command is None and made.working_dir is None and made.env == HEARTBEAT


def test_what_is_listed_gets_through(template: dict[str, Any]) -> None:
    values = {"env": {**HEARTBEAT, "COLOUR": "black"}}
    validate(values, template["variables"], raise_on_error=True)
    assert configured(template, values).env == values["env"]
    assert configured(template, {}).env == {}


def test_a_template_is_closed_once_and_keeps_its_names_and_defaults(template: dict[str, Any]) -> None:
    assert pool.closed(template, ()) == template
    both = pool.closed(template, ["SIZE"])["variables"]["properties"]["env"]["properties"]
    assert {"COLOUR", "SIZE", *pool.NAMES} == set(both)
    theirs = ProcessWorker.get_default_base_job_template()
    theirs["variables"]["properties"]["env"]["default"] = {"THEIRS": "1"}
    theirs["variables"]["properties"]["stream_output"]["default"] = False
    made = configured(pool.closed(theirs, ()), {"env": HEARTBEAT, "stream_output": True})
    assert not made.stream_output


def test_no_listed_name_is_one_that_decides_what_code_runs() -> None:
    pool.check({"env": dict.fromkeys((*pool.NAMES, "COLOUR", "LEPTONFLOW_STORE", "AWS_REGION", "TZ"), "x")}, "here")
    for name in ("PATH", "LD_PRELOAD", "PYTHONSTARTUP", "BASH_ENV", "HOME", "PREFECT_HOME", "https_proxy", "A B", "1A"):
        with pytest.raises(ConfigurationError, match="decides what code"):
            pool.check({"env": {name: "x"}}, "here")
    for key in ("command", "env.PATH", "image"):
        with pytest.raises(ConfigurationError, match="runs of this work pool may not set"):
            pool.check({key: "x"}, "here")

"""prefect.yaml for `prefect deploy`: what it repeats of the pipelines' YAMLs is the same, and its entrypoint loads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import automations, deployments, server_objects, wanted_deployments
from leptonflow.core.pipeline_files import load_config
from schemas.config import Pipeline
from schemas.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
FILE = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: dict[str, dict[str, Any]] = {each["name"]: each for each in FILE["deployments"]}


def config(name: str) -> Pipeline:
    return load_config(str(ROOT / "pipelines" / f"{name}.yaml"))


def test_every_pipeline_is_listed_and_read_as_deploy_reads_it() -> None:
    assert set(DEPLOYMENTS) == set(wanted_deployments.available(ROOT))
    for each in wanted_deployments.read(ROOT):
        listed = DEPLOYMENTS[each.name]
        assert listed["parameters"] == each.parameters == {"pipeline": each.name}
        assert listed["tags"] == list(each.tags)
        assert listed["entrypoint"] == wanted_deployments.ENTRYPOINT
        assert listed["description"] == wanted_deployments.DESCRIPTION


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_schedule_and_trigger_are_those_of_the_pipeline(name: str) -> None:
    schedule = config(name).schedule
    assert schedule is not None
    assert DEPLOYMENTS[name]["schedules"] == [{"slug": server_objects.SLUG, **schedule.model_dump()}]

    (trigger,) = DEPLOYMENTS[name]["triggers"]
    wanted = automations.on_arrival(config(name), "an id")
    said = {key: wanted[key] for key in ("name", "description")} | wanted["trigger"]
    said["schedule_after"] = wanted["actions"][0]["schedule_after"]
    assert {"posture": "Reactive", **trigger} == said  # which is the default


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_second_retraining_waits(name: str) -> None:
    ours: dict[str, Any] = deployments.ONE_AT_A_TIME
    limit = {"limit": ours["concurrency_limit"], **ours["concurrency_options"]}
    assert DEPLOYMENTS[name]["concurrency_limit"] == limit == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_every_work_pool_to_choose_from_sends_heartbeats() -> None:
    pools = FILE["definitions"]["work_pools"]
    assert set(pools) == {"process", "docker", "kubernetes"}
    for pool in pools.values():
        assert pool["job_variables"]["env"] == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(automations.HEARTBEAT_SECONDS)}
    assert automations.SILENT_SECONDS >= 3 * automations.HEARTBEAT_SECONDS
    assert all(each["work_pool"] == pools["process"] for each in DEPLOYMENTS.values())


def test_every_entrypoint_loads_in_a_users_folder(tmp_path: Path) -> None:
    """As a worker does it, in a process of its own: all that a prefect.yaml may name."""
    script = (
        "import sys; from prefect.flows import load_flow_from_entrypoint as load\n"
        "for entrypoint in sys.argv[1:]: print(load(entrypoint, use_placeholder_flow=False).name)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    files = [each for each in wanted_deployments.OURS if ".py:" in each]
    modules = [each for each in wanted_deployments.OURS if each not in files]
    assert {each["entrypoint"] for each in DEPLOYMENTS.values()} <= set(modules)
    for folder, entrypoints in ((tmp_path, modules), (ROOT, files)):
        done = subprocess.run(
            [sys.executable, "-c", script, *entrypoints], cwd=folder, capture_output=True, text=True, timeout=120,
            env={**clean, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert (done.returncode, done.stdout.split()) == (0, ["retrain"] * len(entrypoints)), done.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cron", "0 3 * * 8"),
        ("cron", "@daily"),
        ("cron", "0 3 * *"),
        ("cron", "0 0 31 2 *"),
        ("cron", "0 3 * * 5L"),
        ("cron", "0 3 12,26 * 5#3"),  # both must hold where a weekday has a number: never
        ("cron", "0 3 30 2 1"),  # Prefect looks for the day of the month alone, and finds none
        ("cron", "0 3 12 * 5#3,1"),
        ("cron", "R R * * *"),
        ("cron", "H 3 * * *"),
        ("cron", "*/0 * * * *"),
        ("cron", "0 3 15W * *"),
        ("cron", "* * * * * *"),
        ("cron", ""),
        ("timezone", "Europe"),
        ("timezone", "Mars/Olympus"),
        ("timezone", "../etc/passwd"),
        ("timezone", ""),
    ],
)
def test_a_wrong_schedule_is_said_when_the_yaml_is_read(key: str, value: str, tmp_path: Path) -> None:
    schedule = {"cron": "0 3 * * 1", "timezone": "UTC", key: value}
    text = (ROOT / "pipelines" / "digits.yaml").read_text()
    path = tmp_path / "digits.yaml"
    path.write_text(re.sub(r"^schedule: .*$", f"schedule: {json.dumps(schedule)}", text, flags=re.MULTILINE))
    with pytest.raises(ConfigurationError, match=rf"digits\.yaml: schedule\.{key} is not valid") as refused:
        load_config(str(path))
    assert refused.value.exit_status == 2


def test_neither_schedule_nor_debounce_is_part_of_an_id() -> None:
    from leptonflow.data.validation import contracts
    from leptonflow.runs import planning
    from schemas.records import SnapshotRef

    before = config("digits")
    after = before.model_copy(update={"schedule": None, "debounce": 0.0})
    snapshot = SnapshotRef(
        pipeline="digits", number=1, snapshot="0" * 12, content="0" * 64, classes=("0", "1"),
        preprocessing="0" * 12, holdout=0.2, parts=(), batches=(), examples=2,
    )  # fmt: skip
    code = {"data": "d", "train": "t", "gate": "g"}
    assert planning.ids(before, snapshot, code, 0) == planning.ids(after, snapshot, code, 0)
    assert contracts.digest(before) == contracts.digest(after)

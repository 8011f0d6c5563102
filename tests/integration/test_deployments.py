"""`deploy` on a real, full Prefect server: what it registers, what a second time changes, what it takes away.

What the automations then do, and a worker with them, is in test_deployed_runs.py.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from flows import deployments, gpu_host
from leptonflow.core import progress
from leptonflow.core.pipeline_files import load_config
from schemas.arrivals import FLOW, POOL
from schemas.errors import ConfigurationError, ServerError
from tests.e2e import helpers
from tests.prefect_servers import PrefectServer, full_server

pytestmark = pytest.mark.slow  # a full server of their own; tests/e2e/stack/test_arrivals.py is in every run

SCHEDULE = {"cron": "0 3 * * 1", "timezone": "Europe/Berlin"}
LOST_RUNS = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with full_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def folder(server: PrefectServer, tmp_path: Path) -> Iterator[Path]:
    """An empty folder, and afterwards a server without deployments and automations."""
    yield tmp_path
    for kind in ("automations", "deployments"):
        for each in server.call("POST", f"/{kind}/filter", {}):
            server.call("DELETE", f"/{kind}/{each['id']}")


def deploy(server: PrefectServer, folder: Path) -> dict[str, str]:
    """What was done: the outcome by deployment, and by automation."""
    document = deployments.deploy(folder, server.url)
    lines = document["deployments"] + document["automations"]
    assert len({line["name"] for line in lines}) == len(lines)
    return {line["name"]: line["outcome"] for line in lines}


def pipeline(folder: Path, name: str, **keys: Any) -> Path:
    return helpers.pipeline(folder / "pipelines", name=name, **keys)


def deployment(server: PrefectServer, name: str) -> dict[str, Any]:
    return dict(server.call("GET", f"/deployments/name/{FLOW}/{name}"))


def scheduled(server: PrefectServer, name: str) -> list[dict[str, Any]]:
    ours = {"flow_runs": {"deployment_id": {"any_": [deployment(server, name)["id"]]}}}
    return list(server.call("POST", "/flow_runs/filter", {**ours, "sort": "EXPECTED_START_TIME_ASC"}))


def automation_names(server: PrefectServer) -> list[str]:
    return sorted(each["name"] for each in server.call("POST", "/automations/filter", {}))


def eventually(found: Callable[[], Any], seconds: float = 30) -> Any:
    """The first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)  # between two looks at the same condition
    return answer


def in_folder(folder: Path) -> list[dict[str, Any]]:
    return [{deployments.SET_FOLDER: {"directory": str(folder)}}]


def test_every_pipeline_of_a_folder_is_registered_once(server: PrefectServer, folder: Path) -> None:
    pipeline(folder, "cats", schedule=SCHEDULE, debounce=5)
    pipeline(folder, "dogs")
    (folder / "pipelines" / "cats.contract.yaml").write_text("suite: none of a pipeline's")
    document = deployments.deploy(folder, server.url)
    assert document["deployments"] == [
        {"name": "retrain/cats", "schedule": "0 3 * * 1 Europe/Berlin", "debounce": 5, "outcome": "created"},
        {"name": "retrain/dogs", "schedule": None, "debounce": 30, "outcome": "created"},
    ]
    assert [each["outcome"] for each in document["automations"]] == ["created"] * (2 + LOST_RUNS)

    cats = deployment(server, "cats")
    assert (cats["entrypoint"], cats["work_pool_name"]) == ("flows.retrain.retrain", POOL)
    assert cats["pull_steps"] == in_folder(folder)
    assert cats["parameters"] == {"pipeline": "cats"} and cats["enforce_parameter_schema"]
    assert set(cats["tags"]) == {"leptonflow", "cats"}
    assert cats["global_concurrency_limit"]["limit"] == 1
    assert cats["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert cats["job_variables"] == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
    assert [each["schedule"] for each in cats["schedules"]] == [{**SCHEDULE, "day_or": True}]
    assert not deployment(server, "dogs")["schedules"]
    assert server.call("GET", f"/work_pools/{POOL}")["type"] == "process"


def test_a_pipeline_that_scores_has_a_second_deployment_while_it_does(server: PrefectServer, folder: Path) -> None:
    pipeline(folder, "cats", schedule=SCHEDULE, score={"source": "in", "schedule": {"cron": "0 5 * * *"}})
    document = deployments.deploy(folder, server.url)
    assert document["deployments"] == [
        {"name": "retrain/cats", "schedule": "0 3 * * 1 Europe/Berlin", "debounce": 30, "outcome": "created"},
        {"name": "score/cats", "schedule": "0 5 * * * UTC", "debounce": None, "outcome": "created"},
    ]
    found = server.call("GET", "/deployments/name/score/cats")
    assert (found["entrypoint"], found["parameters"]) == ("flows.score.score", {"pipeline": "cats"})
    assert [each["schedule"]["cron"] for each in found["schedules"]] == ["0 5 * * *"]
    assert deployment(server, "cats")["entrypoint"] == "flows.retrain.retrain"
    assert set(deploy(server, folder).values()) == {"unchanged"}
    pipeline(folder, "cats", schedule=SCHEDULE)
    assert deploy(server, folder)["score/cats"] == "removed"


def test_a_pipeline_that_is_monitored_has_a_deployment_for_it_and_retrains_on_drift(
    server: PrefectServer, folder: Path
) -> None:
    pipeline(folder, "cats", serving={"monitor": {"schedule": {"cron": "*/5 * * * *"}}})
    assert [each["name"] for each in deployments.deploy(folder, server.url)["deployments"]] == [
        "retrain/cats", "monitor/cats",
    ]  # fmt: skip
    found = server.call("GET", "/deployments/name/monitor/cats")
    assert (found["entrypoint"], found["parameters"]) == ("flows.monitor.monitor", {"pipeline": "cats"})
    assert [each["schedule"]["cron"] for each in found["schedules"]] == ["*/5 * * * *"]
    (trigger,) = [
        each["trigger"] for each in server.call("POST", "/automations/filter", {})
        if each["name"] == "cats: retrain when a batch arrives"
    ]  # fmt: skip
    assert set(trigger["expect"]) == {"leptonflow.batch.arrived", "leptonflow.drift.found"}
    pipeline(folder, "cats")
    assert deploy(server, folder)["monitor/cats"] == "removed"


def test_done_twice_nothing_is_there_twice_and_nothing_is_touched(server: PrefectServer, folder: Path) -> None:
    pipeline(folder, "cats", schedule=SCHEDULE)
    deploy(server, folder)
    runs = eventually(lambda: scheduled(server, "cats"))
    before, names = deployment(server, "cats"), automation_names(server)
    assert set(deploy(server, folder).values()) == {"unchanged"}
    assert deployment(server, "cats") == before
    assert automation_names(server) == names and len(names) == 1 + LOST_RUNS
    assert [each["id"] for each in scheduled(server, "cats")] == [each["id"] for each in runs]


def test_a_schedule_is_changed_and_taken_off_with_its_runs(server: PrefectServer, folder: Path) -> None:
    pipeline(folder, "cats", schedule=SCHEDULE)
    deploy(server, folder)
    eventually(lambda: scheduled(server, "cats"))
    pipeline(folder, "cats", schedule={"cron": "30 4 * * *", "timezone": "UTC"})
    assert deploy(server, folder)["retrain/cats"] == "updated"
    assert [each["schedule"]["cron"] for each in deployment(server, "cats")["schedules"]] == ["30 4 * * *"]
    runs = eventually(lambda: scheduled(server, "cats"))
    assert all(each["expected_start_time"].endswith("T04:30:00Z") for each in runs)

    by_hand = {"schedule": {"interval": 86400}, "active": True, "slug": "by-hand"}
    server.call("POST", f"/deployments/{deployment(server, 'cats')['id']}/schedules", [by_hand])
    pipeline(folder, "cats")
    assert deploy(server, folder)["retrain/cats"] == "updated"
    assert [each["slug"] for each in deployment(server, "cats")["schedules"]] == ["by-hand"]
    assert not [each for each in scheduled(server, "cats") if each["expected_start_time"].endswith("T04:30:00Z")]


def test_what_a_person_paused_stays_paused(server: PrefectServer, folder: Path) -> None:
    pipeline(folder, "cats", schedule=SCHEDULE, debounce=5)
    deploy(server, folder)
    cats = deployment(server, "cats")
    server.call("PATCH", f"/deployments/{cats['id']}", {"paused": True})
    server.call("PATCH", f"/deployments/{cats['id']}/schedules/{cats['schedules'][0]['id']}", {"active": False})
    for each in server.call("POST", "/automations/filter", {}):
        server.call("PATCH", f"/automations/{each['id']}", {"enabled": False})
    assert set(deploy(server, folder).values()) == {"unchanged"}
    pipeline(folder, "cats", schedule={**SCHEDULE, "timezone": "UTC"}, debounce=6)
    assert deploy(server, folder)["cats: retrain when a batch arrives"] == "updated"
    cats = deployment(server, "cats")
    assert (cats["paused"], cats["schedules"][0]["active"]) == (True, False)
    assert cats["schedules"][0]["schedule"]["timezone"] == "UTC"
    assert not [each for each in server.call("POST", "/automations/filter", {}) if each["enabled"]]


def gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine's driver tell of a GPU."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder.mkdir()
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H100'\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_host_with_a_gpu_trains_one_pipeline_at_a_time(
    server: PrefectServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    path = pipeline(folder, "cats")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert deployments.deploy(folder, server.url)["limits"] == []

    gpu(folder / "driver", monkeypatch)
    name = f"leptonflow-gpus-{socket.gethostname()}"
    assert deployments.deploy(folder, server.url)["limits"] == [{"name": name, "outcome": "created"}]
    assert deployments.deploy(folder, server.url)["limits"] == [{"name": name, "outcome": "unchanged"}]

    config, order, said = load_config(str(path)), list[str](), list[str]()

    def train(who: str, begun: threading.Event, may_end: threading.Event) -> None:
        heard = progress.listen(None, said.append)
        with temporary_settings({PREFECT_API_URL: server.url}), heard, gpu_host.alone(config):
            order.append(f"{who} begins")
            begun.set()
            may_end.wait(60)
            order.append(f"{who} ends")

    first, second, end = (threading.Event() for _ in range(3))
    with ThreadPoolExecutor(2) as pool:
        pool.submit(train, "first", first, end)
        assert first.wait(30)
        waiting = pool.submit(train, "second", second, end)
        assert server.call("GET", f"/v2/concurrency_limits/{name}")["active_slots"] == 1
        assert not second.wait(3)
        end.set()
        waiting.result(60)
    assert order == ["first begins", "first ends", "second begins", "second ends"]
    assert said == [f"another retraining uses the GPUs of this host ({name}); waiting for it to end"]
    eventually(lambda: server.call("GET", f"/v2/concurrency_limits/{name}")["active_slots"] == 0)

    server.call("PATCH", f"/v2/concurrency_limits/{name}", {"limit": 2})  # a person's
    assert deployments.deploy(folder, server.url)["limits"] == [{"name": name, "outcome": "unchanged"}]
    assert server.call("GET", f"/v2/concurrency_limits/{name}")["limit"] == 2
    monkeypatch.setenv(gpu_host.VARIABLE, "rack-7")
    assert deployments.deploy(folder, server.url)["limits"][0]["name"] == "leptonflow-gpus-rack-7"


def test_a_changed_debounce_replaces_the_trigger(server: PrefectServer, folder: Path) -> None:
    def owned() -> list[dict[str, Any]]:
        identity = deployment(server, "cats")["id"]
        return list(server.call("GET", f"/automations/related-to/prefect.deployment.{identity}"))

    def seconds() -> list[tuple[float, float]]:
        return [(each["trigger"]["within"], each["actions"][0]["schedule_after"]) for each in owned()]

    pipeline(folder, "cats", debounce=5)
    deploy(server, folder)
    assert seconds() == [(5, 5)]
    pipeline(folder, "cats", debounce=0)
    assert deploy(server, folder)["retrain/cats"] == "updated"
    assert seconds() == [(0, 0)]
    # Two `deploy`s at the same moment may each have made one: the next leaves one.
    copied = {key: owned()[0][key] for key in ("name", "trigger", "actions")}
    copied["owner_resource"] = f"prefect.deployment.{deployment(server, 'cats')['id']}"
    server.call("POST", "/automations/", copied)
    assert len(owned()) == 2
    deploy(server, folder)
    assert seconds() == [(0, 0)]


def test_only_what_this_folder_registered_is_taken_away(server: PrefectServer, folder: Path) -> None:
    ours, theirs = folder / "ours", folder / "theirs"
    pipeline(ours, "cats", schedule=SCHEDULE)
    pipeline(ours, "dogs")
    pipeline(theirs, "birds")
    deploy(server, theirs)
    deploy(server, ours)
    (ours / "pipelines" / "cats.yaml").unlink()
    done = deploy(server, ours)
    assert (done["retrain/cats"], done["cats: retrain when a batch arrives"]) == ("removed", "removed")
    with pytest.raises(HTTPError):
        deployment(server, "cats")
    assert "cats: retrain when a batch arrives" not in automation_names(server)
    assert deployment(server, "dogs") and deployment(server, "birds")
    (ours / "pipelines" / "dogs.yaml").unlink()  # the last one: a folder may have none
    assert deploy(server, ours)["retrain/dogs"] == "removed"
    assert deployment(server, "birds")


def test_a_deployment_is_of_one_folder_and_moves_with_it(server: PrefectServer, folder: Path) -> None:
    ours, theirs, moved = folder / "ours", folder / "theirs", folder / "moved"
    pipeline(theirs, "cats", schedule=SCHEDULE)
    pipeline(ours, "cats")
    pipeline(ours, "dogs")
    deploy(server, theirs)
    with pytest.raises(ConfigurationError) as refused:
        deploy(server, ours)
    assert str(theirs) in refused.value.line() and "retrain/cats" in refused.value.line()
    with pytest.raises(HTTPError):  # nothing was registered
        deployment(server, "dogs")
    cats = deployment(server, "cats")
    server.call("PATCH", f"/deployments/{cats['id']}/schedules/{cats['schedules'][0]['id']}", {"active": False})
    theirs.rename(moved)
    assert deploy(server, moved)["retrain/cats"] == "updated"
    cats = deployment(server, "cats")
    assert cats["pull_steps"] == in_folder(moved)
    assert [each["active"] for each in cats["schedules"]] == [False]
    assert set(deploy(server, moved).values()) == {"unchanged"}


def test_a_pool_and_a_deployment_of_before_are_closed(server: PrefectServer, folder: Path) -> None:
    """An earlier release's runs might change their command and their folder."""
    from prefect.workers.process import ProcessWorker

    pipeline(folder, "cats")
    deploy(server, folder)
    path, cats = f"/work_pools/{POOL}", deployment(server, "cats")
    server.call("PATCH", path, {"base_job_template": ProcessWorker.get_default_base_job_template()})
    before = {"pull_steps": [], "job_variables": {**cats["job_variables"], "working_dir": str(folder)}}
    server.call("PATCH", f"/deployments/{cats['id']}", before)
    assert deploy(server, folder)["retrain/cats"] == "updated"
    after = deployment(server, "cats")
    assert (after["id"], after["job_variables"], after["pull_steps"]) == (
        cats["id"], cats["job_variables"], in_folder(folder)
    )  # fmt: skip
    template = server.call("GET", path)["base_job_template"]
    assert set(template["variables"]["properties"]) == {"env"} and "command" not in template["job_configuration"]
    for variables in ({"command": "true"}, {"working_dir": "/"}, {"env": {"PATH": "/"}}, {"env.PATH": "/"}):
        with pytest.raises(HTTPError) as refused:
            server.call("POST", f"/deployments/{cats['id']}/create_flow_run", {"job_variables": variables})
        assert refused.value.code == 422
    assert set(deploy(server, folder).values()) == {"unchanged"}


def test_prefect_yaml_says_where_and_the_pipeline_says_when(server: PrefectServer, folder: Path) -> None:
    pipeline(folder, "cats", schedule=SCHEDULE, debounce=7)
    pipeline(folder, "dogs")
    document = {
        "name": "theirs",
        "deployments": [
            {
                "name": "cats",
                "entrypoint": "flows/retrain.py:retrain",
                "parameters": {"pipeline": "pipelines/cats.yaml", "store": "s3://bucket/prefix"},
                "tags": ["nightly"],
                "description": "Cats.",
                "work_pool": {"name": "default", "job_variables": {"env": {"COLOUR": "{{ $CATS_COLOUR }}", "A": "b"}}},
                "schedules": [{"cron": "* * * * *"}],
                "triggers": [],
            },
            {"name": "other", "entrypoint": "other.py:flow", "work_pool": {"name": "elsewhere"}},
        ],
    }
    (folder / "prefect.yaml").write_text(yaml.safe_dump(document))
    os.environ["CATS_COLOUR"] = "black"
    try:
        done = deploy(server, folder)
    finally:
        del os.environ["CATS_COLOUR"]
    assert {name for name in done if name.startswith("retrain/")} == {"retrain/cats", "retrain/dogs"}
    cats = deployment(server, "cats")
    assert cats["parameters"] == {"pipeline": "pipelines/cats.yaml", "store": "s3://bucket/prefix"}
    assert (set(cats["tags"]), cats["description"]) == ({"leptonflow", "cats", "nightly"}, "Cats.")
    environment = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "COLOUR": "black", "A": "b"}
    assert cats["job_variables"] == {"env": environment} and cats["pull_steps"] == in_folder(folder)
    assert [each["schedule"] for each in cats["schedules"]] == [{**SCHEDULE, "day_or": True}]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"parameters": {"pipeline": "mice"}}, ["deployments.0.parameters.pipeline", "mice", "cats, dogs"]),
        ({"parameters": {"pipeline": "../../etc/passwd"}}, ["does not exist", "cats, dogs"]),
        ({"parameters": {}}, ["deployments.0.parameters.pipeline", "nothing"]),
        ({"name": "cats"}, ["deployments.0.parameters is not valid"]),
        ({"name": "kitty", "parameters": {"pipeline": "cats"}}, ["deployments.0.name", "cats", "kitty"]),
        ({"parameters": {"pipeline": "cats", "epochs": 3}}, ["deployments.0.parameters.epochs"]),
        ({"parameters": {"pipeline": "cats", "store": "s3://me:s3cret@b/p"}}, ["deployments.0.parameters.store"]),
        ({"parameters": {"pipeline": "cats"}, "work_pool": {"name": "gone"}}, ["work pool", "gone"]),
        ({"parameters": {"pipeline": "cats"}, "tags": "cats"}, ["deployments.0.tags"]),
        (
            {"parameters": {"pipeline": "cats"}, "work_pool": {"job_variables": {"env": {"PYTHONPATH": "s3cret"}}}},
            ["job_variables of cats", "PYTHONPATH"],
        ),
        (
            {"parameters": {"pipeline": "cats"}, "work_pool": {"job_variables": {"command": "s3cret"}}},
            ["job_variables of cats", "command"],
        ),
    ],
)
def test_what_is_wrong_in_prefect_yaml_is_said_before_anything_is_registered(
    server: PrefectServer, folder: Path, entry: dict[str, Any], expected: list[str]
) -> None:
    pipeline(folder, "cats")
    pipeline(folder, "dogs")
    listed = {"entrypoint": "flows.retrain.retrain", **entry}
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [listed]}))
    with pytest.raises(ConfigurationError) as refused:
        deployments.deploy(folder, server.url)
    assert not [each for each in expected if each not in refused.value.line()], refused.value.line()
    assert "s3cret" not in refused.value.line()
    assert not server.call("POST", "/deployments/filter", {})


def test_two_yamls_of_one_name_and_a_wrong_schedule_are_said_too(server: PrefectServer, folder: Path) -> None:
    pipeline(folder, "cats")
    shutil.copy(folder / "pipelines" / "cats.yaml", folder / "pipelines" / "kitty.yaml")
    with pytest.raises(ConfigurationError, match="two deployments name the pipeline cats"):
        deployments.deploy(folder, server.url)
    (folder / "pipelines" / "kitty.yaml").unlink()
    pipeline(folder, "cats", schedule={"cron": "0 3 * * 8"})
    with pytest.raises(ConfigurationError, match=r"cats\.yaml: schedule\.cron is not valid"):
        deployments.deploy(folder, server.url)


def test_a_wrong_yaml_keeps_no_other_pipeline_from_being_registered(server: PrefectServer, folder: Path) -> None:
    def registered() -> dict[str, Any]:
        return {each["name"]: each["schedules"] for each in server.call("POST", "/deployments/filter", {})}

    pipeline(folder, "cats", schedule={"cron": "0 3 * * 1"})
    pipeline(folder, "dogs")
    deployments.deploy(folder, server.url)
    before = registered()
    (folder / "pipelines/cats.yaml").write_text("name: cats\nworkload: nonsense\n")
    (folder / "pipelines/dogs.yaml").unlink()
    (folder / "pipelines/.#cats.yaml").symlink_to("me@host.123")  # an editor's lock
    (folder / "pipelines/._cats.yaml").write_bytes(b"\x00\x05\x16\x07\xff")  # macOS' on a foreign disk
    pipeline(folder, "birds")
    with pytest.raises(ConfigurationError, match=r"cats\.yaml: workload is not valid"):
        deployments.deploy(folder, server.url)
    assert set(registered()) == {"birds", "cats"}
    assert registered()["cats"] == before["cats"]


@pytest.mark.parametrize("name", ["flows/__init__.py", "tasks.py"])
def test_a_module_that_a_worker_would_take_for_ours_is_said(server: PrefectServer, folder: Path, name: str) -> None:
    pipeline(folder, "cats")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(ConfigurationError) as refused:
        deployments.deploy(folder, server.url)
    assert refused.value.message.startswith(name)
    assert not server.call("POST", "/deployments/filter", {})


def test_prefect_deploy_and_this_one_register_the_same(server: PrefectServer, folder: Path) -> None:
    """Whoever uses both has nothing twice: schedule and trigger are recognised."""
    names = ("digits", "cifar10", "cifar10-resnet", "news")
    for name in ("prefect.yaml", *(f"pipelines/{each}.yaml" for each in names)):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(helpers.ROOT / name, folder / name)
    (folder / "empty").mkdir()
    deploy(server, folder / "empty")  # makes the work pool
    command = [str(Path(sys.executable).with_name("prefect")), "--no-prompt", "deploy", "--all"]
    for _ in range(2):
        done = subprocess.run(command, cwd=folder, env=server.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        first = deploy(server, folder)
        assert {first["retrain/digits"], first["retrain/cifar10"]} <= {"updated", "unchanged"}  # its labels
        assert first["digits: retrain when a batch arrives"] == "unchanged"
        assert set(deploy(server, folder).values()) == {"unchanged"}
        for name in names:
            assert len(deployment(server, name)["schedules"]) == 1
        assert len(automation_names(server)) == len(names) + LOST_RUNS


def test_a_server_that_is_gone_or_wants_credentials(tmp_path: Path) -> None:
    pipeline(tmp_path, "cats")
    with full_server(tmp_path / "server", PREFECT_SERVER_API_AUTH_STRING="admin:s3cret") as guarded:
        with pytest.raises(ServerError, match="refused the credentials") as refused:
            deployments.deploy(tmp_path, guarded.url.replace("://", "://me:my-word@"))
        assert "my-word" not in refused.value.line() and "s3cret" not in refused.value.line()
        environment = {**guarded.environment, "PREFECT_API_AUTH_STRING": "admin:s3cret"}
        result = helpers.command("deploy", "--json", cwd=tmp_path, environment=environment)
        assert result.document["deployments"][0]["outcome"] == "created"
    with pytest.raises(ServerError, match="stopped answering"):
        deployments.deploy(tmp_path, guarded.url)

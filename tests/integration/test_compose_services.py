"""The services of deployments/compose.yaml work together: each a plain process, in its own order, with its own checks.

SeaweedFS, PostgreSQL, Redis, Prefect's server and services apart from each other, worker and watcher: what Docker would
start, but for the images. A batch that a plain S3 client uploads becomes a promoted champion.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import api_keys
from tests import compose
from tests.compose import FOLDER, Stack
from tests.deployments import job, template
from tests.e2e.helpers import digits, pipeline
from tests.postgres import Database, binaries, postgres
from tests.servers import weed_binary

pytestmark = pytest.mark.slow

KEY, ENTRY = api_keys.new("a-client")
SECRETS = {
    "LEPTONFLOW_API_KEYS": ENTRY,
    "AWS_ACCESS_KEY_ID": "a-team",
    "AWS_SECRET_ACCESS_KEY": "key-of-the-store",
    "POSTGRES_PASSWORD": "of-the-database",
    "PREFECT_AUTH_STRING": "somebody:pass:word",
}
BUCKET = "leptonflow"
NEEDED = {
    "PostgreSQL (apt install postgresql)": binaries,
    "redis-server and redis-cli (apt install redis-server)": lambda: shutil.which("redis-server"),
    "wget": lambda: shutil.which("wget"),
    "weed (the extra `s3`)": weed_binary,
    "prefect-redis (the extra `team`)": lambda: importlib.util.find_spec("prefect_redis"),
}


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    missing = [name for name, find in NEEDED.items() if find() is None]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}")
    with postgres() as found:
        yield found


@pytest.fixture(scope="module")
def stack(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything started in the order of `depends_on`, each service once what it waits for is there."""
    home, folder = tmp_path_factory.mktemp("srv"), tmp_path_factory.mktemp("run")
    shutil.copy(FOLDER / "healthy.py", home)
    pipeline(
        home / "pipelines",
        name="tiny",
        model={"filters": [8], "dense": 16},
        training={"epochs": 2, "folds": 2},
        gate=[{"rule": "at_most", "metric": "log_loss", "value": 99.0}],
        schedule={"cron": "0 3 * * 1", "timezone": "Europe/Berlin"},
        debounce=2,
    )
    environment = {**compose.example(), **SECRETS, "LEPTONFLOW_PIPELINES": "tiny", "LEPTONFLOW_SERVED": "tiny"}
    started = Stack(home, folder, environment, database, Path(sys.executable).parent)
    try:
        everything = started.services
        waiting = [name for name in everything if name != "postgres"]
        ready = {"postgres"}
        while waiting:
            able = [name for name in waiting if set(everything[name].get("depends_on") or ()) <= ready]
            assert able, waiting
            for name in able:
                started.start(name)
            for name in able:
                if everything[name]["restart"] == "no":
                    assert started.ended(name) == 0, started.said(name)
                elif "healthcheck" in everything[name]:
                    started.healthy(name)
                ready.add(name)
                waiting.remove(name)
        yield started
    finally:
        started.close()


def ask(stack: Stack, path: str, body: dict[str, Any], secret: str | None = SECRETS["PREFECT_AUTH_STRING"]) -> Any:
    """The answer of the Prefect server to a POST."""
    headers = {"Content-Type": "application/json"}
    if secret is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
    request = urllib.request.Request(f"{stack.api}{path}", json.dumps(body).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
        return json.load(response)


def until(condition: Callable[[], bool], what: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)  # between two looks at the same condition


def by_hand(stack: Stack) -> dict[str, str]:
    """Name -> state of the runs that no schedule made."""
    runs = ask(stack, "/flow_runs/filter", {"limit": 200})
    return {run["name"]: run["state"]["name"] for run in runs if not run["auto_scheduled"]}


def test_a_plain_upload_becomes_a_promoted_champion(stack: Stack, tmp_path: Path) -> None:
    import minio

    keys = (SECRETS["AWS_ACCESS_KEY_ID"], SECRETS["AWS_SECRET_ACCESS_KEY"])
    client = minio.Minio(stack.s3.removeprefix("http://"), *keys, secure=False, region="us-east-1")
    source = digits(tmp_path / "source", classes=3, each=30)
    for file in sorted(source.rglob("*.png")):
        client.fput_object(BUCKET, f"store/landing/tiny/first/{file.relative_to(source)}", str(file))
    client.put_object(BUCKET, "store/landing/tiny/first/_READY", io.BytesIO(b""), 0)
    until(lambda: "promoted" in by_hand(stack).values(), lambda: (by_hand(stack), stack.said("watcher")))
    assert len(by_hand(stack)) == 1
    found = list(client.list_objects(BUCKET, "store/promotions/tiny/log/", recursive=True))
    assert len(found) == 1


def test_the_champion_is_served_to_who_has_a_key(stack: Stack, tmp_path: Path) -> None:
    """It listened before there was a champion, and has loaded it since."""
    picture = next(digits(tmp_path / "source", classes=3, each=1).rglob("*.png")).read_bytes()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ready() -> bool:
        try:
            return bool(opener.open(f"{stack.url('serve')}/readyz", timeout=30).status == 200)
        except urllib.error.HTTPError:
            return False

    until(ready, lambda: stack.said("serve"))
    request = urllib.request.Request(f"{stack.url('serve')}/v1/tiny/predict", picture, {"X-API-Key": KEY})
    with opener.open(request, timeout=30) as response:
        (prediction,) = json.load(response)["predictions"]
    assert prediction["label"] in {"0", "1", "2"} and prediction["error"] is None
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(urllib.request.Request(request.full_url, picture), timeout=30)
    assert refused.value.code == 401


def test_the_board_shows_it(stack: Stack) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{stack.url('board')}/p/tiny", headers={"X-API-Key": KEY})
    with opener.open(request, timeout=30) as page:
        assert "promoted" in page.read().decode()


def test_the_schedule_is_in_postgresql(stack: Stack, database: Database) -> None:
    """The scheduler is in another process than the API, and knows the deployment from the database alone."""
    sql = "select count(*) from flow_run where auto_scheduled"
    until(lambda: database.rows(sql)[0][0] > 0, lambda: stack.said("services"))


def test_setting_up_again_changes_nothing(stack: Stack) -> None:
    """A second `docker compose up` after an edit: the deployment and the bucket are as they were."""
    before = ask(stack, "/deployments/filter", {})
    stack.start("setup")
    assert stack.ended("setup") == 0, stack.said("setup")
    after = ask(stack, "/deployments/filter", {})
    assert [(each["name"], each["id"]) for each in after] == [(each["name"], each["id"]) for each in before]
    assert "unchanged" in stack.said("setup")


def test_a_run_that_has_a_container_to_itself(stack: Stack) -> None:
    """The pool `kubernetes` is made of our template, the deployment moves there, and a Job's command does the run."""
    ask(stack, "/work_pools/", {"name": "kubernetes", "type": "kubernetes", "base_job_template": template()})
    entry = {"name": "tiny", "parameters": {"pipeline": "tiny"}, "work_pool": {"name": "kubernetes"}}
    (stack.home / "prefect.yaml").write_text(json.dumps({"deployments": [entry]}))
    stack.start("setup")
    assert stack.ended("setup") == 0, stack.said("setup")
    (deployment,) = ask(stack, "/deployments/filter", {})
    assert deployment["work_pool_name"] == "kubernetes"
    run = ask(stack, f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    done = stack.run("worker", *job()["spec"]["template"]["spec"]["containers"][0]["args"].split(),
                     PREFECT__FLOW_RUN_ID=run["id"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    (state,) = [each["state"] for each in ask(stack, "/flow_runs/filter", {"limit": 200}) if each["id"] == run["id"]]
    assert (state["type"], state["name"]) == ("COMPLETED", "unchanged")
    there = {path.relative_to(stack.home).parts[:2] for path in stack.home.rglob("*") if path.is_file()}
    # An image's folder cannot be written; this one can, and then a run leaves its log there and nothing else.
    assert {parts[0] for parts in there} == {"healthy.py", "pipelines", "prefect.yaml", ".leptonflow"}
    assert {parts for parts in there if parts[0] == ".leptonflow"} == {(".leptonflow", "logs")}


@pytest.mark.parametrize("secret", [None, "somebody:else"])
def test_the_api_asks_for_its_password(stack: Stack, secret: str | None) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(stack, "/deployments/filter", {}, secret)
    assert refused.value.code == 401


def test_the_ui_is_served(stack: Stack) -> None:
    """From a folder that the server fills itself: its own packages cannot be written to in an image."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(stack.api.removesuffix("/api"), headers={"Accept": "text/html"})) as page:
        assert page.status == 200
        assert "<title>Prefect" in page.read().decode()


def test_no_service_fails_or_tells_a_secret(stack: Stack) -> None:
    logs = {name: path.read_text(errors="replace") for name, path in stack.logs.items()}
    assert not [name for name, text in logs.items() if "Traceback" in text]
    told = {name for name, text in logs.items() for secret in SECRETS.values() if secret in text}
    assert not told - {"s3"}  # SeaweedFS names its access key
    assert SECRETS["AWS_SECRET_ACCESS_KEY"] not in logs["s3"]

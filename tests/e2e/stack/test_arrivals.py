"""What others send to a running `up`: files closed by `_READY`, which start a run; and runs that would do harm."""

from __future__ import annotations

import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import servers
from tests.e2e.helpers import call, command, digits
from tests.e2e.stack.stacks import Stack, project, until, up

SECONDS = 30  # from `_READY` to a run, debounce 5 included
Put = Callable[[str, bytes], None]  # key relative to landing/small/, content


def send(put: Put, batch: str, source: Path) -> None:
    """A batch as any client sends one: its files, and `_READY` last."""
    for file in sorted(source.rglob("*.png")):
        put(f"{batch}/{file.parent.name}/{file.name}", file.read_bytes())
    put(f"{batch}/_READY", b"")


def into_folder(store: Path) -> Put:
    def put(key: str, content: bytes) -> None:
        path = store / "landing" / "small" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return put


def into_bucket(environment: dict[str, str], bucket: str) -> Put:
    """A plain S3 client: minio's."""
    import minio

    client = minio.Minio(
        environment["AWS_ENDPOINT_URL"].removeprefix("http://"),
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
        region=environment.get("AWS_REGION", "us-east-1"),
        secure=False,
    )

    def put(key: str, content: bytes) -> None:
        client.put_object(bucket, f"landing/small/{key}", io.BytesIO(content), len(content))

    return put


def exports(folder: Path) -> dict[str, str]:
    """What `. .leptonflow/stack/s3.env` sets in another terminal."""
    lines = (folder / ".leptonflow" / "stack" / "s3.env").read_text().splitlines()
    pairs = [line.removeprefix("export ").split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    return {name: value.strip("'\"") for name, value in pairs}


@contextmanager
def on_directory(folder: Path) -> Iterator[tuple[Stack, Put, dict[str, str]]]:
    with up(folder) as stack:
        yield stack, into_folder(folder / ".leptonflow"), {}


@contextmanager
def on_s3(folder: Path, kind: str) -> Iterator[tuple[Stack, Put, dict[str, str]]]:
    """`up --s3`: MinIO where it finds a binary of that name, else SeaweedFS."""
    path = os.environ["PATH"]
    if kind == "minio":
        binary = servers.minio_binary()
        if binary is None:
            pytest.skip("no `minio` binary on PATH or under $GOPATH/bin")
        path = f"{Path(binary).parent}{os.pathsep}{path}"
    else:
        path = os.pathsep.join(p for p in path.split(os.pathsep) if not (Path(p) / "minio").exists())
    environment = {"PATH": path}
    if kind != "minio":
        environment["GOPATH"] = str(folder)  # nor where `go install` puts it
        environment["HOME"] = str(folder)
    with up(folder, "--s3", environment=environment) as stack:
        found = exports(folder)
        yield stack, into_bucket(found, "leptonflow"), found


STORES: dict[str, Any] = {
    "directory": on_directory,
    "seaweedfs": lambda folder: on_s3(folder, "seaweedfs"),
    "minio": lambda folder: on_s3(folder, "minio"),
}


def first_batch(stack: Stack, put: Put, source: Path) -> None:
    """A plain upload, and the one run that it starts."""
    began = time.monotonic()
    send(put, "monday", source)
    first = until(lambda: stack.runs("small"), SECONDS, "a run to be scheduled")[0]
    assert time.monotonic() - began < SECONDS
    ended = stack.ended(first["id"])
    assert ended["state"]["name"] == "promoted", ended["state"]
    assert len(stack.runs("small")) == 1


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`up` in a folder with two pipelines, for the tests that are in every run."""
    folder = project(tmp_path_factory.mktemp("stack") / "it's a #1 folder (50%) \u00fc")
    project(folder, "attacked")
    with up(folder) as running:
        yield running


def test_a_closed_batch_is_retrained_on(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_batch(stack, into_folder(stack.folder / ".leptonflow"), digits(tmp_path / "monday", 3, 20))
    assert batches(stack.folder, {}) == {"monday"}
    board = stack.services["board"]["url"]
    report_is_shown(stack, board)
    picture = next((tmp_path / "monday").rglob("*.png"))
    until(lambda: httpx.get(f"{board}/v1/small").json()["version"], SECONDS, "the champion to be served")
    served = httpx.post(f"{board}/v1/small/predict", content=picture.read_bytes(), timeout=30).json()["predictions"]
    monkeypatch.chdir(stack.folder)
    monkeypatch.delenv("LEPTONFLOW_STORE", raising=False)
    (told,) = call("predict", "small", picture, "--json").document
    assert (served[0]["label"], served[0]["version"]) == (told["label"], told["version"])
    assert abs(served[0]["probability"] - told["probability"]) <= 1e-5


def report_is_shown(stack: Stack, board: str) -> None:
    """The run's page links to its report on the board."""
    wanted = {"artifacts": {"key": {"any_": ["report-small"]}}}
    (artifact,) = stack.ask("/artifacts/filter", wanted)
    (address,) = re.findall(r"\]\((http[^)]*)\)", artifact["data"])
    assert address.startswith(board)
    page = stack.client.get(address)
    assert page.status_code == 200 and page.text.lower().startswith("<!doctype html>")


def test_no_run_executes_a_command_of_its_own(stack: Stack, tmp_path: Path) -> None:
    """Without the login, and with it by what a run may say of itself."""
    evil, owned = tmp_path / "evil", tmp_path / "owned"
    evil.mkdir()
    (evil / "sitecustomize.py").write_text(f"open({str(owned)!r}, 'w').close()\n")
    variables = {
        "command": f"touch {owned}",
        "working_dir": str(evil),
        "env": {"PYTHONPATH": str(evil), "BASH_ENV": str(evil / "x"), "PREFECT_LOGGING_LEVEL": "WARNING"},
        "env.PYTHONPATH": str(evil),
    }
    deployment = stack.deployment("attacked")
    asked = f"{stack.api}/deployments/{deployment['id']}/create_flow_run"
    document = {"state": {"type": "SCHEDULED"}, "job_variables": variables, "parameters": {"pipeline": "attacked"}}
    with httpx.Client(trust_env=False, timeout=30) as client:
        logins: list[Any] = [None, ("leptonflow", "guess")]
        for login in logins:
            assert client.post(asked, json=document, auth=login).status_code == 401
        for key, value in variables.items():
            one = {**document, "job_variables": {key: value}}
            assert client.post(asked, json=one, auth=stack.login).status_code == 422, key
    # Prefect's server holds the variables of such a run against no template.
    unchecked = {"flow_id": deployment["flow_id"], "deployment_id": deployment["id"], "work_pool_name": "default"}
    run = stack.ask("/flow_runs/", {**document, **unchecked})
    ended = stack.ended(run["id"])
    assert run["job_variables"]["command"] == variables["command"]  # it was asked for
    assert not owned.exists()
    assert ended["name"] == "attacked-rejected-data", ended  # a retraining, in the deployment's folder, of no data
    told = [path for path in (stack.folder / ".leptonflow").rglob("*.log*") if stack.login[1] in path.read_text()]
    assert told == []


# In every run: a batch in a folder above, and what MinIO tells the watcher in tests/integration/test_webhook.py.
@pytest.mark.slow
@pytest.mark.parametrize("kind", STORES)
def test_a_closed_batch_is_retrained_on_and_a_burst_is_one_run(kind: str, tmp_path: Path) -> None:
    """A plain upload, then a burst of several batches: every batch is in the dataset once, in few runs."""
    folder = project(tmp_path / "it's a #1 folder (50%) \u00fc")
    source = digits(tmp_path / "monday", 3, 20)
    with STORES[kind](folder) as (stack, put, environment):
        first_batch(stack, put, source)

        pictures = sorted((digits(tmp_path / "tuesday", 3, 8, skip=20)).rglob("*.png"))
        for number, file in enumerate(pictures[:6]):
            part = tmp_path / "parts" / str(number) / file.parent.name
            part.mkdir(parents=True)
            shutil.copy(file, part)
            send(put, f"part-{number}", part.parent)
        wanted = {"monday", *(f"part-{n}" for n in range(6))}
        until(lambda: stack.idle("small") and batches(folder, environment) == wanted, 120, f"{wanted} in the dataset")
        runs = stack.runs("small")
        assert {run["state"]["type"] for run in runs} == {"COMPLETED"}
        assert len(runs) <= 3  # one for the first batch, one or two for the burst
        assert batches(folder, environment) == wanted


def batches(folder: Path, environment: dict[str, str]) -> set[str]:
    """The batches that the dataset holds; each of them once."""
    result = command("query", "select batch from batches where outcome = 'accepted'", "--json",
                     cwd=folder, environment=environment)  # fmt: skip
    found = [row["batch"] for row in result.document]
    assert len(found) == len(set(found))
    return set(found)

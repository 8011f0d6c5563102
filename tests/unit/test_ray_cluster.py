"""The Ray cluster that a pipeline names: what is told where it is not there. Nothing here starts one.

What a cluster computes is in tests/e2e/test_runners.py.
"""

from __future__ import annotations

import re
import socket
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import health_checks
from flows import ray_cluster, ray_fits
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.errors import ClusterError, ConfigurationError, TrainingError
from tests.compose import ROOT
from tests.deployments import pins
from tests.e2e import helpers
from tests.fit_examples import land, pipeline

INSTALLED = "ray is not installed: `pip install -r requirements-ray.lock` to run this"


def on_ray(**keys: Any) -> Pipeline:
    return pipeline(training={"batch_size": 16, "folds": 3, "runner": {"name": "ray", **keys}})


@pytest.fixture
def closed() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def mute() -> Iterator[str]:
    """An address where something takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"ray://127.0.0.1:{listening.getsockname()[1]}"


def test_a_cluster_that_does_not_answer_is_one_line_within_seconds(
    tmp_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prefect_ray", reason=INSTALLED)
    monkeypatch.chdir(tmp_path)
    path = helpers.pipeline(tmp_path, training={"runner": {"name": "ray", "address": closed}})
    began = time.monotonic()
    result = helpers.call("retrain", path, "--json")
    assert time.monotonic() - began < 20
    assert result.status == 1
    assert result.error["message"] == f"the Ray cluster at {closed} does not answer"
    assert result.error["received"] == "Connection refused"


def test_the_lock_of_the_extra_has_the_versions_that_are_tested() -> None:
    mine, tested = pins(ROOT / "requirements-ray.lock"), pins(ROOT / "requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["ray"]]
    assert {re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in needed} <= mine.keys()
    assert {"ray", "prefect-ray"} <= mine.keys() - tested.keys()
    assert {name: version for name, version in mine.items() if tested.get(name, version) != version} == {}


def test_an_address_is_that_of_the_yaml_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigurationError, match=r"no cluster is named.*training\.runner\.address, or RAY_ADDRESS"):
        ray_cluster.address(on_ray())
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    assert ray_cluster.address(on_ray()) == "there:1"
    assert ray_cluster.address(on_ray(address="here:1")) == "here:1"


def test_ray_that_is_not_installed_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "PACKAGES", ("no-such-ray",))
    with pytest.raises(ConfigurationError, match=r"not installed.*no no-such-ray.*requirements-ray\.lock"):
        ray_cluster.check(on_ray(address="here:1"))
    ray_cluster.check(pipeline())


@pytest.mark.slow  # Ray is imported
def test_what_takes_connections_and_is_no_cluster_is_told_in_time(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prefect_ray", reason=INSTALLED)
    monkeypatch.setattr(ray_cluster, "PATIENCE", 15.0)
    with pytest.raises(ClusterError, match=f"the Ray cluster at {mute} does not answer"):
        ray_cluster.check_takes_drivers(mute)


@pytest.mark.slow  # Ray is imported
def test_a_cluster_that_takes_one_driver_and_not_the_next_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prefect_ray", reason=INSTALLED)
    import ray

    def init(*where: str, **options: Any) -> None:
        raise ConnectionAbortedError("Initialization failure from server:\nTraceback\nStarting failed.\n")

    monkeypatch.setattr(ray, "init", init)  # Ray's own server for clients fails to start a process now and then
    told = "the Ray cluster at local does not answer.*Received: Starting failed"
    with pytest.raises(ClusterError, match=told), ray_cluster.connected(on_ray(address="local")):
        pass


def test_doctor_asks_each_cluster_that_is_named(tmp_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert health_checks._ray() == "no cluster is named"
    helpers.pipeline(tmp_path / "pipelines", training={"runner": {"name": "ray", "address": closed}})
    with pytest.raises(ClusterError, match=f"at {closed} does not answer"):
        health_checks._ray()
    (tmp_path / "pipelines" / "small.yaml").unlink()
    monkeypatch.setenv("RAY_ADDRESS", f"ray://{closed}")
    with pytest.raises(ClusterError, match=f"at ray://{closed} does not answer"):
        health_checks._ray()


def test_a_worker_without_the_runs_code_or_store_says_so(tmp_path: Path) -> None:
    config = pipeline()
    store = open_store(str(tmp_path / "store"))
    plan = land(store, config)
    with pytest.raises(TrainingError, match=r"another leptonflow, Keras or backend.*Expected: code aaaaaaaaaaaa"):
        ray_fits.Workers(None, "a" * 64, "float32", None).fit(store.uri, config, plan, 0)
    mine = ray_fits.Workers(None, ray_fits._code(config), "float32", None)
    with pytest.raises(TrainingError, match=r"does not find the store.*every machine of the cluster reaches"):
        mine.fit((tmp_path / "elsewhere").as_uri(), config, plan, 0)

"""`retrain` with each runner of fits: the same version, the same folds, the same metrics as in one process."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import ray_cluster
from leptonflow.core import progress
from leptonflow.data.dataset import admission
from tests.e2e.helpers import call, good, ingest, pipeline, rows, working_folder

TRAINING: dict[str, Any] = {"folds": 3, "epochs": 2}
OWN = """
import keras
from pathlib import Path

def build(input, classes):
    print("built by the user")
    units = int((Path(__file__).parent / "units.txt").read_text())
    layers = keras.layers
    return keras.Sequential([
        layers.Input(input), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(units, "relu"),
        layers.Dense(len(classes), "softmax"),
    ])
"""


@pytest.fixture(scope="module")
def work(
    tmp_path_factory: pytest.TempPathFactory, admission_tools: admission.Tools, prefect_folder: Path
) -> Iterator[Path]:
    with working_folder(tmp_path_factory.mktemp("work"), prefect_folder) as folder:
        good(folder / "source", ("cat", "dog"), 40)
        (folder / "mine.py").write_text(OWN)
        (folder / "units.txt").write_text("8")
        yield folder


def retrained(work: Path, store: str, runner: Any) -> dict[str, Any]:
    """The document of a run on a store of its own, with what its folds have."""
    model = {"function": "mine:build", "files": ["units.txt"]}
    path = pipeline(work, model=model, training={**TRAINING, **({"runner": runner} if runner else {})})
    ingest(path, work / "source", "--store", work / store)
    result = call("retrain", path, "--store", work / store, "--json")
    assert result.status == 0, result.told()
    assert result.err.count("are kept in memory") == 1, result.err
    assert "built by the user" not in result.out
    document = dict(result.document)
    document["curves"] = rows(work / store, "select fold, epoch, metric, value from epochs order by all")
    return document


@pytest.fixture(scope="module")
def local(work: Path) -> dict[str, Any]:
    return retrained(work, "local", None)


def same(mine: dict[str, Any], local: dict[str, Any]) -> None:
    for key in ("run_id", "version", "verdict", "cv", "holdout", "curves"):
        assert mine[key] == local[key]


@pytest.mark.slow
def test_folds_in_processes_of_their_own_are_those_of_one_process(work: Path, local: dict[str, Any]) -> None:
    same(retrained(work, "process", {"name": "process", "memory": "100MB"}), local)


# --- ray -----------------------------------------------------------------------------------------

RAY = "ray is not installed: `pip install -r requirements-ray.lock` to run this"


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, str]]:
    """A cluster whose head computes nothing, with two workers of one CPU each: its address, and that for clients."""
    pytest.importorskip("prefect_ray", reason=RAY)
    from ray.cluster_utils import Cluster

    # Its workers would have the lowest priority, and starve beside other tests; and the processes of its server for
    # clients would now and then end as they are forked: https://github.com/ray-project/ray/issues/63202
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    room = {"object_store_memory": 100 << 20, "memory": 8 << 30}
    found = Cluster(True, head_node_args={"num_cpus": 0, "ray_client_server_port": port, **room})
    try:
        for _ in range(2):
            found.add_node(num_cpus=1, **room)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ray_cluster, "PATIENCE", 600.0)  # its server starts a process for each client, on two cores
            yield found.address, f"ray://127.0.0.1:{port}"
    finally:
        found.shutdown()


def computing() -> list[int]:
    """The processes that compute a fold on the cluster."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with_name = b""
        try:
            with_name = path.read_bytes()
        except OSError:  # it has ended
            continue
        if with_name.startswith(b"ray::train-fold"):
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_folds_on_two_workers_of_a_ray_cluster_one_of_them_killed_are_those_of_one_process(
    work: Path, local: dict[str, Any], cluster: tuple[str, str]
) -> None:
    killed: list[int] = []
    most = [0]

    def kill_one(stage: str, done: int, total: int) -> None:
        there = computing()
        most[0] = max(most[0], len(there))
        if stage.startswith("fold") and not killed and there:
            killed.append(there[0])
            os.kill(there[0], signal.SIGKILL)

    with progress.listen(kill_one):
        mine = retrained(work, "ray", {"name": "ray", "address": cluster[0], "memory": "500MB"})
    same(mine, local)
    assert killed and most[0] >= 2  # the one that replaces it may be there already


@pytest.mark.slow
def test_a_cluster_is_reached_by_its_address_for_clients(
    work: Path, local: dict[str, Any], cluster: tuple[str, str]
) -> None:
    same(retrained(work, "client", {"name": "ray", "address": cluster[1], "memory": "500MB"}), local)

"""The Ray cluster of `training.runner: ray`: its address, whether it answers, what it has room for. Imports Ray late.

What does not belong here: what its workers compute (ray_fits).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from typing import Any

from leptonflow.core import progress
from leptonflow.training.runners.fit_process import MOST_KILLS
from leptonflow.training.runners.seats import gpus_asked
from schemas.config import Pipeline
from schemas.errors import ClusterError, ConfigurationError

SECONDS = 5.0  # for a cluster to take a connection
PATIENCE = 30.0  # and to take a driver: Ray itself tries for minutes
PROBE = "import ray, sys; ray.init(sys.argv[1], logging_level='CRITICAL', log_to_driver=False)"
NAMED = ("auto", "local")  # addresses that are none: Ray looks for the machine's cluster, or starts one
PACKAGES = ("ray", "prefect-ray")
# What a worker's process gets from the run. The store's credentials are in its own environment, as those of any worker.
GIVEN = ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL", "PREFECT_LOGGING_LEVEL", "DO_NOT_TRACK")


def check(config: Pipeline) -> None:
    """Raises ConfigurationError where the runner is ray and cannot be, ClusterError where its cluster does not answer.

    Takes seconds at most, and imports nothing heavy.
    """
    if config.training.runner.name == "ray":
        _check_installed()
        check_answers(address(config))


def _check_installed() -> None:
    missing = [name for name in PACKAGES if util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise ConfigurationError(
            "training.runner is ray, which is not installed",
            expected=f"the packages {' and '.join(PACKAGES)}",
            received=f"no {', '.join(missing)}",
            hint="pip install -r requirements-ray.lock in a clone, else pip install 'leptonflow[ray]'",
        )


def address(config: Pipeline) -> str:
    """The YAML's, or that of RAY_ADDRESS. Raises ConfigurationError where there is neither."""
    found = config.training.runner.address or os.environ.get("RAY_ADDRESS")
    if not found:
        raise ConfigurationError(
            "training.runner is ray, and no cluster is named",
            expected="training.runner.address, or RAY_ADDRESS",
            received="neither",
            hint="ray://host:10001, host:6379 on a machine of the cluster, auto or local",
        )
    return found


def check_answers(address: str) -> None:
    """Raises ClusterError where nothing takes a connection at that address."""
    if address in NAMED:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _silent(address, getattr(error, "strerror", None) or str(error)) from None


def check_takes_drivers(address: str) -> None:
    """Raises ClusterError where Ray cannot connect, found out in a process of its own: Ray's core may end its own."""
    _check_installed()
    check_answers(address)
    if address == "local":
        return
    command = [sys.executable, "-c", PROBE, address]
    try:
        asked = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise _silent(address, f"nothing for {PATIENCE:g} s") from None
    if asked.returncode:
        raise _silent(address, _last_line(asked.stderr) or f"exit status {asked.returncode}")


def _last_line(text: str) -> str:
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "")


def _silent(address: str, received: str) -> ClusterError:
    return ClusterError(
        f"the Ray cluster at {address} does not answer",
        expected="a cluster of the same Ray and Python",
        received=received,
        hint="`ray status` on its head says whether it runs; training.runner.address and RAY_ADDRESS name it",
    )


@contextmanager
def connected(config: Pipeline) -> Iterator[dict[str, Any]]:
    """Ray in this process while the block runs; gives the options with which a fit asks for its resources.

    At the end the cluster ends what this run still computes there. Raises as `check`.
    """
    check(config)
    check_takes_drivers(address(config))
    import ray

    where, runner = address(config), config.training.runner
    given = {name: os.environ[name] for name in GIVEN if name in os.environ}
    try:
        ray.init(where, namespace="leptonflow", logging_level="ERROR", runtime_env={"env_vars": given})
    except (ConnectionError, RuntimeError) as error:  # it took one a moment ago
        raise _silent(where, _last_line(str(error))) from error
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = gpus_asked(config.training, any(node.get("GPU") for node in nodes))
        asked = {"CPU": runner.cpus, "memory": runner.bytes, "GPU": gpus}
        if not any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
            told = f"{runner.cpus} CPUs, {runner.memory} and {gpus:g} GPUs"
            progress.note(f"no machine of the Ray cluster has {told} for a fit: the fits wait for one that has")
        yield {"num_cpus": runner.cpus, "memory": runner.bytes, "num_gpus": gpus, "max_retries": MOST_KILLS - 1}
    finally:
        ray.shutdown()

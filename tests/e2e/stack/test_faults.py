"""Processes that die, servers that go away: the run is finished all the same, and nothing is there twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.helpers import command, digits
from tests.e2e.stack.stacks import TINY, Stack, project, until, up

pytestmark = pytest.mark.slow  # minutes, and many processes: `make test-all` runs these

LONG = {"training": {**TINY["training"], "epochs": 40, "folds": 3}}  # some ten seconds: time to kill something
HEARTBEAT_LIMIT = 90


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for this module, with a pipeline for each test."""
    folder = tmp_path_factory.mktemp("faults")
    for name in ("alone", "group", "restart", "overlap"):
        project(folder / "work", name, debounce=0, **LONG)
        digits(folder / name, 3, 20)
    with up(folder / "work") as running:
        yield running


def arrived(stack: Stack, name: str) -> str:
    """The run that a batch starts."""
    landed = command("ingest", name, stack.folder.parent / name, cwd=stack.folder)
    assert landed.status == 0, landed.told()
    return str(until(lambda: stack.runs(name), 30, "a run")[0]["id"])


def training(stack: Stack, name: str) -> tuple[str, Path]:
    """A deployed run that has finished its first fold: its id, and the store's folder of its fits."""
    run = arrived(stack, name)
    fits = stack.folder / ".leptonflow" / "fits" / name
    until(lambda: sorted(fits.glob("*/fold-0/manifest.json")), 60, "the first fold")
    return run, fits


def written(fits: Path) -> dict[str, int]:
    """Each manifest of a fold with the time at which it was written."""
    return {str(p.relative_to(fits)): p.stat().st_mtime_ns for p in fits.glob("*/fold-*/manifest.json")}


def promotions(stack: Stack, name: str) -> list[dict[str, Any]]:
    return list(command("history", name, "--json", cwd=stack.folder).document)


def test_the_worker_alone_is_killed_and_nothing_is_there_twice(stack: Stack) -> None:
    """The run's process is left behind; it finishes, or ends with what it next prints and is run again."""
    run, _ = training(stack, "alone")
    worker = stack.services["worker"]["pid"]
    os.kill(worker, signal.SIGKILL)
    until(lambda: stack.run(run)["state"]["name"] == "promoted", 240, "the run to end")
    until(lambda: stack.services.get("worker", {}).get("pid") not in (None, worker), 60, "another worker")
    assert len(promotions(stack, "alone")) == 1
    again = stack.ended(stack.retrain("alone"), 90)
    assert again["state"]["name"] == "unchanged", again["state"]


def test_two_deployed_runs_of_one_pipeline_never_overlap(stack: Stack) -> None:
    """The second waits for the first, and finds nothing new."""
    first, second = arrived(stack, "overlap"), stack.retrain("overlap")
    ends = [stack.ended(run, 240) for run in (first, second)]
    ends.sort(key=lambda run: str(run["start_time"]))
    assert [run["state"]["name"] for run in ends] == ["promoted", "unchanged"]
    assert ends[0]["end_time"] <= ends[1]["start_time"]


def test_the_prefect_server_is_killed_in_the_middle_of_a_run(stack: Stack) -> None:
    """`up` starts it again; the run goes on, and its state is right."""
    run, _ = training(stack, "restart")
    server = stack.services["prefect"]["pid"]
    os.kill(server, signal.SIGKILL)
    until(lambda: stack.services.get("prefect", {}).get("pid") not in (None, server), 60, "another server")
    assert stack.ended(run, 180)["state"]["name"] == "promoted"
    assert len(promotions(stack, "restart")) == 1


@pytest.mark.slow
def test_a_worker_and_its_run_are_killed_and_a_later_worker_finishes_the_run(stack: Stack) -> None:
    """Found by its missing heartbeats, within their limit and a minute; no fold is trained again."""
    run, fits = training(stack, "group")
    for pid in (stack.services["worker"]["pid"], int(stack.run(run)["infrastructure_pid"])):
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    before = written(fits)
    assert before and not promotions(stack, "group")
    until(lambda: stack.run(run)["run_count"] >= 2, HEARTBEAT_LIMIT + 60, "the run to be started again")
    assert time.monotonic() - killed < HEARTBEAT_LIMIT + 60
    assert stack.ended(run, 180)["state"]["name"] == "promoted"
    after = written(fits)
    assert {name: after[name] for name in before} == before
    assert len(promotions(stack, "group")) == 1

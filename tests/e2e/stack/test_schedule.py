"""A schedule fires, and what it finds nothing new for is `unchanged`; Ctrl-C and the next `up` go on with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.helpers import command, digits
from tests.e2e.stack.stacks import ENDED, TINY, Stack, project, until, up


def scheduled(stack: Stack, name: str) -> list[dict[str, Any]]:
    """The ended runs that the pipeline's schedule asked for."""
    wanted = {"deployments": {"id": {"any_": [stack.deployment(name)["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    found = stack.ask("/flow_runs/filter", wanted)
    return [run for run in found if run["auto_scheduled"] and run["state"]["type"] in ENDED]


@pytest.mark.slow  # a schedule fires once a minute at most
def test_a_schedule_fires_and_an_interrupted_run_is_finished_by_the_next_up(tmp_path: Path) -> None:
    folder = project(
        tmp_path / "work", debounce=3600,
        training={**TINY["training"], "epochs": 40}, schedule={"cron": "* * * * *", "timezone": "Europe/Berlin"},
    )  # fmt: skip
    source = digits(tmp_path / "monday", 3, 20)
    assert command("ingest", "small", source, cwd=folder).status == 0
    with up(folder) as stack:
        run = stack.retrain("small")
        fits = folder / ".leptonflow" / "fits" / "small"
        until(lambda: sorted(fits.glob("*/fold-0/manifest.json")), 90, "the first fold")
    assert not (folder / ".leptonflow" / "promotions" / "small" / "log").exists()  # Ctrl-C came before its end
    with up(folder) as stack:
        interrupted = stack.ended(run, 120)["state"]["name"]
        last = until(lambda: (found := scheduled(stack, "small"))[1:] and found[-1], 300, "two runs of the schedule")
        assert last["state"]["name"] == "unchanged", last["state"]
        # Where the schedule's minute comes before the interrupted run, it is the one that finishes its work.
        names = [interrupted, *(each["state"]["name"] for each in scheduled(stack, "small"))]
        assert names.count("promoted") == 1 and set(names) == {"promoted", "unchanged"}, names
    assert len(command("history", "small", "--json", cwd=folder).document) == 1

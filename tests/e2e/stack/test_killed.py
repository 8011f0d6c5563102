"""What was ingested before `up` is trained, although the run's process is killed as for want of memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.helpers import command, digits
from tests.e2e.stack.stacks import TINY, project, until, up

SETTLED = 30  # flows.automations.SETTLED_SECONDS


# In every run: test_deployed_runs.py (a run that crashed), test_faults.py (one whose process is killed).
@pytest.mark.slow
def test_what_was_ingested_before_is_trained_although_the_runs_process_is_killed(tmp_path: Path) -> None:
    folder = project(tmp_path / "work", debounce=0, training={**TINY["training"], "epochs": 40})
    landed = command("ingest", "small", digits(tmp_path / "images", 3, 20), cwd=folder)
    assert landed.status == 0, landed.told()
    with up(folder) as stack:
        run = until(lambda: stack.runs("small"), 30, "a run of what was there before")[0]["id"]
        until(lambda: list((folder / ".leptonflow" / "fits").glob("*/*/fold-0/manifest.json")), 120, "the first fold")
        os.kill(int(stack.run(run)["infrastructure_pid"]), signal.SIGKILL)
        crashed = until(lambda: (found := stack.run(run))["state"]["type"] == "CRASHED" and found, 20, "Prefect's word")
        assert "SIGKILL" in crashed["state"]["message"] and "memory" in crashed["state"]["message"]
        until(lambda: stack.run(run)["run_count"] == 2, SETTLED + 60, "the same run to be started again")
        assert stack.ended(run)["state"]["name"] == "promoted"
        assert [each["id"] for each in stack.runs("small")] == [run]

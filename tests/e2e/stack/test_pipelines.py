"""Pipelines that come and go while `up` runs: registered, watched and trained without a hand, and taken off again."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.helpers import command, digits
from tests.e2e.stack.stacks import Stack, project, until, up


def gone(stack: Stack, name: str) -> bool:
    try:
        stack.deployment(name)
    except httpx.HTTPStatusError as error:
        return error.response.status_code == 404
    return False


def served(stack: Stack, name: str) -> bool:
    try:
        return stack.client.get(f"{stack.services['board']['url']}/v1/{name}").status_code == 200
    except (httpx.TransportError, KeyError):  # it is started anew
        return False


@pytest.mark.slow  # its parts are in every run: test_watcher.py and test_supervisor.py
def test_a_pipeline_that_comes_while_up_runs_is_trained_and_one_that_goes_is_taken_off(tmp_path: Path) -> None:
    folder = project(tmp_path / "work", "first")
    with up(folder) as stack:
        (folder / "pipelines" / "broken.yaml").write_text("name: [")
        until(lambda: any("broken.yaml" in line for line in stack.errors), 60, "`up` to say what is wrong")
        until(lambda: "broken.yaml" in stack.log("watcher"), 60, "the watcher to say so")
        (folder / "pipelines" / "broken.yaml").unlink()
        project(folder, "second", debounce=0)
        assert command("ingest", "second", digits(tmp_path / "images", 3, 20), cwd=folder).status == 0
        until(lambda: not gone(stack, "second"), 90, "its deployment")
        until(lambda: served(stack, "second"), 60, "it to be served")
        run = until(lambda: stack.runs("second"), 120, "its run")[0]["id"]
        assert stack.ended(run, 180)["state"]["name"] == "promoted"
        (folder / "pipelines" / "first.yaml").unlink()
        until(lambda: gone(stack, "first"), 90, "the deployment to be taken off")
        assert "first: no longer watched" in stack.log("watcher")
        assert not gone(stack, "second")

"""What a killed command leaves running: nothing, once its children have noticed."""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.crash.scenes import INGEST, RETRAIN, YAML, Place
from tests.e2e.killing import AFTER, HOLD, Kill


def marked(mark: str) -> dict[int, str]:
    """The command line of each living process that inherited the mark in its environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ended = b"State:\tZ" in (folder / "status").read_bytes()
            if not ended and mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended, or is another user's
    return found


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.05)
    return time.monotonic() - began


def noted(record: Path, pattern: str) -> bool:
    """Whether a command has come to a write."""
    return record.exists() and re.search(pattern, record.read_text(), re.MULTILINE) is not None


@pytest.mark.slow  # each kind of child by itself: test_prefect_server, test_packages, test_contracts
def test_kill_9_of_a_retrain_leaves_no_process_behind(source: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(YAML)
    (tmp_path / "first").symlink_to(source / "first")
    mark = uuid.uuid4().hex
    alone = Place(tmp_path, {"LEPTONFLOW_TEST_MARK": mark})  # no API is configured: the command starts its own server
    uri = (tmp_path / "store").as_uri()
    alone.killed(uri, INGEST, Kill(AFTER, pattern="/_READY$"))  # `retrain` finds a closed batch to validate
    for write, children in (
        (
            "^examples/",
            ("flows.server_child", "leptonflow.core.child_processes", "leptonflow.data.validation.contracts"),
        ),
        ("/final/manifest", ("flows.server_child", "leptonflow.evaluation.fresh_process")),
    ):
        process, record = alone.start(uri, RETRAIN, Kill(HOLD, pattern=write))
        until(partial(noted, record, write), 240, f"it never came to {write}")
        lines = list(marked(mark).values())
        for child in children:
            assert any(child in line for line in lines), f"{child} was not running: {lines}"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        # One that still imports hears of it afterwards, which takes long on a busy machine.
        seconds = until(lambda: not marked(mark), 60, "processes were left behind")
        print(f"killed at {write}: the last child ended after {seconds:.1f} s")

"""The first `make` in a clone: two at once, a clone that was moved, and a folder whose name no command can hold.

The Makefile and .ci/setup are the real ones; the packages, 4.4 GB of them, are not fetched: the Python on the PATH
only notes that it was asked to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = """#!/bin/sh
case "$*" in
"-m venv "*)
    echo venv >>"$NOTES"; sleep 0.5
    case "$*" in *--clear*) rm -rf .venv ;; esac
    mkdir -p .venv/bin .venv/lib && cp "$0" .venv/bin/python ;;
*"-m pip"*) echo pip >>"$NOTES"; sleep 0.5 ;;
*"-m flows.server_database") echo database >>"$NOTES" ;;
*) exec "$REAL" "$@" ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make setup` reads, in a folder named as people name folders."""
    folder = tmp_path / "it's a #1 clone (50%) \u00fc"
    (folder / ".ci").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml", ".ci/setup"):
        shutil.copy(ROOT / name, folder / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3.13").write_text(PYTHON)
    (programs / "python3.13").chmod(0o755)
    return folder


def make(folder: Path) -> subprocess.Popen[str]:
    place = folder.parent
    environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "NOTES": str(place / "notes"),
                   "REAL": sys.executable}  # fmt: skip
    environment.pop("MAKEFLAGS", None)
    return subprocess.Popen(
        ["make", "setup"], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def done(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    return out


def notes(folder: Path) -> list[str]:
    return (folder.parent / "notes").read_text().splitlines()


def test_two_at_once_set_up_once(clone: Path) -> None:
    told = [done(process) for process in [make(clone), make(clone)]]
    assert notes(clone) == ["venv", "pip", "pip", "database"]
    assert sum("waiting for it" in each for each in told) == 1 and sum("Set up:" in each for each in told) == 1
    assert "Set" not in done(make(clone)) and len(notes(clone)) == 4


def test_a_clone_that_was_moved_is_set_up_again(clone: Path) -> None:
    done(make(clone))
    moved = clone.rename(clone.parent / "elsewhere")
    assert f"it was set up in {clone}" in done(make(moved))
    assert notes(moved) == ["venv", "pip", "pip", "database"] * 2
    done(make(moved))
    assert len(notes(moved)) == 8


def test_a_name_that_no_command_can_hold_is_told(clone: Path) -> None:
    odd = clone.rename(clone.parent / 'a "clone"')
    process = make(odd)
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "move the folder" in out and not (odd / ".venv").exists()

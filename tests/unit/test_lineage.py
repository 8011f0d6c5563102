"""Where a version comes from: what git, the lock and the machine tell, and a card that is literal Markdown."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest

from leptonflow.core.code_digests import ROOT
from leptonflow.core.hashing import sha256
from leptonflow.registry import lineage
from leptonflow.storage.address import open_store
from schemas.text import markdown
from tests.small_packages import PIPELINE, plan


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=kim", "-c", "user.email=kim@lab", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "repository"
    (folder / "pipelines").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "pipelines" / "digits.yaml").write_text("name: digits\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_commit_of_the_yamls_folder_and_whether_it_was_changed(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert lineage.git(repository / "pipelines") == (commit, False)
    (repository / "notes.txt").write_text("a store, a log: not tracked, not the project's")
    assert lineage.git(repository / "pipelines") == (commit, False)
    (repository / "pipelines" / "digits.yaml").write_text("name: other\n")
    assert lineage.git(repository / "pipelines") == (commit, True)


def test_a_git_that_called_us_does_not_name_the_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a hook, GIT_DIR names the repository of the hook."""
    monkeypatch.setenv("GIT_DIR", str(ROOT / "no-such-repository"))
    assert lineage.git(repository)[0] is not None


def test_no_repository_no_commit_no_git_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # taken out again: it begins with GIT_
    empty = tmp_path / "empty"
    empty.mkdir()
    assert lineage.git(empty) == (None, None)
    assert lineage.git(tmp_path / "gone") == (None, None)
    git(empty, "init", "-q")
    assert lineage.git(empty) == (None, None), "no commit yet"
    monkeypatch.setenv("PATH", str(empty))
    assert lineage.git(ROOT) == (None, None), "no git on this machine"


def test_git_runs_nothing_of_the_repositorys_own(repository: Path) -> None:
    trap = repository / "trap"
    trap.write_text("#!/bin/sh\ntouch sprung\n")
    trap.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(trap))
    hooks = repository / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        (hooks / name).write_text(trap.read_text())
        (hooks / name).chmod(0o755)
    (repository / "pipelines" / "digits.yaml").touch()  # an index that git would like to refresh
    index = (repository / ".git" / "index").read_bytes()
    assert lineage.git(repository)[1] is False
    assert not (repository / "sprung").exists()
    assert (repository / ".git" / "index").read_bytes() == index


def test_a_git_that_does_not_answer_in_time_is_none(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = repository / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:/usr/bin:/bin")
    monkeypatch.setattr(lineage, "GIT_SECONDS", 0.2)
    assert lineage.git(repository) == (None, None)


def test_the_nearest_lock(tmp_path: Path) -> None:
    folder = tmp_path / "project" / "pipelines"
    folder.mkdir(parents=True)
    (tmp_path / "project" / "requirements.lock").write_bytes(b"keras==3\n")
    assert lineage.lock(folder) == sha256(b"keras==3\n")
    (folder / "requirements.lock").write_bytes(b"keras==2\n")
    assert lineage.lock(folder) == sha256(b"keras==2\n")


def test_names_from_outside_are_literal_in_a_card() -> None:
    hostile = "<script>\u202e[x](http://evil)\n# title | `code`"
    assert markdown(hostile) == ("\\<script\\>\\\\u202e\\[x\\]\\(http://evil\\)\\\\n\\# title \\| \\`code\\`")


@pytest.mark.parametrize(("data", "told"), [
    (b'{"started_at":"2026-11-24T10:00:00Z"}', "2026-11-24T10:00:00Z"), (None, None), (b"garbage", None), (b"[]", None),
    (b"{}", None),
])  # fmt: skip
def test_a_beginning_that_cannot_be_told_ends_no_packaging(data: bytes | None, told: str | None) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    if data is not None:
        store.create(f"runs/{PIPELINE}/r1/started.json", data)
    assert lineage._started(store, plan("a", "r1")) == told

"""Temporary files on a directory store: a killed writer's are removed, a living one's never."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from leptonflow.storage import leftovers, run_lock
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
    import os, sys, time
    from leptonflow.storage.address import open_store
    def link(temporary, path):
        print(temporary, flush=True)
        time.sleep(600)
    os.link = link
    open_store(sys.argv[1]).create("log/p/00000001.json", b"x")
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def litter(store: Store, key: str, pid: int, name: str = "0123456789abcdef") -> Path:
    path = store.path(key)
    assert path is not None
    path = path / f".tmp-{pid}-{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    return path


def test_a_writer_in_the_middle_of_its_work_keeps_its_file_until_it_is_killed(store: Store) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), store.uri], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        temporary = Path(writer.stdout.readline().strip())
        assert temporary.exists()
        elsewhere = temporary.with_name(f".tmp-{ended()}-{temporary.name[-16:]}")  # as another host or container has it
        for path in (temporary, elsewhere):
            if path is elsewhere:
                temporary.rename(elsewhere)
            leftovers.remove(store)
            assert path.exists()
    finally:
        writer.kill()
        writer.communicate()
    leftovers.remove(store)
    assert not elsewhere.exists()


def test_only_what_is_left_over_is_removed(store: Store) -> None:
    gone, here = ended(), os.getpid()
    left = [litter(store, key, gone) for key in ("", "log/p", "landing/p/open/cat", "examples/p")]
    old = litter(store, "runs/p", here)
    os.utime(old, (time.time() - 2 * leftovers.DAY,) * 2)  # this process is not as old as that
    kept = [litter(store, "runs/p", here, "f" * 16)]
    held = litter(store, "runs/q", gone)
    store.create("landing/p/open/cat/.tmp", b"a person's own")
    store.create("landing/p/open/cat/.tmp-1-short", b"a person's own")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        leftovers.remove(store)
        assert held.exists()
    assert [path for path in (*left, old) if path.exists()] == []
    assert all(path.exists() for path in kept)
    assert len(list(store.list("landing"))) == 2


def test_the_next_retraining_removes_them_and_locks_are_this_users_alone(store: Store) -> None:
    path = litter(store, "log/p", ended())
    root = store.path("")
    assert root is not None
    (root / ".locks").mkdir()
    (root / ".locks" / "p").touch(mode=0o644)
    for pipeline in ("p", "q"):
        with run_lock.one_at_a_time(store, pipeline):
            assert stat.S_IMODE((root / ".locks" / pipeline).stat().st_mode) == 0o600
    assert not path.exists()


def test_a_file_system_without_locks_ends_no_retraining(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with run_lock.one_at_a_time(store, "p"):
        assert run_lock.held(store, "p") is None


def test_a_store_without_files_has_none() -> None:
    leftovers.remove(open_store("memory://leftovers"))

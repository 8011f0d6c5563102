"""What a container grants: cores and memory by control groups of both versions, and what is decoded within them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from leptonflow.core import machine
from leptonflow.core.child_processes import Pool
from leptonflow.workloads.media.image import example, memory
from schemas.errors import LeptonflowError, UsageError

SHAPE = (8, 8, 3)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of many cores whose control groups are files of the test's own."""
    monkeypatch.setattr(machine, "SELF", tmp_path / "self")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "self").write_text("0::/\n")
    return tmp_path / "groups"


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 64), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("rubbish", 64), ("", 64)],
)
def test_a_quota_of_version_2(groups: Path, quota: str, cores: int) -> None:
    write(groups, cpu__max=quota)
    assert machine.cores() == cores


def test_the_narrowest_group_counts(groups: Path) -> None:
    (groups.parent / "self").write_text("0::/pod/container\n")
    write(groups / "pod", cpu__max="300000 100000", memory__max=str(2 << 30))
    write(groups / "pod/container", cpu__max="max 100000", memory__max=str(1 << 30))
    assert (machine.cores(), machine.memory()) == (3, 1 << 30)


def test_groups_of_version_1_whose_path_is_the_host_s(groups: Path) -> None:
    (groups.parent / "self").write_text("4:memory:/docker/0a1b\n3:cpu,cpuacct:/docker/0a1b\n")
    write(groups / "cpu", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    write(groups / "memory", memory__limit_in_bytes=str(600 << 20))
    assert (machine.cores(), machine.memory()) == (3, 600 << 20)
    write(groups / "cpu", cpu__cfs_quota_us="-1")
    write(groups / "memory", memory__limit_in_bytes="9223372036854771712")
    assert machine.cores() == 64 and machine.memory() > 600 << 20


def test_no_groups_and_no_affinity(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (groups.parent / "self").unlink()
    assert machine.cores() == 64 and machine.memory() > 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert machine.cores() == machine.workers() == Pool("unused").count == 1


def test_child_processes_have_memory_too(groups: Path) -> None:
    write(groups, memory__max=str(1 << 30))
    assert (machine.workers(), Pool("unused").count) == (2, 2)


def png(width: int, height: int, mode: str = "RGBA") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def test_an_image_that_needs_more_memory_than_its_bound_is_refused_by_its_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = png(4000, 3000)  # 12 megapixels of 24 bytes at the peak
    found = example.examine(data[:200], SHAPE)
    assert found.rule == "unreadable-image", "nothing of it is there, and it is within the bound"
    monkeypatch.setenv("LEPTONFLOW_IMAGE_MEMORY", "260MB")
    found = example.examine(data[:200], SHAPE)
    assert found.rule == "too-large"
    told = "4000 x 3000 in RGBA need about 288 MB to decode; 260 MB at most (LEPTONFLOW_IMAGE_MEMORY)"
    assert found.reason == told
    with pytest.raises(LeptonflowError, match="too-large"):
        example.request(data, SHAPE)
    monkeypatch.setenv("LEPTONFLOW_IMAGE_MEMORY", "much")
    with pytest.raises(UsageError, match="LEPTONFLOW_IMAGE_MEMORY"):
        example.examine(data, SHAPE)


def test_an_image_that_needs_more_memory_than_the_container_grants(groups: Path) -> None:
    write(groups, memory__max=str(400 << 20))
    found = example.examine(png(4000, 3000)[:200], SHAPE)
    assert found.rule == "too-large" and "half of the memory that this machine or container grants" in str(found.reason)


def test_a_large_image_waits_for_another_one() -> None:
    import threading

    inside = threading.Event()

    def other() -> None:
        with memory.alone():
            inside.set()

    thread = threading.Thread(target=other)
    with memory.alone():
        thread.start()
        assert not inside.wait(0.2)
    assert inside.wait(30)
    thread.join()

"""What only a store in a directory meets: hostile names, links, kills, full and closed disks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from leptonflow.storage.address import open_store
from leptonflow.storage.directory_store import DirectoryStore
from schemas.errors import AlreadyExists, NotFound, StoreUnreachable

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return DirectoryStore(root.as_uri())


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "name", [b"new\nline", b"photo#1.png", b"\xff\xfe.png", b"tab\t", b"back\\slash", b"-rf", b"\x1b[31m"]
)
def test_any_name_on_disk_is_listed_and_read(root: Path, store: DirectoryStore, name: bytes) -> None:
    folder = os.fsencode(root) + b"/landing/" + name
    os.makedirs(folder)
    Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"abc")
    key = "landing/" + os.fsdecode(name) + "/" + os.fsdecode(name)
    assert list(store.list("landing")) == [(key, 3)]
    assert store.folders("landing") == [os.fsdecode(name)]
    assert store.get(key) == b"abc"
    assert store.size(key) == 3


def test_a_root_of_any_name(tmp_path: Path) -> None:
    for name in ("with space", "100%", "photo#1", "ünï", os.fsdecode(b"\xff")):
        store = open_store((tmp_path / name / "store").as_uri())
        store.create("a/b", b"1")
        assert (tmp_path / name / "store" / "a" / "b").read_bytes() == b"1"


def test_links_are_listed_and_never_followed_out(tmp_path: Path, root: Path, store: DirectoryStore) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "password").write_bytes(b"hunter2")
    (tmp_path / "store-beside").mkdir()
    (tmp_path / "store-beside" / "x").write_bytes(b"not ours")
    store.create("a/real", b"real")
    links = {
        "file": secret / "password",
        "folder": secret,
        "beside": tmp_path / "store-beside" / "x",  # its path begins with the root's
        "inside": root / "a" / "real",
        "dangling": root / "nothing",
        "loop": root / "a" / "loop",
    }
    for name, target in links.items():
        (root / "a" / name).symlink_to(target)
    assert [key for key, _ in store.list("a")] == sorted(["a/real", *(f"a/{name}" for name in links)])
    assert store.folders("a") == []
    assert store.get("a/inside") == b"real"
    assert store.size("a/inside") == 4
    for key in ("a/file", "a/beside", "a/folder/password"):
        with pytest.raises(NotFound, match="leads outside the store"):
            store.get(key)
        assert store.size(key) is None
    for key in ("a/dangling", "a/loop", "a/folder"):
        with pytest.raises(NotFound):
            store.get(key)
        assert store.size(key) is None
    with pytest.raises(NotFound, match="leads outside"):
        list(store.list("a/folder"))
    with pytest.raises(NotFound, match="leads outside"):
        store.create("a/folder/new", b"1")
    with pytest.raises(AlreadyExists):
        store.create("a/dangling", b"1")
    assert sorted(path.name for path in secret.iterdir()) == ["password"]


def test_what_is_no_regular_file_is_never_waited_for(root: Path, store: DirectoryStore) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))
        for key in ("fifo", "socket"):
            with pytest.raises(NotFound, match="not a regular file"):
                store.get(key)
            assert store.size(key) is None
    assert [key for key, _ in store.list("")] == ["fifo", "socket"]


def test_a_kill_before_the_link_leaves_no_object(root: Path, store: DirectoryStore) -> None:
    script = """
        import os, sys
        from leptonflow.storage.address import open_store
        def stop(*_):
            print("written", flush=True)
            sys.stdin.read()
        os.link = stop
        open_store(sys.argv[1]).create("log/00000001.json", b"x" * 1_000_000)
    """
    with child(script, root.as_uri()) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        assert len(list((root / "log").iterdir())) == 1  # all of its bytes are on the disk, without a name of a key
        writer.kill()
    assert list(store.list("")) == []
    with pytest.raises(NotFound):
        store.get("log/00000001.json")
    store.create("log/00000001.json", b"mine")
    assert store.get("log/00000001.json") == b"mine"


def test_a_kill_in_the_middle_of_many_leaves_whole_objects_only(root: Path, store: DirectoryStore) -> None:
    script = """
        import itertools, sys
        from leptonflow.storage.address import open_store
        def items():
            for n in itertools.count():
                if n == 200:
                    print("busy", flush=True)
                yield f"m/{n}", b"x" * 50_000
        open_store(sys.argv[1]).create_many(items())
    """
    with child(script, root.as_uri()) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "busy\n"
        writer.kill()
    listed = list(store.list("m"))
    assert len(listed) >= 150
    assert {size for _, size in listed} == {50_000}


def test_no_temporary_file_stays_behind(root: Path, store: DirectoryStore) -> None:
    store.create("a/1", b"1")
    for key in ("a/1", "a/1/x"):
        with pytest.raises((AlreadyExists, StoreUnreachable)):
            store.create(key, b"2")
    store.create_many([("a/1", b"1"), ("a/2", b"2")])
    assert sorted(path.name for path in (root / "a").iterdir()) == ["1", "2"]


def test_a_file_in_the_way_is_named(tmp_path: Path, store: DirectoryStore) -> None:
    store.create("a", b"1")
    with pytest.raises(StoreUnreachable, match=r"a/b.*Not a directory.*move it away"):
        store.create("a/b", b"2")
    with pytest.raises(NotFound):
        store.get("a/b")
    (tmp_path / "file").write_bytes(b"")
    wrong = DirectoryStore((tmp_path / "file").as_uri())
    uses: list[Callable[[], object]] = [
        lambda: wrong.get("k"),
        lambda: wrong.size("k"),
        lambda: list(wrong.list("")),
        lambda: wrong.folders("x"),
    ]
    for use in uses:
        with pytest.raises(StoreUnreachable, match="Not a directory"):
            use()
    with pytest.raises(StoreUnreachable, match="Not a directory"):
        wrong.create("k", b"")


def test_a_full_disk_is_told_and_leaves_nothing(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnreachable, match=r"No space left.*free some space"):
            store.create("a/b", b"1")
    assert list(store.list("")) == []
    store.create("a/b", b"1")


def test_a_closed_folder_is_told() -> None:
    script = """
        import os, sys
        from leptonflow.storage.directory_store import DirectoryStore
        from schemas.errors import StoreUnreachable
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may write anywhere
        store = DirectoryStore(sys.argv[1])
        assert store.get("open/k") == b"1"
        for write in (lambda: store.create("new/k", b"2"), lambda: store.create_many([("new/k", b"2")])):
            try:
                write()
            except StoreUnreachable as error:
                print(error)
    """
    with tempfile.TemporaryDirectory() as temporary:  # pytest's own folders are closed to other users
        root = Path(temporary)
        DirectoryStore(root.as_uri()).create("open/k", b"1")
        root.chmod(0o555)
        with child(script, root.as_uri()) as process:
            out, _ = process.communicate()
        root.chmod(0o755)
    assert out.count("Permission denied. Check that this user may read and write there") == 2


def test_obstore_is_not_imported(root: Path) -> None:
    script = """
        import sys
        from leptonflow.storage.address import open_store
        from leptonflow.storage.store_identity import store_id
        store_id(open_store(sys.argv[1]))
        print([name for name in ("obstore", "minio", "urllib3") if name in sys.modules])
    """
    with child(script, root.as_uri()) as process:
        out, _ = process.communicate()
    assert out == "[]\n"

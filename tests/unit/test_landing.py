"""A folder becomes a batch: what arrives, what is left out and why, and that a cut-short landing goes on."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from leptonflow.core.hashing import sha256
from leptonflow.data.ingest import landing, source_files
from leptonflow.data.ingest.landing import Index
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.config import NAME
from schemas.errors import LeptonflowError, UsageError
from schemas.text import nfc
from tests.batches import CONFIG, arrive, examined, image, land, put, rules, table_of

# --- a folder per class ------------------------------------------------------------------------------


def test_a_folder_per_class(place: Store, source: Path) -> None:
    data = put(source, "cat/b.png", "cat/a.png", "dog/deep/er/c.png")
    seen: list[tuple[str, int, int]] = []
    landed = landing.land(place, CONFIG, source, None, Index(), lambda *step: seen.append(step))
    assert not landed.already and not landed.resumed
    assert landed.batch.startswith("source-") and NAME.fullmatch(landed.batch)
    assert landing.closed_batches(place, "pets") == [landed.batch]
    rows = examined(place, landed.batch)
    assert [(r.source, r.label, r.key, r.rule) for r in rows] == [
        ("cat/a.png", "cat", "cat/a.png", None),
        ("cat/b.png", "cat", "cat/b.png", None),
        ("dog/deep/er/c.png", "dog", "dog/deep/er/c.png", None),
    ]
    assert [r.sha256 for r in rows] == [sha256(data[1]), sha256(data[0]), sha256(data[2])]
    assert rows[0].facts is not None and rows[0].facts["width"] == 9 and len(rows[0].encoded or b"") == 192
    assert ("reading", 3, 3) in seen and ("landing", 3, 3) in seen


def test_bad_files_stop_no_good_ones(place: Store, source: Path) -> None:
    put(source, "cat/good.png", "dog/good.png", "stray.png", seed=1)
    (source / "cat/empty.jpg").write_bytes(b"")
    (source / "cat/text.jpg").write_text("hello")
    (source / "cat/cut.jpg").write_bytes(image(5, "JPEG")[:300])
    Image.new("RGB", (1, 1)).save(source / "cat/tiny.png")
    Image.new("1", (20_000, 20_000)).save(source / "cat/bomb.png")
    rows = arrive(place, source)
    assert rules(rows) == {
        "cat/bomb.png": "too-large",
        "cat/cut.jpg": "unreadable-image",
        "cat/empty.jpg": "empty-file",
        "cat/good.png": None,
        "cat/text.jpg": "unreadable-image",
        "cat/tiny.png": "too-small",
        "dog/good.png": None,
        "stray.png": None,  # its label is none: unknown-label, which is not examining's to say
    }
    assert [r.label for r in rows if r.source == "stray.png"] == [None]


def test_hidden_files_are_ignored_and_an_empty_folder_is_a_warning(place: Store, source: Path) -> None:
    put(source, "cat/a.png", ".DS_Store", "cat/.DS_Store", ".git/x/y.png", "_READY", "_INGEST", "cat/_READY")
    (source / "dog").mkdir()
    put(source, "only-hidden/.x.png")
    landed = land(place, source)
    assert [f.name for f in landed.listing.files] == ["cat/_READY", "cat/a.png"]
    assert [f.key for f in landed.listing.files] == ["cat/%5FREADY", "cat/a.png"]
    assert landed.listing.ignored == 6
    assert len(landed.listing.warnings) == 2 and "'dog' is empty" in landed.listing.warnings[0]


def test_hostile_names(place: Store, source: Path) -> None:
    names = ["a b/x y.png", "a b/photo#1.png", "a b/100%.png", "a b/new\nline.png", "ünï/é.png", "ünï/e\u0301.png",
             "_READY2/_x.png", "a b/back\\slash.png", "a b/?*<>|:\".png", "a b/" + "l" * 250 + ".p", "a b/a%20b.png",
             "a b/\x7f\x01.png", "a b/~.png"]  # fmt: skip
    data = put(source, *names)
    raw = os.path.join(os.fsencode(source), b"a b", b"\xff\xfe.png")
    Path(os.fsdecode(raw)).write_bytes(image(99))
    landed = land(place, source)
    rows = examined(place, landed.batch)
    assert all(r.rule is None for r in rows)
    seen = sorted((r.source, str(r.sha256)) for r in rows if r.source != "a b/\\xff\\xfe.png")
    assert seen == sorted((nfc(n), sha256(d)) for n, d in zip(names, data, strict=True))  # two names are one as NFC
    assert [r.sha256 for r in rows if r.source == "a b/\\xff\\xfe.png"] == [sha256(image(99))]
    assert len({r.key for r in rows}) == len(names) + 1
    assert pa.array([r.source for r in rows], pa.string()).to_pylist() == [r.source for r in rows]
    json.dumps([r.source for r in rows], ensure_ascii=False).encode()


def test_links(place: Store, source: Path, tmp_path: Path) -> None:
    put(source, "cat/a.png", "cat/b.png")
    put(tmp_path, "secret/s.png", "source-not/t.png", seed=7)
    (source / "cat/inside.png").symlink_to("a.png")
    (source / "cat/out.png").symlink_to(tmp_path / "secret/s.png")
    (source / "cat/near.png").symlink_to("../../source-not/t.png")
    (source / "cat/gone.png").symlink_to("nothing.png")
    (source / "cat/circle.png").symlink_to("circle.png")
    (source / "dog").symlink_to(source / "cat")
    (source / "emu").symlink_to(tmp_path / "secret")
    rows = arrive(place, source)
    assert rules(rows) == {
        "cat/a.png": None,
        "cat/b.png": None,
        "cat/circle.png": "path-escape",
        "cat/gone.png": "missing-file",
        "cat/inside.png": None,
        "cat/near.png": "path-escape",
        "cat/out.png": "path-escape",
        "dog": "path-escape",
        "emu": "path-escape",
    }
    assert all(r.sha256 is None for r in rows if r.rule)
    assert sha256(image(7)) not in {sha256(place.get(key)) for key, _ in place.list("landing")}


def test_what_is_no_file_is_never_opened(place: Store, source: Path) -> None:
    put(source, "cat/a.png")
    os.mkfifo(source / "cat/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(source)  # the path of a socket is short
        try:
            listener.bind("cat/socket")
        finally:
            os.chdir(here)
        (source / "cat/device").symlink_to("pipe")
        rows = arrive(place, source)
    strangers = dict.fromkeys(("cat/device", "cat/pipe", "cat/socket"), "not-a-file")
    assert rules(rows) == {"cat/a.png": None, **strangers}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_unreadable_files_and_folders(place: Store, source: Path) -> None:
    put(source, "cat/a.png", "cat/no.png", "dog/b.png")
    (source / "cat/no.png").chmod(0)
    (source / "dog").chmod(0)
    try:
        rows = arrive(place, source)
    finally:
        (source / "dog").chmod(0o755)
    assert rules(rows) == {"cat/a.png": None, "cat/no.png": "unreadable-file", "dog": "unreadable-file"}


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/proc/self/mem"), reason="the other test says it")
def test_a_file_that_the_system_does_not_let_be_read(
    place: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For root: the system call says no."""
    put(source, "cat/a.png", "cat/no.png")
    real = os.open

    def refuse(path: Any, *rest: Any, **named: Any) -> int:
        if str(path).endswith("no.png"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    landed = land(place, source)
    assert [(r.source, r.rule, r.reason) for r in landed.listing.refused] == [
        ("cat/no.png", "unreadable-file", "Permission denied")
    ]


@pytest.mark.parametrize("make", ["missing", "file", "empty", "hidden"])
def test_a_source_that_is_none(place: Store, source: Path, make: str) -> None:
    target = source / "x.txt" if make in ("missing", "file") else source
    if make == "file":
        target.write_text("x")
    if make == "hidden":
        put(source, ".a.png")
    with pytest.raises(UsageError) as caught:
        land(place, target)
    assert caught.value.exit_status == 2
    assert list(place.list("landing")) == []


@pytest.mark.parametrize("name", ["A", "../x", "", ".hidden", "a/b", "x" * 64, "a\n"])
def test_a_batch_name_that_is_none(place: Store, source: Path, name: str) -> None:
    put(source, "cat/a.png")
    with pytest.raises(UsageError, match="name"):
        land(place, source, name)


# --- sent again --------------------------------------------------------------------------------------


def objects(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key, _ in store.list("landing")}


def test_the_same_content_is_already_there(place: Store, source: Path, tmp_path: Path) -> None:
    put(source, "cat/a.png", "dog/b.png")
    first = land(place, source)
    before = objects(place)
    again = land(place, source)
    assert (again.batch, again.already, again.listing) == (first.batch, True, first.listing)
    assert objects(place) == before
    copy = tmp_path / "elsewhere" / "source"
    put(copy, "dog/x.png", "cat/y.png")
    put(copy, "cat/a.png", "dog/b.png")
    for extra in ("dog/x.png", "cat/y.png"):
        (copy / extra).unlink()
    assert land(place, copy).batch == first.batch


def test_other_content_under_the_same_name(place: Store, source: Path) -> None:
    put(source, "cat/a.png")
    land(place, source, "monday")
    put(source, "cat/b.png", seed=5)
    before = objects(place)
    with pytest.raises(UsageError, match="other content") as caught:
        land(place, source, "monday")
    assert "--batch" in str(caught.value.hint)
    assert objects(place) == before


def test_a_folder_that_grew_lands_what_is_new(place: Store, source: Path) -> None:
    one, two = put(source, "cat/a.png", "dog/b.png")
    new = put(source, "dog/c.png", seed=9)[0]
    index = Index(
        known={sha256(one): "cat", sha256(two): "cat"},
        recalled={(sha256(two), "dog"): ("conflicting-label", "as before")},
    )
    landed = land(place, source, "grown", index)
    assert landed.listing.known == 1  # the other is known under another label
    assert [f.name for f in landed.listing.files] == ["dog/c.png"]
    assert [(r.source, r.label, r.rule, r.reason, r.sha256) for r in landed.listing.refused] == [
        ("dog/b.png", "dog", "conflicting-label", "as before", sha256(two))
    ]
    rows = examined(place, "grown")
    assert rules(rows) == {"dog/b.png": "conflicting-label", "dog/c.png": None}
    assert [key for key, _ in place.list("landing/pets/grown/dog")] == ["landing/pets/grown/dog/c.png"]
    assert place.get("landing/pets/grown/dog/c.png") == new
    # The name follows from all that arrived, not from what was known.
    assert land(place, source).batch == land(place, source, None, index).batch


class Cut(Exception):
    pass


class Cutting:
    """A store that ends the process, so to say, after some writes."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store, self._left = store, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create(self, key: str, data: bytes) -> None:
        if not self._left:
            raise Cut
        self._left -= 1
        self._store.create(key, data)

    def create_many(self, items: Iterable[tuple[str, bytes]]) -> list[str]:
        for key, data in items:
            self.create(key, data) if self._store.size(key) is None else None
        return []


@pytest.mark.parametrize("make", [lambda s: put(s, "cat/a.png", "cat/b.png", "dog/c.png"), table_of])
def test_a_landing_that_was_cut_short_goes_on(place: Store, source: Path, make: Any) -> None:
    """At every write, and although the dataset learned of a file in between: the same `_READY` in the end."""
    make(source)
    whole = land(open_store(f"memory://{uuid.uuid4().hex}"), source, "b")
    later = Index(known={sha256(image(0)): "cat"})
    for writes in range(2 + len(whole.listing.files)):
        store: Any = Cutting(open_store(f"memory://{uuid.uuid4().hex}"), writes)
        with pytest.raises(Cut):
            landing.land(store, CONFIG, source, "b", Index())
        assert landing.closed_batches(store, "pets") == []
        if writes:
            other = source.parent / f"other{writes}"
            put(other, "cat/z.png", seed=50)
            with pytest.raises(UsageError, match="other content"):
                landing.land(store._store, CONFIG, other, "b", Index())
        landed = landing.land(store._store, CONFIG, source, "b", later if writes else Index())
        assert landed.resumed == (writes > 0)
        assert landed.listing == whole.listing
        assert list(rules(examined(store._store, "b")).values()) == [None] * 3


def test_an_open_batch_of_somebody_else(place: Store, source: Path) -> None:
    put(source, "cat/a.png")
    place.create("landing/pets/b/cat/other.png", b"x")
    with pytest.raises(UsageError, match="not started by `ingest`"):
        land(place, source, "b")
    place.create("landing/pets/b/_READY", b"")
    with pytest.raises(UsageError, match="other content"):
        land(place, source, "b")


def test_a_source_that_changes_while_it_is_read(place: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    put(source, "cat/a.png", "cat/b.png")
    monkeypatch.setattr(source_files, "KEPT", 0)  # so that both are read twice

    def change(stage: str, done: int, total: int) -> None:
        if stage == "landing" and done == 0:
            put(source, "cat/b.png", seed=77)

    with pytest.raises(LeptonflowError, match="changed while being read"):
        landing.land(place, CONFIG, source, "b", Index(), change)
    assert landing.closed_batches(place, "pets") == []

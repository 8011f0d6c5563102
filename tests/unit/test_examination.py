"""Landed batches examined: plain ones, changed ones, and by child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from leptonflow.core.hashing import sha256
from leptonflow.data.ingest import landing
from leptonflow.data.validation import examination
from leptonflow.data.validation.examination import pool
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import Damaged, LeptonflowError, NotFound
from tests.batches import CONFIG, WORKLOAD, examined, image, land, npy, put, random_rows, rules, table_of
from tests.misread import WRONG, misread

# --- batches that others put there -------------------------------------------------------------------


def test_a_plain_batch(place: Store) -> None:
    keys = ["cat/a b#1.png", "dog/100%.png", "stray.png", ".DS_Store", "cat/.x"]
    for number, key in enumerate(keys):
        place.create(f"landing/pets/b/{key}", image(number))
    with pytest.raises(NotFound, match="_READY"):
        landing.open_batch(place, "pets", "b")
    assert landing.closed_batches(place, "pets") == []
    place.create("landing/pets/b/_READY", b"")
    batch = landing.open_batch(place, "pets", "b")
    assert batch.listing is None and (batch.layout, batch.ignored) == ("folders", 2)
    assert [(r.source, r.label, r.rule, r.sha256) for r in examined(place, "b")] == [
        (name, label, None, sha256(image(n)))
        for n, (name, label) in enumerate([(keys[0], "cat"), (keys[1], "dog"), (keys[2], None)])
    ]


def test_a_plain_batch_with_links_and_pipes(source: Path, tmp_path: Path) -> None:
    store = open_store(source.as_uri())
    batch = source / "landing/pets/b"
    put(tmp_path, "secret.png", seed=9)
    put(batch, "cat/a.png", "_READY", "cat/new\nline.png")
    (batch / "_READY").write_bytes(b"")
    (batch / "cat/inside.png").symlink_to("a.png")
    (batch / "cat/out.png").symlink_to(tmp_path / "secret.png")
    (batch / "cat/other.png").symlink_to("../../../../landing/pets/c/x.png")
    (batch / "dog").symlink_to(tmp_path)
    os.mkfifo(batch / "cat/pipe")
    put(source / "landing/pets/c", "x.png", seed=3)
    assert rules(examined(store, "b")) == {
        "cat/a.png": None, "cat/inside.png": None, "cat/new\nline.png": None, "cat/other.png": "path-escape",
        "cat/out.png": "path-escape", "cat/pipe": "not-a-file", "dog": "path-escape",
    }  # fmt: skip


def test_plain_tables_and_pairs(place: Store, source: Path, tmp_path: Path) -> None:
    npy(source, random_rows(2), np.array([1, 0]))
    for name in ("train_data.npy", "train_labels.npy"):
        place.create(f"landing/pets/n/{name}", (source / name).read_bytes())
    place.create("landing/pets/n/_READY", b"")
    assert [(r.source, r.label, r.rule) for r in examined(place, "n")] == [
        ("train_data.npy[0]", "1", None), ("train_data.npy[1]", "0", None),
    ]  # fmt: skip
    rows_of = b"a.png,cat\n../../store.json,cat\n/etc/passwd,dog\ngone.png,dog\n"
    place.create("landing/pets/t/t.csv", b"file,class\n" + rows_of)
    place.create("landing/pets/t/a.png", image(1))
    place.create("landing/pets/t/_READY", b"")
    rows = examined(place, "t")
    assert [r.rule for r in rows] == [None, "path-escape", "path-escape", "missing-file"]
    assert [r.key for r in rows] == ["a.png", None, None, None]


def test_a_plain_table_that_names_a_link(source: Path, tmp_path: Path) -> None:
    store = open_store(source.as_uri())
    batch = source / "landing/pets/t"
    put(tmp_path, "secret/s.png", seed=9)
    put(batch, "a.png")
    (batch / "out.png").symlink_to(tmp_path / "secret/s.png")
    (batch / "deep").symlink_to(tmp_path / "secret")
    (batch / "t.csv").write_text("file,class\na.png,cat\nout.png,cat\ndeep/s.png,dog\n")
    (batch / "_READY").touch()
    assert [r.rule for r in examined(store, "t")] == [None, "path-escape", "path-escape"]


def test_misnamed_batches_are_named_and_never_read(place: Store) -> None:
    for name in ("good", "Bad", "with space", "open"):
        place.create(f"landing/pets/{name}/cat/a.png", image(0))
        if name != "open":
            place.create(f"landing/pets/{name}/_READY", b"")
    assert landing.closed_batches(place, "pets") == ["good"]
    assert landing.closed_batches(place, "pets", besides={"good"}) == []
    assert landing.misnamed_batches(place, "pets") == ["Bad", "with space"]
    assert landing.closed_batches(place, "nobody") == landing.misnamed_batches(place, "nobody") == []


@pytest.mark.parametrize(
    "ready", [b"{", b"[]", b'{"digest": "x"}', b"\xff\xfe",
              json.dumps({"digest": "x", "layout": "tree", "files": [], "known": 0, "ignored": 0}).encode(),
              json.dumps({"digest": "x", "layout": "folders", "known": 0, "ignored": 0, "files": [
                  {"key": "../../store.json", "name": "x", "size": 1, "sha256": "y"}]}).encode()],
)  # fmt: skip
def test_a_damaged_ready_names_its_key(place: Store, ready: bytes) -> None:
    place.create("landing/pets/b/_READY", ready)
    with pytest.raises(Damaged, match="landing/pets/b/_READY"):
        landing.open_batch(place, "pets", "b")


# --- changes after the landing -----------------------------------------------------------------------


def test_what_changed_after_landing(source: Path, tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    put(source, "cat/a.png", "cat/b.png", "cat/c.png", "cat/d.png", "emu/e.png")
    landed = land(store, source)
    folder = tmp_path / "store/landing/pets" / landed.batch
    put(tmp_path, "secret/e.png", "secret/d.png", seed=4)
    (folder / "cat/a.png").write_bytes(image(50))
    (folder / "cat/b.png").unlink()
    (folder / "cat/d.png").unlink()
    (folder / "cat/d.png").symlink_to(tmp_path / "secret/d.png")
    (folder / "emu").rename(tmp_path / "moved")
    (folder / "emu").symlink_to(tmp_path / "secret")  # the very same bytes, elsewhere
    (folder / "cat/late.png").write_bytes(image(51))  # nobody listed it
    rows = examined(store, landed.batch)
    assert rules(rows) == {
        "cat/a.png": "changed-after-landing", "cat/b.png": "missing-file", "cat/c.png": None,
        "cat/d.png": "path-escape", "emu/e.png": "path-escape",
    }  # fmt: skip
    assert all(r.reason for r in rows if r.rule)


def test_a_pair_that_changed_after_landing(source: Path, tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    landed = land(store, npy(source, random_rows(3), np.arange(3)))
    folder = tmp_path / "store/landing/pets" / landed.batch
    np.save(folder / "train_labels.npy", np.arange(3)[::-1])
    assert [r.rule for r in examined(store, landed.batch)] == ["changed-after-landing"] * 3
    (folder / "train_labels.npy").unlink()
    assert [r.rule for r in examined(store, landed.batch)] == ["missing-file"] * 3
    (folder / "train_data.npy").unlink()
    assert [(r.source, r.rule) for r in examined(store, landed.batch)] == [("train_data.npy", "missing-file")]


def test_a_table_that_changed_after_landing(source: Path, tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    table_of(source)
    landed = land(store, source)
    folder = tmp_path / "store/landing/pets" / landed.batch
    (folder / "b.png").write_bytes(image(50))
    assert [r.rule for r in examined(store, landed.batch)] == [None, "changed-after-landing", None]
    (folder / "labels.csv").write_text("path,label\na.png,dog\n")
    rows = examined(store, landed.batch)
    assert [(r.source, r.rule) for r in rows] == [(f"labels.csv[{i}]", "changed-after-landing") for i in range(3)]


# --- child processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("layout", ["folders", "npy", "table"])
def test_landed_files_are_read_again_where_a_reading_is_wrong(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, layout: str
) -> None:
    store = open_store(f"memory://{tmp_path.name}-{layout}")
    if layout == "folders":
        put(source, "cat/1.png", "dog/1.png")
    elif layout == "npy":
        npy(source, random_rows(3), np.array([0, 1, 1]))
    else:
        table_of(source)
    batch = land(store, source).batch
    expected = examined(store, batch)
    assert all(row.rule is None for row in expected)
    misread(store, monkeypatch, how)
    assert examined(store, batch) == expected


def test_child_processes_see_what_this_process_sees(source: Path, tmp_path: Path) -> None:
    names = [f"{label}/{i}.png" for label in ("cat", "dog", "e\nmu") for i in range(50)]
    put(source, *names)
    (source / "cat/3.png").write_bytes(b"")
    (source / "dog/7.png").write_text("no image")
    store = open_store((tmp_path / "store").as_uri())
    landed = land(store, source)
    alone = examined(store, landed.batch)
    steps: list[tuple[str, int, int]] = []
    with pool(2) as workers:
        assert examined(store, landed.batch, workers=workers, progress=lambda *s: steps.append(s)) == alone
        assert examined(store, landed.batch, workers=workers) == alone
        children = [child.process for child in workers._children]
    assert len(alone) == 150 and sum(r.rule is not None for r in alone) == 2
    assert steps[0] == ("examining", 0, 150) and steps[-1] == ("examining", 150, 150)
    assert all(process.poll() is not None for process in children)


def test_child_processes_import_no_heavy_library(tmp_path: Path) -> None:

    code = (
        "import sys; from leptonflow.data.validation import examination; examination.warm(); "
        "print([m for m in ('tensorflow', 'keras', 'pandas', 'prefect', 'sklearn', 'pyarrow') if m in sys.modules], "
        "'PIL.WebPImagePlugin' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True True\n"


def test_a_child_that_dies_is_an_error_in_one_line(source: Path, tmp_path: Path) -> None:
    put(source, *[f"cat/{i}.png" for i in range(120)])
    store = open_store((tmp_path / "store").as_uri())
    landed = land(store, source)
    with pool(1) as workers:
        workers._children[0].process.kill()
        with pytest.raises(LeptonflowError, match="ended") as caught:
            examined(store, landed.batch, workers=workers)
    assert "SIGKILL" in str(caught.value)


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    """kill -9 of the parent: the pipe ends, and so do they."""

    code = (
        "import time; from leptonflow.data.validation.examination import pool; w = pool(2).start(); "
        "print(*[c.process.pid for c in w._children], flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_pipeline_of_another_input_is_examined_in_its_shape(place: Store, source: Path) -> None:
    put(source, "cat/a.png")
    landed = land(place, source)
    wide: Pipeline = CONFIG.model_copy(update={"input": (4, 6, 1)})
    rows = examination.examine(place, wide, landing.open_batch(place, "pets", landed.batch), WORKLOAD)
    assert len(rows[0].encoded or b"") == 24


def test_every_store_lands_and_gives_back_hostile_names(store: Store, source: Path) -> None:
    """Through a real S3 server too: the escaped keys are all that it sees."""
    names = ["a b/x y.png", "a b/photo#1.png", "a b/100%.png", "a b/\n.png", "a b/%2F.png", "ü/é.png", "_x/_y.png"]
    data = put(source, *names)
    landed = land(store, source)
    assert landing.closed_batches(store, "pets") == [landed.batch]
    assert {r.source: (r.rule, r.sha256) for r in examined(store, landed.batch)} == {
        name: (None, sha256(each)) for name, each in zip(names, data, strict=True)
    }
    assert land(store, source).already


def test_child_processes_read_every_store_that_processes_share(store_uri: str, source: Path) -> None:
    put(source, *[f"cat/{i}.png" for i in range(130)])
    store = open_store(store_uri)
    landed = land(store, source)
    with pool(2) as workers:
        rows = examined(store, landed.batch, workers=workers)
    assert len(rows) == 130 and all(r.rule is None for r in rows)
    assert rows == examined(store, landed.batch)


@pytest.mark.usefixtures("admission_tools")
def test_what_a_person_should_know_of_a_file_is_told_with_the_batch(place: Store) -> None:
    import io

    from PIL import Image

    from leptonflow.data.dataset import admission

    for number in range(10):
        data = io.BytesIO()
        frames = [Image.new("RGB", (9, 9), (number * 20, shade, 0)) for shade in (1, 2)]
        frames[0].save(data, "TIFF", save_all=number > 2, append_images=frames[1:])
        place.create(f"landing/pets/pages/{'cat' if number % 2 else 'dog'}/{number}.tif", data.getvalue())
    place.create("landing/pets/pages/_READY", b"")
    outcome = admission.admit(place, CONFIG, "pages")
    assert outcome.accepted == 10
    assert outcome.warnings == ("page 1 of 2 is taken: 7 of 10 examples, such as cat/3.tif",)

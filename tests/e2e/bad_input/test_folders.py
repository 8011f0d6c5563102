"""Folders of class folders: every bad file has its rule, every odd one is converted, every name is taken literally."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from leptonflow.core import pipeline_files
from leptonflow.data.dataset import dataset_state
from leptonflow.storage.address import open_store
from tests.e2e.bad_input.sources import CLASSES, another_input, bad_images, files, hostile_names, odd_images
from tests.e2e.helpers import call, good, ingest, picture, pipeline, quarantined, rows


def test_every_bad_file_in_a_folder_has_its_rule_and_the_good_ones_stay(
    tmp_path: Path, lenient: Path, store: Path
) -> None:
    source = tmp_path / "zoo"
    good(source, CLASSES, 10)
    expected = bad_images(source)
    odd, hostile = odd_images(source), hostile_names(source)
    secret = tmp_path / "secret.png"
    picture(950).save(secret)
    (tmp_path / "outside").mkdir()
    picture(951).save(tmp_path / "outside" / "x.png")
    os.symlink(secret, source / "cat" / "link.png")
    os.symlink(tmp_path / "outside", source / "dog" / "folder")
    os.symlink(source / "cat" / "nothing.png", source / "cat" / "dangling.png")
    expected |= {"cat/link.png": "path-escape", "dog/folder": "path-escape", "cat/dangling.png": "missing-file"}
    (source / "fish").mkdir()
    hidden = [".DS_Store", "cat/.hidden.png", ".git/config", "dog/.DS_Store"]
    for name in hidden:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"x")

    began = time.monotonic()
    document, result = ingest(lenient, source, "--batch", "zoo", "--store", store)
    assert time.monotonic() - began < 60

    assert quarantined(store, "zoo") == expected
    assert document["outcome"] == "accepted" and result.status == 0
    assert document["arrived"] == 20 + len(expected) + len(odd) + len(hostile)
    assert document["accepted"] == 20 + len(odd) + len(hostile)
    assert document["ignored"] == len(hidden)
    assert "'fish' is empty" in result.err
    assert document["snapshot"]
    config = pipeline_files.load_config(str(lenient))
    opened = open_store(store.as_uri())
    part = dataset_state.snapshots(opened, "small").entries[0].body["parts"][0]
    accepted = set(pq.read_table(store / part["key"], columns=["source"])["source"].to_pylist())
    assert accepted == {*odd, *hostile, *(f"{c}/{n:05d}.png" for n, c in enumerate(["cat"] * 10 + ["dog"] * 10))}
    reasons = {r["source"]: r["reason"] for r in rows(store, "select source, reason from quarantine")}
    assert "400000000 pixels" in reasons["cat/bomb.png"]
    assert "cat" in reasons["cat/both.png"] and "dog" in reasons["cat/both.png"]
    assert "cat/00000.png" in reasons["cat/again.png"]
    # A terminal is not at the mercy of a name, and what was linked from outside was never copied.
    assert "\x1b" not in result.err
    assert secret.read_bytes() not in {(store / "landing/small/zoo" / f).read_bytes() for f in files(store, "zoo")}
    assert config.classes == ("cat", "dog")

    # The same folder again, under its name and under another: nothing is landed, nothing is new.
    again, _ = ingest(lenient, source, "--batch", "zoo", "--store", store)
    assert again["outcome"] == "reused"
    assert {k: again[k] for k in ("arrived", "accepted", "snapshot")} == {
        k: document[k] for k in ("arrived", "accepted", "snapshot")
    }
    other, _ = ingest(lenient, source, "--batch", "zoo-2", "--store", store)
    assert (other["known"], other["accepted"]) == (document["accepted"] + 1, 0)  # the second copy is known by its bytes
    assert other["snapshot"] == document["snapshot"]
    assert not [f for f in files(store, "zoo-2") if f.startswith("cat/0")]
    another_input(tmp_path, store, document["accepted"])


def test_the_first_frame_and_the_alpha_channel_are_what_is_kept(tmp_path: Path, store: Path) -> None:
    """An animated GIF is its first frame; what is transparent becomes white; 16 bits are scaled, not cut."""
    path = pipeline(tmp_path, input=[8, 8, 3], quarantine={"limit": 1.0}, classes=CLASSES)
    source = tmp_path / "odd"
    for name in CLASSES:
        (source / name).mkdir(parents=True)
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    red.save(source / "cat" / "a.gif", save_all=True, append_images=[blue])
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(source / "cat" / "clear.png")
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(source / "cat" / "deep.png")
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(source / "dog" / "black.jpg")
    document, _ = ingest(path, source, "--batch", "odd", "--store", store)
    assert document["accepted"] == 4
    part = dataset_state.snapshots(open_store(store.as_uri()), "small").entries[0].body["parts"][0]
    table = pq.read_table(store / part["key"], columns=["source", "pixels"]).to_pylist()
    means = {row["source"]: np.frombuffer(row["pixels"], np.uint8).reshape(64, 3).mean(0) for row in table}
    assert np.allclose(means["cat/a.gif"], (255, 0, 0), atol=3)
    assert np.allclose(means["cat/clear.png"], 255)
    assert np.allclose(means["cat/deep.png"], round(40000 / 257))
    assert np.allclose(means["dog/black.jpg"], 0, atol=3)


def test_nothing_that_could_be_a_batch_is_a_clear_line(tmp_path: Path, strict: Path, store: Path) -> None:
    (tmp_path / "hollow").mkdir()
    (tmp_path / "file.txt").write_text("x")
    good(tmp_path / "fine", CLASSES, 2)
    for source in ("hollow", "file.txt", "not-there"):
        result = call("ingest", strict, tmp_path / source, "--store", store, "--json")
        assert result.status == 2, source
        assert source in result.told()
    for name in ("Big", "../x", "a b", "", "_READY", "x" * 64, "a\nb"):
        result = call("ingest", strict, tmp_path / "fine", "--batch", name, "--store", store, "--json")
        assert result.status == 2, name
        assert "[a-z0-9]" in str(result.error["expected"])
    assert not (store / "landing").exists()

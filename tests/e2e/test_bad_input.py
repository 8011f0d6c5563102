"""Bad input, from outside: a clear line, nothing lost. Every line of that section of the issue.

Great Expectations starts once for the module (seconds); so most bad files share a batch.
"""

from __future__ import annotations

import os
import resource
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from leptonflow import admission, landing, planning
from leptonflow.store import open_store
from tests import servers
from tests.e2e.helpers import call, command, good, ingest, picture, pipeline, quarantined, rows, together

CLASSES = ["cat", "dog"]


@pytest.fixture(scope="module", autouse=True)
def tools() -> Iterator[None]:
    """One Great Expectations for the module."""
    with admission.tools():
        yield


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh directory store, and no configuration from outside."""
    for name in ("LEPTONFLOW_STORE", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    """A pipeline that refuses no batch."""
    return pipeline(tmp_path / "lenient", classes=CLASSES, quarantine={"limit": 1.0})


@pytest.fixture
def strict(tmp_path: Path) -> Path:
    """A pipeline with the default limit of 0.2."""
    return pipeline(tmp_path / "strict", classes=CLASSES)


def bomb(path: Path, side: int) -> None:
    """A PNG whose header says side x side pixels: a few bytes that would decode to side * side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def files(store: Path, batch: str, name: str = "small") -> list[str]:
    """What was landed of a batch, the markers apart."""
    folder = store / "landing" / name / batch
    found = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    return sorted(set(found) - {"_READY", "_INGEST"})


# --- folders -----------------------------------------------------------------------------------------


def bad_images(folder: Path) -> dict[str, str]:
    """Bad files in a folder of class folders; the rule of each."""
    (folder / "cat" / "empty.png").write_bytes(b"")
    picture(900, (64, 64), "RGB").save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "cat" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "notes.jpg").write_text("not a picture at all\n")
    picture(901, (1, 1)).save(folder / "cat" / "one.png")
    bomb(folder / "cat" / "bomb.png", 20000)
    (folder / "bird").mkdir()
    picture(902).save(folder / "bird" / "tweety.png")
    picture(903).save(folder / "stray.png")
    shutil.copy(folder / "cat" / "00000.png", folder / "cat" / "again.png")
    picture(904).save(folder / "cat" / "both.png")
    shutil.copy(folder / "cat" / "both.png", folder / "dog" / "both.png")
    os.mkfifo(folder / "dog" / "pipe.png")
    return {
        "cat/empty.png": "empty-file",
        "cat/truncated.jpg": "unreadable-image",
        "cat/notes.jpg": "unreadable-image",
        "cat/one.png": "too-small",
        "cat/bomb.png": "too-large",
        "bird/tweety.png": "unknown-label",
        "stray.png": "unknown-label",
        "cat/again.png": "duplicate",
        "cat/both.png": "conflicting-label",
        "dog/both.png": "conflicting-label",
        "dog/pipe.png": "not-a-file",
    }


def odd_images(folder: Path) -> list[str]:
    """Images that are converted, not refused."""
    picture(910, mode="RGB").convert("CMYK").save(folder / "cat" / "cmyk.jpg")
    deep = np.random.default_rng(911).integers(0, 65536, (8, 8)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "cat" / "sixteen.png")
    picture(912, mode="RGB").quantize(16).save(folder / "cat" / "palette.png")
    picture(913, mode="RGBA").save(folder / "cat" / "alpha.png")
    frames = [picture(n, mode="RGB") for n in (914, 915)]
    frames[0].save(folder / "cat" / "animated.gif", save_all=True, append_images=frames[1:])
    names = ["cmyk.jpg", "sixteen.png", "palette.png", "alpha.png", "animated.gif"]
    for suffix, number in (("bmp", 916), ("webp", 917), ("tiff", 918)):
        picture(number, mode="RGB").save(folder / "cat" / f"format.{suffix}")
        names.append(f"format.{suffix}")
    return [f"cat/{name}" for name in names]


HOSTILE = {
    b"with space.png": "with space.png",
    "\u00fcn\u00ef \u732b \U0001f408.png".encode(): "\u00fcn\u00ef \u732b \U0001f408.png",
    b"photo#1.png": "photo#1.png",
    b"new\nline.png": "new\nline.png",
    b"\xff\xfe.png": "\\xff\\xfe.png",
    b"%41.png": "%41.png",
    b"-rf.png": "-rf.png",
    b"a?b*c[d].png": "a?b*c[d].png",
    b"quote'\"`.png": "quote'\"`.png",
    b"back\\slash.png": "back\\slash.png",
    b"\x1b[31mred\x07.png": "\x1b[31mred\x07.png",
    b"l" * 240 + b".png": "l" * 240 + ".png",
}


def hostile_names(folder: Path, first: int = 930) -> list[str]:
    """Good pictures under hostile names; the names as they are recorded."""
    for number, name in enumerate(HOSTILE, first):
        picture(number).save(folder / "dog" / "plain.png")
        os.rename(os.fsencode(folder / "dog" / "plain.png"), os.path.join(os.fsencode(folder), b"dog", name))
    return [f"dog/{name}" for name in HOSTILE.values()]


def another_input(folder: Path, store: Path, examples: int) -> None:
    """With another input size, what was accepted is encoded again, each file found under its hostile name."""
    lenient = pipeline(folder / "lenient", classes=CLASSES, quarantine={"limit": 1.0}, input=[6, 6, 1])
    good(folder / "more", CLASSES, 1, first=980)
    document, _ = ingest(lenient, folder / "more", "--batch", "more", "--store", store)
    assert document["accepted"] == 2
    found = rows(store, "select kind, examples from snapshots order by number")[-2:]
    assert [(row["kind"], row["examples"]) for row in found] == [("preprocessing", examples), ("batch", examples + 2)]


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
    config = planning.load_config(str(lenient))
    opened = open_store(store.as_uri())
    part = planning.snapshots(opened, "small").entries[0].body["parts"][0]
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
    part = planning.snapshots(open_store(store.as_uri()), "small").entries[0].body["parts"][0]
    table = pq.read_table(store / part["key"], columns=["source", "pixels"]).to_pylist()
    means = {row["source"]: np.frombuffer(row["pixels"], np.uint8).reshape(64, 3).mean(0) for row in table}
    assert np.allclose(means["cat/a.gif"], (255, 0, 0), atol=3)
    assert np.allclose(means["cat/clear.png"], 255)
    assert np.allclose(means["cat/deep.png"], round(40000 / 257))
    assert np.allclose(means["dog/black.jpg"], 0, atol=3)


def test_over_the_limit_a_batch_is_refused_whole_until_the_contract_changes(
    tmp_path: Path, strict: Path, store: Path
) -> None:
    source = tmp_path / "mixed"
    good(source, CLASSES, 4)
    for number in range(3):
        (source / "cat" / f"bad{number}.jpg").write_text(f"no picture {number}")
    document, result = ingest(strict, source, "--batch", "mixed", "--store", store)
    assert (result.status, document["outcome"]) == (3, "refused")
    assert (document["arrived"], document["accepted"], document["quarantined"]) == (11, 0, 11)
    assert document["snapshot"] is None
    assert sorted(quarantined(store, "mixed").values()).count("unreadable-image") == 3
    assert "3 of 11" in call("ingest", strict, source, "--batch", "mixed", "--store", store).out

    again, result = ingest(strict, source, "--batch", "mixed", "--store", store)
    assert (result.status, again["outcome"]) == (3, "refused")
    assert again["quarantined"] == 11
    # A refusal teaches nothing: more of the same under another name meets the limit again.
    good(source, CLASSES, 1, first=50)
    grown, result = ingest(strict, source, "--batch", "mixed-2", "--store", store)
    assert (result.status, grown["quarantined"]) == (3, 13)
    shutil.rmtree(source / "cat")
    good(source, CLASSES, 4)
    for number in range(3):
        (source / "cat" / f"bad{number}.jpg").write_text(f"no picture {number}")
    for extra in (source / "dog" / "00051.png",):
        extra.unlink()

    pipeline(tmp_path / "strict", classes=CLASSES, quarantine={"limit": 0.5})
    judged, result = ingest(strict, source, "--batch", "mixed", "--store", store)
    assert (result.status, judged["outcome"], judged["accepted"], judged["quarantined"]) == (0, "accepted", 8, 3)
    found = rows(store, "select outcome from batches where batch = 'mixed' order by \"at\"")
    assert [row["outcome"] for row in found] == ["refused", "accepted"]


def test_duplicates_do_not_count_against_the_limit(tmp_path: Path, strict: Path, store: Path) -> None:
    source = tmp_path / "twice"
    good(source, CLASSES, 3)
    for name in CLASSES:
        for file in sorted((source / name).glob("*.png")):
            shutil.copy(file, file.with_name(f"copy-{file.name}"))
    document, _ = ingest(strict, source, "--batch", "twice", "--store", store)
    assert (document["outcome"], document["accepted"], document["reasons"]) == ("accepted", 6, {"duplicate": 6})


def test_a_grown_folder_lands_its_new_file_alone(tmp_path: Path, strict: Path, store: Path) -> None:
    source = tmp_path / "growing"
    good(source, CLASSES, 5)
    (source / "cat" / "bad.jpg").write_text("no picture")
    first, _ = ingest(strict, source, "--store", store)
    assert (first["accepted"], first["quarantined"]) == (10, 1)
    assert first["batch"].startswith("growing-")

    picture(77).save(source / "dog" / "new.png")
    second, _ = ingest(strict, source, "--store", store)
    assert second["batch"] != first["batch"]
    assert (second["arrived"], second["accepted"], second["known"], second["quarantined"]) == (12, 1, 10, 1)
    assert files(store, second["batch"]) == ["dog/new.png"]
    assert quarantined(store, second["batch"]) == {"cat/bad.jpg": "unreadable-image"}
    assert first["snapshot"] != second["snapshot"]
    # And under a name that it has already, other content is a wrong usage.
    picture(78).save(source / "dog" / "newer.png")
    wrong = call("ingest", strict, source, "--batch", first["batch"], "--store", store, "--json")
    assert wrong.status == 2
    assert first["batch"] in str(wrong.error["message"])
    assert "--batch" in str(wrong.error["hint"])


def test_recalled_rows_are_not_landed_and_not_counted_against_the_limit(
    tmp_path: Path, strict: Path, store: Path
) -> None:
    source = tmp_path / "first"
    good(source, CLASSES, 10)
    for number in range(4):
        (source / "cat" / f"bad{number}.jpg").write_text(f"no picture {number}")
    assert ingest(strict, source, "--batch", "first", "--store", store)[0]["outcome"] == "accepted"
    shutil.rmtree(source / "dog")
    for file in (source / "cat").glob("*.png"):
        file.unlink()
    good(source, CLASSES, 1, first=60)
    document, _ = ingest(strict, source, "--batch", "mostly-bad", "--store", store)  # 4 bad of 6, none of them new
    assert (document["outcome"], document["accepted"], document["quarantined"]) == ("accepted", 2, 4)
    assert document["reasons"] == {"unreadable-image": 4}
    assert files(store, "mostly-bad") == ["cat/00060.png", "dog/00061.png"]
    # The same bytes under another label are another row: they count.
    (source / "dog" / "bad0.jpg").write_text("no picture 0")
    document, result = ingest(strict, source, "--batch", "other-label", "--store", store)
    assert (document["outcome"], document["known"], document["quarantined"]) == ("accepted", 2, 5), result.err


def test_a_conflicting_label_across_batches_names_the_other_batch(tmp_path: Path, strict: Path, store: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    good(first, CLASSES, 5)
    ingest(strict, first, "--batch", "monday", "--store", store)
    good(second, CLASSES, 5, first=100)
    shutil.copy(first / "cat" / "00000.png", second / "dog" / "00000.png")
    Image.open(first / "cat" / "00001.png").save(second / "dog" / "same-pixels.bmp")  # another file, the same image
    Image.open(first / "cat" / "00002.png").save(second / "cat" / "same-pixels.bmp")
    shutil.copy(first / "dog" / "00005.png", second / "dog" / "known.png")
    document, _ = ingest(strict, second, "--batch", "tuesday", "--store", store)
    assert (document["accepted"], document["known"]) == (10, 2)
    assert document["reasons"] == {"conflicting-label": 2}
    found = rows(store, "select source, reason from quarantine where batch = 'tuesday'")
    assert {row["source"] for row in found} == {"dog/00000.png", "dog/same-pixels.bmp"}
    assert all("monday" in row["reason"] and "cat" in row["reason"] for row in found)
    assert not rows(store, "select * from quarantine where batch = 'monday'")  # the accepted example stays


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


def test_an_open_batch_that_another_writer_began_is_left_alone(tmp_path: Path, strict: Path, store: Path) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    (store / "landing/small/theirs/cat").mkdir(parents=True)
    picture(1).save(store / "landing/small/theirs/cat/a.png")
    result = call("ingest", strict, tmp_path / "fine", "--batch", "theirs", "--store", store, "--json")
    assert result.status == 2
    assert files(store, "theirs") == ["cat/a.png"]


# --- plain batches -----------------------------------------------------------------------------------


def test_files_copied_into_landing_by_hand_are_a_batch(tmp_path: Path, lenient: Path, store: Path) -> None:
    """Its keys are the original names, taken literally; an empty _READY closes it."""
    folder = store / "landing/small/by-hand"
    good(folder, CLASSES, 50)  # so many that child processes examine them
    expected = bad_images(folder)
    hostile = hostile_names(folder)
    picture(960).save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", folder / "cat" / "link.png")
    os.symlink(tmp_path, folder / "dog" / "folder")
    (folder / ".DS_Store").write_bytes(b"x")
    expected |= {"cat/link.png": "path-escape", "dog/folder": "path-escape"}
    waiting = call("status", lenient, "--store", store, "--json").document["waiting"]
    assert waiting == []
    (folder / "_READY").write_bytes(b"")
    (store / "landing/small/Not A Name/cat").mkdir(parents=True)
    (store / "landing/small/Not A Name/_READY").write_bytes(b"")
    status = call("status", lenient, "--store", store, "--json")
    assert status.status == 0
    assert status.document["waiting"] == ["by-hand"]
    assert "Not A Name" in call("status", lenient, "--store", store).out
    assert "Not A Name" in call("doctor", "--store", store).told()

    config = planning.load_config(str(lenient))
    outcome = admission.admit(open_store(store.as_uri()), config, "by-hand")
    assert quarantined(store, "by-hand") == expected
    assert outcome.outcome == "accepted"
    assert outcome.accepted == 100 + len(hostile)
    assert outcome.arrived == outcome.accepted + outcome.quarantined == 100 + len(hostile) + len(expected)
    assert outcome.ignored == 1
    status = call("status", lenient, "--store", store, "--json").document
    assert (status["waiting"], status["misnamed"], status["examples"]) == ([], ["Not A Name"], outcome.accepted)
    shutil.rmtree(store / "landing/small/Not A Name")
    check = {c["name"]: c for c in call("doctor", "--store", store, "--json").document["checks"]}["landing"]
    assert check["ok"], check["detail"]
    another_input(tmp_path, store, outcome.accepted)


def test_a_table_copied_into_landing_by_hand(tmp_path: Path, lenient: Path, store: Path) -> None:
    folder = store / "landing/small/by-hand"
    picture(960).save(tmp_path / "secret.png")
    table(folder, [*GOOD_ROWS, ("../../../../secret.png", "cat"), ("images/link.png", "dog"), ("images/no.png", "dog")])
    os.symlink(tmp_path / "secret.png", folder / "images" / "link.png")
    (folder / "_READY").touch()
    outcome = admission.admit(open_store(store.as_uri()), planning.load_config(str(lenient)), "by-hand")
    # `images/` is a sub-folder: so this is no table, but a folder per class, and nothing is dropped silently.
    assert outcome.accepted + outcome.quarantined == outcome.arrived == 12
    assert quarantined(store, "by-hand")["images/link.png"] == "path-escape"
    flat = store / "landing/small/flat"
    flat.mkdir()
    for number in range(3):
        picture(970 + number).save(flat / f"{number}.png")
    lines = ["0.png,cat", "1.png,dog", "2.png,bird", "../by-hand/images/0.png,cat", "link.png,dog", "no.png,dog"]
    (flat / "labels.csv").write_text("\n".join(["path,label", *lines]))
    os.symlink(tmp_path / "secret.png", flat / "link.png")
    (flat / "_READY").touch()
    outcome = admission.admit(open_store(store.as_uri()), planning.load_config(str(lenient)), "flat")
    assert (outcome.arrived, outcome.accepted) == (6, 2)
    assert quarantined(store, "flat") == {
        "labels.csv[2]": "unknown-label",
        "labels.csv[3]": "path-escape",
        "labels.csv[4]": "path-escape",
        "labels.csv[5]": "missing-file",
    }


def test_what_changed_after_landing_is_quarantined(tmp_path: Path, lenient: Path, store: Path) -> None:
    good(tmp_path / "fine", CLASSES, 4)
    opened, config = open_store(store.as_uri()), planning.load_config(str(lenient))
    landing.land(opened, config, tmp_path / "fine", "b", admission.index(opened, config))
    picture(990).save(store / "landing/small/b/cat/00000.png")
    (store / "landing/small/b/dog/00004.png").unlink()
    picture(991).save(store / "landing/small/b/dog/added.png")
    document, _ = ingest(lenient, tmp_path / "fine", "--batch", "b", "--store", store)
    assert (document["arrived"], document["accepted"]) == (8, 6)
    assert quarantined(store, "b") == {"cat/00000.png": "changed-after-landing", "dog/00004.png": "missing-file"}
    assert "added.png" in call("doctor", "--store", store).told()


# --- classes -----------------------------------------------------------------------------------------


def test_the_first_accepted_batch_fixes_the_classes(tmp_path: Path, store: Path) -> None:
    open_classes = pipeline(tmp_path / "p", quarantine={"limit": 0.4})
    good(tmp_path / "one", ["cat"], 3)
    document, result = ingest(open_classes, tmp_path / "one", "--batch", "one", "--store", store)
    assert (result.status, document["outcome"]) == (3, "refused")
    assert "two" in document["sentence"]
    good(tmp_path / "two", ["dog", "cat"], 3, first=10)
    (tmp_path / "two" / "ant").mkdir()
    assert ingest(open_classes, tmp_path / "two", "--batch", "two", "--store", store)[0]["accepted"] == 6
    assert call("status", open_classes, "--store", store, "--json").document["classes"] == ["cat", "dog"]
    good(tmp_path / "three", ["ant", "cat", "dog"], 3, first=20)
    document, _ = ingest(open_classes, tmp_path / "three", "--batch", "three", "--store", store)
    assert (document["accepted"], document["reasons"]) == (6, {"unknown-label": 3})
    # A number in a .npy means the class at that place.
    document, _ = ingest(open_classes, pair(tmp_path / "npy", PIXELS, LABELS * 2), "--batch", "npy", "--store", store)
    assert (document["arrived"], document["outcome"]) == (10, "refused")
    assert document["reasons"] == {"label-out-of-range": 5, "batch-refused": 5}
    named = pipeline(tmp_path / "p", name="numbers")
    document, _ = ingest(named, pair(tmp_path / "n", PIXELS, LABELS * 2), "--batch", "npy", "--store", store)
    assert document["accepted"] == 10
    assert call("status", named, "--store", store, "--json").document["classes"] == ["0", "1", "2"]


# --- .npy --------------------------------------------------------------------------------------------


def pair(folder: Path, values: Any, labels: Any, **how: Any) -> Path:
    folder.mkdir(parents=True)
    np.save(folder / "train_data.npy", values, **how)
    np.save(folder / "train_labels.npy", labels, **how)
    return folder


PIXELS = np.random.default_rng(5).integers(0, 256, (10, 8, 8), np.uint8)
LABELS = np.arange(10) % 2


class Trap:
    """What unpickling it would do is seen."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_npy_rows_that_are_bad_are_quarantined_and_the_others_stay(tmp_path: Path, lenient: Path, store: Path) -> None:
    floats = PIXELS.astype(np.float32) / 255
    floats[1, 0, 0] = np.nan
    floats[2, 0, 0] = np.inf
    labels = LABELS.copy()
    labels[3], labels[4] = 7, -1
    floats[5] = floats[0]
    labels[5] = labels[0]
    document, _ = ingest(lenient, pair(tmp_path / "floats", floats, labels), "--batch", "floats", "--store", store)
    assert quarantined(store, "floats") == {
        "train_data.npy[1]": "not-finite",
        "train_data.npy[2]": "not-finite",
        "train_data.npy[3]": "label-out-of-range",
        "train_data.npy[4]": "label-out-of-range",
        "train_data.npy[5]": "duplicate",
    }
    assert (document["arrived"], document["accepted"]) == (10, 5)
    # Grown by a row: landed whole, the old rows known or recalled.
    more = np.concatenate([floats, 1 - floats[:1]])
    grown, _ = ingest(
        lenient, pair(tmp_path / "grown", more, np.append(labels, 1)), "--batch", "grown", "--store", store
    )
    assert (grown["arrived"], grown["accepted"], grown["known"], grown["quarantined"]) == (11, 1, 6, 4)
    # One-hot labels, and integers beyond a byte.
    wide = PIXELS[::-1].astype(np.int32) // 2
    wide[0, 0, 0] = 256
    hot = np.eye(2)[LABELS]
    hot[1] = 1
    one, _ = ingest(lenient, pair(tmp_path / "hot", wide, hot), "--batch", "hot", "--store", store)
    assert quarantined(store, "hot") == {
        "train_data.npy[0]": "out-of-range",
        "train_data.npy[1]": "label-out-of-range",
    }
    assert one["accepted"] == 8


@pytest.mark.parametrize(
    ("values", "labels", "rule", "arrived"),
    [
        (PIXELS, LABELS[:7], "length-mismatch", 10),
        (PIXELS[:, 0], LABELS, "wrong-rank", 10),
        (PIXELS.reshape(10, 4, 8, 2), LABELS, "wrong-rank", 10),
        (PIXELS, LABELS.reshape(1, 10, 1), "wrong-rank", 10),
        (PIXELS, LABELS.astype(str), "unreadable-array", 10),
        (np.float32(3), LABELS, "wrong-rank", 1),
        (PIXELS.astype(np.complex64), LABELS, "unreadable-array", 1),
    ],
)
def test_npy_pairs_that_are_no_pairs_are_quarantined_whole(
    tmp_path: Path, lenient: Path, strict: Path, store: Path, values: Any, labels: Any, rule: str, arrived: int
) -> None:
    source = pair(tmp_path / "pair", values, labels)
    document, _ = ingest(lenient, source, "--batch", "pair", "--store", store)
    assert document["reasons"] == {rule: arrived}
    assert (document["accepted"], document["quarantined"]) == (0, arrived)
    document, result = ingest(strict, source, "--batch", "again", "--store", store.with_name("other"))
    assert (result.status, document["outcome"], document["reasons"]) == (3, "refused", {rule: arrived})


def test_object_arrays_are_never_unpickled(tmp_path: Path, lenient: Path, store: Path) -> None:
    sprung = tmp_path / "sprung"
    objects = np.empty(3, object)
    objects[:] = [Trap(sprung)] * 3
    document, _ = ingest(
        lenient, pair(tmp_path / "data", objects, LABELS[:3], allow_pickle=True), "--batch", "data", "--store", store
    )
    assert document["reasons"] == {"object-array": 3}
    source = pair(tmp_path / "labels", PIXELS[:3], objects, allow_pickle=True)
    document, _ = ingest(lenient, source, "--batch", "labels", "--store", store)
    assert document["reasons"] == {"object-array": 3}
    assert call("init", tmp_path / "new", "--from", source).status in (0, 2)
    assert not sprung.exists()
    (source / "train_data.npy").write_bytes(b"\x93NUMPY garbage")
    document, _ = ingest(lenient, source, "--batch", "garbage", "--store", store)
    assert document["reasons"] == {"unreadable-array": 1}
    (source / "train_data.npy").write_bytes(b"")
    document, _ = ingest(lenient, source, "--batch", "empty", "--store", store)
    assert document["quarantined"] == document["arrived"] == 1


# --- tables ------------------------------------------------------------------------------------------


def table(folder: Path, lines: list[tuple[Any, ...]], header: tuple[str, ...] = ("path", "label")) -> Path:
    """A CSV beside ten good pictures."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(10):
        picture(300 + number).save(folder / "images" / f"{number}.png")
    text = "\n".join(",".join(str(cell) for cell in line) for line in (header, *lines)) + "\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


GOOD_ROWS = [(f"images/{n}.png", CLASSES[n % 2]) for n in range(10)]


def test_bad_rows_of_a_table_are_quarantined(tmp_path: Path, lenient: Path, store: Path) -> None:
    picture(1).save(tmp_path / "secret.png")
    (tmp_path / "t" / "images").mkdir(parents=True)
    os.symlink(tmp_path / "secret.png", tmp_path / "t" / "images" / "link.png")
    (tmp_path / "t" / "images" / "text.png").write_text("no picture")
    bad = [
        ("../secret.png", "cat"),
        (tmp_path / "secret.png", "cat"),
        ("images/../../secret.png", "cat"),
        ("images/link.png", "cat"),
        ("images/gone.png", "cat"),
        ("images", "cat"),
        ("", "cat"),
        ("images/text.png", "cat"),
        ("images/0.png", "bird"),
        ("images/1.png", ""),
        ("images/2.png", "cat"),
    ]
    source = table(tmp_path / "t", GOOD_ROWS + bad)
    document, _ = ingest(lenient, source, "--batch", "table", "--store", store)
    found = quarantined(store, "table")
    assert [found.get(f"labels.csv[{10 + n}]") for n in range(len(bad))] == [
        "path-escape",
        "path-escape",
        "path-escape",
        "path-escape",
        "missing-file",
        "not-a-file",
        "missing-file",
        "unreadable-image",
        "unknown-label",
        "unknown-label",
        "duplicate",
    ]
    assert document["arrived"] == len(GOOD_ROWS) + len(bad)
    assert document["accepted"] == 10
    assert not [f for f in files(store, "table") if "secret" in f or "link" in f]
    # A row more: what is landed is that row and its image.
    picture(400).save(tmp_path / "t" / "images" / "new.png")
    source = table(tmp_path / "t", [*GOOD_ROWS, *bad, ("images/new.png", "dog")])
    grown, _ = ingest(lenient, source, "--batch", "grown", "--store", store)
    assert (grown["accepted"], grown["known"]) == (1, 11)  # the duplicate row is known by its bytes now
    assert "images/new.png" in files(store, "grown") and "images/3.png" not in files(store, "grown")
    assert grown["arrived"] == document["arrived"] + 1


def test_tables_without_their_columns(tmp_path: Path, lenient: Path, strict: Path, store: Path) -> None:
    source = table(tmp_path / "t", GOOD_ROWS, header=("picture", "label"))
    document, _ = ingest(lenient, source, "--batch", "csv", "--store", store)
    assert document["reasons"] == {"missing-column": 10}
    reason = rows(store, "select reason from quarantine limit 1")[0]["reason"]
    assert "path" in reason and "'picture'" in reason  # what was expected, what is there
    document, result = ingest(strict, source, "--batch", "csv", "--store", store.with_name("other"))
    assert (result.status, document["reasons"]) == (3, {"missing-column": 10})
    pq.write_table(pa.table({"path": ["images/0.png"] * 3, "x": [1, 2, 3]}), tmp_path / "t" / "p.parquet")
    document, _ = ingest(lenient, tmp_path / "t" / "p.parquet", "--batch", "parquet", "--store", store)
    assert document["reasons"] == {"missing-column": 3}
    for name, data in {
        "broken.parquet": b"PAR1 no",
        "broken.csv": b"\xff\xfe\x00path",
        "quote.csv": b'path,label\n"a',
    }.items():
        (tmp_path / "t" / name).write_bytes(data)
        batch = name.replace(".", "-")
        document, _ = ingest(lenient, tmp_path / "t" / name, "--batch", batch, "--store", store)
        assert document["reasons"] == {"unreadable-table": 1}, name


def test_a_table_as_its_folder_and_as_parquet(tmp_path: Path, lenient: Path, store: Path) -> None:
    table(tmp_path / "t", GOOD_ROWS)
    paths, labels = zip(*GOOD_ROWS, strict=True)
    pq.write_table(pa.table({"file": paths, "class": labels}), tmp_path / "t" / "labels.parquet")
    document, _ = ingest(lenient, tmp_path / "t" / "labels.parquet", "--batch", "parquet", "--store", store)
    assert document["accepted"] == 10
    document, _ = ingest(lenient, tmp_path / "t" / "labels.csv", "--batch", "csv", "--store", store)
    assert (document["accepted"], document["known"]) == (0, 10)
    flat = tmp_path / "flat"
    flat.mkdir()
    picture(500).save(flat / "a.png")
    (flat / "all.csv").write_text("filename;category\na.png;cat\nmissing.png;dog\n")
    document, _ = ingest(lenient, flat, "--batch", "flat", "--store", store)
    assert (document["accepted"], document["reasons"]) == (1, {"missing-file": 1})


# --- YAML --------------------------------------------------------------------------------------------

GATE = {"rule": "at_least", "metric": "accuracy", "value": 0.5}


@pytest.mark.parametrize(
    ("keys", "path", "choices"),
    [
        ({"color": 1}, "color", ["classes", "training"]),
        ({"trainning": {}}, "trainning", ["Did you mean training"]),
        ({"training": {"epocs": 3}}, "training.epocs", ["epochs", "batch_size", "Did you mean epochs"]),
        ({"training": {"epochs": "ten"}}, "training.epochs", ["integer", "'ten'"]),
        ({"training": {"epochs": 0}}, "training.epochs", ["1"]),
        ({"training": {"folds": 1}}, "training.folds", ["2"]),
        ({"training": {"optimizer": "adan"}}, "training.optimizer", ["adam", "sgd"]),
        ({"training": 3}, "training", ["3"]),
        ({"input": [8, 8, 2]}, "input.2", ["1 or 3"]),
        ({"input": [8, 8]}, "input.2", ["missing"]),
        ({"input": "8x8"}, "input", []),
        ({"workload": "images"}, "workload", ["image_classification"]),
        ({"name": "Small"}, "name", ["[a-z0-9]"]),
        ({"name": None}, "name", ["missing"]),
        ({"gate": None}, "gate", ["missing"]),
        ({"gate": []}, "gate", ["at_least", "fold_spread", "against_champion"]),
        ({"gate": [{**GATE, "metric": "acuracy"}]}, "gate.0.metric", ["accuracy", "log_loss", "recall[CLASS]"]),
        ({"gate": [GATE, {**GATE, "rule": "atleast"}]}, "gate.1", ["at_least", "at_most", "against_champion"]),
        ({"gate": [{**GATE, "on": "test"}]}, "gate.0.on", ["cv", "holdout"]),
        ({"gate": [{**GATE, "valu": 1}]}, "gate.0.valu", ["value", "metric"]),
        ({"gate": [{"rule": "at_least", "metric": "accuracy"}]}, "gate.0.value", ["missing"]),
        ({"gate": [{**GATE, "value": "0.9"}]}, "gate.0.value", ["number"]),
        ({"gate": GATE}, "gate", []),
        (
            {"classes": CLASSES, "gate": [{**GATE, "metric": "recall[bird]"}]},
            "gate.0.metric",
            ["cat", "dog", "recall[bird]"],
        ),
        ({"classes": ["cat"]}, "classes", ["two"]),
        ({"classes": [1, 2]}, "classes.0", ["string"]),
        ({"holdout": {"fraction": 1.5}}, "holdout.fraction", ["less than 1"]),
        ({"quarantine": {"limit": -1}}, "quarantine.limit", ["0"]),
        ({"model": {"function": "my_model"}}, "model.function", ["module:function"]),
        ({"schedule": {"timezone": "UTC"}}, "schedule.cron", ["missing"]),
    ],
)
def test_a_wrong_yaml_names_the_keys_path_and_what_may_stand_there(
    tmp_path: Path, store: Path, keys: dict[str, Any], path: str, choices: list[str]
) -> None:
    file = pipeline(tmp_path, **keys)
    result = call("status", file, "--store", store, "--json")
    assert result.status == 2
    message = str(result.error["message"])
    assert str(file) in message and f" {path} " in message.replace(f"{file}: ", " ") + " ", message
    for choice in choices:
        assert choice in result.err, choice
    assert not store.exists()


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [", "just text", "\tname: x", "name: x\nname2: *unknown\n"])
def test_a_yaml_that_is_none(tmp_path: Path, store: Path, text: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    for arguments in (["status", file], ["retrain", file], ["ingest", file, tmp_path]):
        result = call(*arguments, "--store", store, "--json")
        assert result.status == 2
        assert str(file) in result.told()


def test_wrong_contracts(tmp_path: Path, store: Path) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    file = pipeline(tmp_path / "p", contract="mine.yaml")
    cases = {
        "expectation: []": "expectation",
        "expectations:\n  - type: expect_nothing\n": "expectations.0.type",
        "expectations:\n  - type: expect_column_values_to_not_be_null\n    kwargs: {column: colour}\n": "colour",
        "expectations:\n  - type: expect_column_max_to_be_between\n    kwargs: {column: width, min: 1}\n": "min",
        "[": "mine.yaml",
    }
    assert call("ingest", file, tmp_path / "fine", "--store", store, "--json").status == 2  # no such contract
    for text, named in cases.items():
        (tmp_path / "p" / "mine.yaml").write_text(text)
        result = call("ingest", file, tmp_path / "fine", "--store", store, "--json")
        assert result.status == 2, text
        assert named in result.told()
    assert not (store / "snapshots").exists()
    # An expectation that fails refuses the batch, and says which.
    (tmp_path / "p" / "mine.yaml").write_text(
        "expectations:\n  - type: expect_column_values_to_be_between\n    kwargs: {column: width, min_value: 100}\n"
    )
    document, result = ingest(file, tmp_path / "fine", "--batch", "narrow", "--store", store)
    assert (result.status, document["outcome"], document["accepted"]) == (3, "refused", 0)
    assert "expect_column_values_to_be_between" in document["sentence"]
    assert rows(store, "select success from validations where batch = 'narrow'") == [{"success": False}]


def test_wrong_usage_is_status_2(tmp_path: Path, store: Path, strict: Path) -> None:
    for arguments in (
        ["status"],
        ["status", "nosuch"],
        ["status", "No Such"],
        ["status", strict, "--colour"],
        ["frobnicate"],
        ["rollback", strict],
        ["promote", strict, "--version", "abc"],
        ["query", "select 1", "--format", "xml"],
    ):
        assert call(*arguments, "--store", store, "--json").status == 2, arguments
        assert call(*arguments, "--store", store).status == 2, arguments


# --- stores and servers that cannot be used ----------------------------------------------------------

SECRET = "hush-hush-secret"


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://user:{SECRET}@bucket/prefix",
        f"s3://{SECRET}@bucket",
        f"s3://bucket/prefix?key={SECRET}",
        f"s3://bucket/prefix#{SECRET}",
        f"file://user:{SECRET}@host/folder",
    ],
)
def test_a_store_with_user_information_is_not_echoed(strict: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["status", strict], ["retrain", strict], ["query", "select 1"], ["doctor"], ["report", "x"]):
        result = call(*arguments, "--store", uri, "--json")
        assert result.status == 2
        assert SECRET not in result.told()
    monkeypatch.setenv("LEPTONFLOW_STORE", uri)
    result = call("status", strict, "--json")
    assert result.status == 2 and SECRET not in result.told()


@pytest.mark.parametrize("uri", ["ftp://host/x", "http://host/x", "s3://", "s3:///x", "s3://UPPER/x", "file://host/x"])
def test_a_store_of_no_known_kind(strict: Path, uri: str) -> None:
    result = call("status", strict, "--store", uri, "--json")
    assert result.status == 2
    assert "s3://" in str(result.error["expected"])


def test_a_store_that_cannot_be_written(tmp_path: Path, strict: Path) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    (tmp_path / "file").write_text("a file where a folder should be")
    places = [tmp_path / "file" / "store", Path("/proc/leptonflow"), tmp_path / "file"]
    if os.geteuid() != 0:  # root writes wherever it likes
        (tmp_path / "fixed").mkdir(mode=0o555)
        places.append(tmp_path / "fixed")
    for place in places:
        for arguments in (["ingest", strict, tmp_path / "fine"], ["retrain", strict]):
            result = call(*arguments, "--store", place, "--json")
            assert result.status == 1, (place, result.told())
            assert str(place) in result.told()
            assert result.error["hint"], result.told()


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path: Path, strict: Path, store: Path) -> None:
    good(tmp_path / "fine", CLASSES, 3)

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))  # a write beyond fails as it does on a full disk

    result = command("ingest", strict, tmp_path / "fine", "--store", store, "--json", cwd=tmp_path, preexec=full)
    assert result.status == 1, result.told()
    assert str(store) in result.err
    assert not (store / "snapshots").exists()
    document, _ = ingest(strict, tmp_path / "fine", "--store", store)
    assert (document["outcome"], document["accepted"]) == ("accepted", 6)


def test_an_s3_endpoint_where_nobody_listens(tmp_path: Path, strict: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    port = servers.free_ports(1)[0]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    every = (
        ["status", strict], ["retrain", strict], ["ingest", strict, tmp_path / "fine"], ["query", "from runs"],
        ["promote", strict, "--version", "a", "--reason", "b"], ["report", "abc"], ["predict", strict, "x.png"],
        ["doctor"],
    )  # fmt: skip
    for result in together(tmp_path, [[*arguments, "--store", "s3://bucket/prefix", "--json"] for arguments in every]):
        assert result.status == 1, result.told()
        assert f"127.0.0.1:{port}" in result.told()
        assert SECRET not in result.told()
        if "checks" in result.document:
            assert {c["name"]: c["ok"] for c in result.document["checks"]}["store"] is False
        else:
            assert result.error["hint"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:{port}")
    result = call("status", strict, "--store", "s3://bucket/prefix", "--json")
    assert result.status == 2
    assert SECRET not in result.told()


def test_a_bucket_that_is_not_there(tmp_path: Path, strict: Path, s3_server: servers.Server) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    for arguments in (["status", strict], ["retrain", strict], ["ingest", strict, tmp_path / "fine"]):
        result = call(*arguments, "--store", "s3://no-such-bucket/x", "--json")
        assert result.status == 1, result.told()
        assert "no-such-bucket" in result.told()
        assert "doctor --fix" in str(result.error["hint"])
        assert servers.SECRET_KEY not in result.told()


def test_wrong_s3_credentials(
    tmp_path: Path, strict: Path, s3_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    result = call("status", strict, "--store", f"s3://{s3_server.bucket}/x", "--json")
    assert result.status == 1
    assert SECRET not in result.told()
    assert "AWS_" in str(result.error["hint"])


def test_a_prefect_server_that_does_not_answer(
    tmp_path: Path, strict: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good(tmp_path / "fine", CLASSES, 20)
    ingest(strict, tmp_path / "fine", "--store", store)
    port = servers.free_ports(1)[0]
    for url in (f"http://127.0.0.1:{port}/api", f"http://user:{SECRET}@127.0.0.1:{port}/api", f"nonsense-{port}"):
        monkeypatch.setenv("PREFECT_API_URL", url)
        for result in (call("retrain", strict, "--store", store, "--json"), call("doctor", "--store", store, "--json")):
            assert result.status == 1, result.told()
            assert str(port) in result.told() or url.startswith("nonsense")
            assert SECRET not in result.told()
            assert "PREFECT_API_URL" in result.told()
    assert not (store / "runs").exists()

"""A batch as a whole, and beside those before it: the limit, what is known, recalled or in conflict, the classes."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from tests.e2e.bad_input.sources import CLASSES, LABELS, PIXELS, files, pair
from tests.e2e.helpers import call, good, ingest, picture, pipeline, quarantined, rows


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
    assert call("status", named, "--store", store, "--json").document["classes"] == ["0", "2"]  # no example is a 1

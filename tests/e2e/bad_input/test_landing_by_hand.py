"""Landing, where others write as well: batches copied there by hand, open ones, and files that change afterwards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from leptonflow.core import deadlines, pipeline_files, progress
from leptonflow.data.dataset import admission, known_examples
from leptonflow.data.ingest import landing
from leptonflow.storage.address import open_store
from tests.e2e.bad_input.sources import CLASSES, GOOD_ROWS, another_input, bad_images, files, hostile_names, table
from tests.e2e.helpers import call, good, ingest, picture, quarantined


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

    config = pipeline_files.load_config(str(lenient))
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
    outcome = admission.admit(open_store(store.as_uri()), pipeline_files.load_config(str(lenient)), "by-hand")
    # The table names what lies in `images/`: that folder is no class.
    assert (outcome.arrived, outcome.accepted) == (13, 10)
    assert quarantined(store, "by-hand") == {
        "labels.csv[10]": "path-escape",
        "labels.csv[11]": "path-escape",
        "labels.csv[12]": "missing-file",
    }
    flat = store / "landing/small/flat"
    flat.mkdir()
    for number in range(3):
        picture(970 + number).save(flat / f"{number}.png")
    lines = ["0.png,cat", "1.png,dog", "2.png,bird", "../by-hand/images/0.png,cat", "link.png,dog", "no.png,dog"]
    (flat / "labels.csv").write_text("\n".join(["path,label", *lines]))
    os.symlink(tmp_path / "secret.png", flat / "link.png")
    (flat / "_READY").touch()
    outcome = admission.admit(open_store(store.as_uri()), pipeline_files.load_config(str(lenient)), "flat")
    assert (outcome.arrived, outcome.accepted) == (6, 2)
    assert quarantined(store, "flat") == {
        "labels.csv[2]": "unknown-label",
        "labels.csv[3]": "path-escape",
        "labels.csv[4]": "path-escape",
        "labels.csv[5]": "missing-file",
    }


def test_what_changed_after_landing_is_quarantined(tmp_path: Path, lenient: Path, store: Path) -> None:
    good(tmp_path / "fine", CLASSES, 4)
    opened, config = open_store(store.as_uri()), pipeline_files.load_config(str(lenient))
    landing.land(opened, config, tmp_path / "fine", "b", known_examples.index(opened, config))
    picture(990).save(store / "landing/small/b/cat/00000.png")
    (store / "landing/small/b/dog/00004.png").unlink()
    picture(991).save(store / "landing/small/b/dog/added.png")
    document, _ = ingest(lenient, tmp_path / "fine", "--batch", "b", "--store", store)
    assert (document["arrived"], document["accepted"]) == (8, 6)
    assert quarantined(store, "b") == {"cat/00000.png": "changed-after-landing", "dog/00004.png": "missing-file"}
    assert "added.png" in call("doctor", "--store", store).told()


def test_an_open_batch_that_another_writer_began_is_left_alone(tmp_path: Path, strict: Path, store: Path) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    (store / "landing/small/theirs/cat").mkdir(parents=True)
    picture(1).save(store / "landing/small/theirs/cat/a.png")
    result = call("ingest", strict, tmp_path / "fine", "--batch", "theirs", "--store", store, "--json")
    assert result.status == 2
    assert files(store, "theirs") == ["cat/a.png"]


def test_what_a_batch_by_hand_was_read_as_is_told_to_whoever_retrains(
    tmp_path: Path, lenient: Path, store: Path
) -> None:
    from tasks.validate import validate

    for first, split in ((10, "Train"), (20, "valid")):
        good(store / "landing/small/split" / split, CLASSES, 2, first=first)
    (store / "landing/small/split/_READY").touch()
    told: list[str] = []
    config = pipeline_files.load_config(str(lenient))
    with progress.listen(None, told.append):
        outcome = validate.fn(store.as_uri(), config, "split", deadlines.start(config, "validate"))
    assert outcome.accepted == 8
    assert told[0].startswith("batch split: Train, valid: read as split folders")

"""What a dataset holds when more arrives: a class that is added, and labels that are put right."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli import batch_lines
from leptonflow.data.dataset import dataset_contents, dataset_state, known_examples
from leptonflow.data.ingest import intake
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.config import Pipeline, Quarantine, parse

pytestmark = pytest.mark.usefixtures("admission_tools")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def config(*classes: str) -> Pipeline:
    document = {
        "name": "p", "workload": "image_classification", "input": [4, 4, 1], "classes": list(classes),
        "quarantine": {"limit": 0.5}, "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}],
    }  # fmt: skip
    return parse(document, where="test", folder=Path())


def pictures(folder: Path, seed: int, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        values = np.random.default_rng(seed * 100 + number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")


def ingest(store: Store, pipeline: Pipeline, source: Path, **given: Any) -> dict[str, Any]:
    return intake.ingest(store, pipeline, source, None, **given)[0]


def labels(store: Store) -> list[str]:
    return sorted(label for _, label in dataset_contents.pairs(store, dataset_state.snapshots(store, "p").entries))


def test_a_class_that_is_added_takes_what_waited_for_it(store: Store, tmp_path: Path) -> None:
    for seed, label in enumerate(("cat", "dog", "fox")):
        pictures(tmp_path / "s" / label, seed)
    (tmp_path / "s" / "dog" / "broken.png").write_bytes(b"no image")
    first = ingest(store, config("cat", "dog"), tmp_path / "s")
    assert first["reasons"] == {"unknown-label": 3, "unreadable-image": 1}
    more = config("cat", "dog", "fox")
    (told,) = known_examples.left_behind(store, more, dataset_state.snapshots(store, "p"))
    assert f"batch {first['batch']}: 3 quarantined rows" in told
    second = ingest(store, more, tmp_path / "s")
    assert (second["outcome"], second["accepted"], second["known"]) == ("accepted", 3, 6)
    assert labels(store) == ["cat"] * 3 + ["dog"] * 3 + ["fox"] * 3
    assert known_examples.left_behind(store, config("cat", "dog"), dataset_state.snapshots(store, "p")) == []
    third = ingest(store, more, tmp_path / "s")
    assert (third["outcome"], third["batch"]) == ("reused", second["batch"])
    assert known_examples.left_behind(store, more, dataset_state.snapshots(store, "p")) == []


def test_a_class_that_is_added_takes_its_rows_of_an_array(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "arrays"
    source.mkdir()
    np.save(source / "x_data.npy", np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8))
    np.save(source / "x_labels.npy", np.arange(9) % 3)
    assert ingest(store, config("cat", "dog"), source)["reasons"] == {"label-out-of-range": 3}
    second = ingest(store, config("cat", "dog", "fox"), source)
    assert (second["accepted"], second["known"]) == (3, 6)


def test_a_corrected_label_can_be_corrected_back(store: Store, tmp_path: Path) -> None:
    pipeline = config("cat", "dog")
    for seed, label in enumerate(("cat", "dog")):
        pictures(tmp_path / "s" / label, seed)
    ingest(store, pipeline, tmp_path / "s")
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    shutil.move(tmp_path / "t" / "cat" / "0.png", tmp_path / "t" / "dog" / "was_cat.png")
    told = ingest(store, pipeline, tmp_path / "t")
    assert told["reasons"] == {"conflicting-label": 1} and told["corrected"] == []
    assert len(ingest(store, pipeline, tmp_path / "t", correct=True)["corrected"]) == 1
    assert labels(store) == ["cat"] * 2 + ["dog"] * 4
    back = ingest(store, pipeline, tmp_path / "s", correct=True)
    assert [(c["old"], c["new"]) for c in back["corrected"]] == [("dog", "cat")]
    assert labels(store) == ["cat"] * 3 + ["dog"] * 3
    forth = ingest(store, pipeline, tmp_path / "t", correct=True)
    assert [(c["old"], c["new"]) for c in forth["corrected"]] == [("cat", "dog")]


def test_a_source_that_contradicts_itself_corrects_nothing(store: Store, tmp_path: Path) -> None:
    pipeline = config("cat", "dog")
    for seed, label in enumerate(("cat", "dog")):
        pictures(tmp_path / "s" / label, seed)
    ingest(store, pipeline, tmp_path / "s")
    for label in ("cat", "dog"):
        (tmp_path / "t" / label).mkdir(parents=True)
        shutil.copy(tmp_path / "s" / "cat" / "0.png", tmp_path / "t" / label / "x.png")
    told = ingest(store, pipeline, tmp_path / "t", correct=True)
    assert told["corrected"] == [] and labels(store) == ["cat"] * 3 + ["dog"] * 3


@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_a_source_with_a_copy_is_corrected_and_the_original_is_no_duplicate(
    store: Store, tmp_path: Path, ending: str
) -> None:
    """The copy has the very bytes of the original (png), or its pixels alone (bmp)."""
    pipeline, source = config("cat", "dog"), tmp_path / "s"
    for seed, label in enumerate(("cat", "dog")):
        pictures(source / label, seed)
    if ending == "png":
        shutil.copy(source / "cat" / "0.png", source / "cat" / "copy.png")
    else:
        Image.open(source / "cat" / "0.png").save(source / "cat" / "copy.bmp")
    assert ingest(store, pipeline, source)["reasons"] == {"duplicate": 1}
    shutil.move(source / "cat" / "1.png", source / "dog" / "was_cat.png")
    assert ingest(store, pipeline, source)["reasons"]["conflicting-label"] == 1
    for batch in (None, "again"):
        told = intake.ingest(store, pipeline, source, batch, correct=True)[0]
        assert told["quarantined"] == 0 and told["known"] == told["arrived"] == 7, batch
        assert len(told["corrected"]) == (batch is None)
    assert labels(store) == ["cat"] * 2 + ["dog"] * 4
    for name in ("0.png", f"copy.{ending}"):  # the copy has to move too: one in either class corrects nothing
        shutil.move(source / "cat" / name, source / "dog" / f"was_cat_{name}")
        assert len(ingest(store, pipeline, source, correct=True)["corrected"]) == (name != "0.png")
    assert labels(store) == ["cat"] + ["dog"] * 5


def test_that_a_label_is_newer_is_told_beside_a_conflict_in_the_batch(store: Store, tmp_path: Path) -> None:
    """Both are of one rule, of which a single row is shown."""
    pipeline, source = config("cat", "dog"), tmp_path / "s"
    for seed, label in enumerate(("cat", "dog")):
        pictures(source / label, seed)
    ingest(store, pipeline, source)
    shutil.move(source / "dog" / "1.png", source / "cat" / "was_dog.png")
    pictures(source / "new", 7, count=1)
    for label in ("cat", "dog"):
        shutil.copy(source / "new" / "0.png", source / label / "again.png")
    shutil.rmtree(source / "new")
    (found,) = ingest(store, pipeline, source)["quarantine"]
    assert (found["rule"], found["rows"], found["newer"]) == ("conflicting-label", 3, 1)
    assert "in the batch with the labels 'cat' (cat/again.png), 'dog' (dog/again.png)" in found["reason"]
    assert batch_lines.such_as(found).endswith(
        "; of 1 the dataset has another label: `ingest --correct` uses the newer label"
    )
    assert "of 1 the dataset" not in batch_lines.such_as({**found, "rows": 1})


CAFE, CAFE_APART = "caf\u00e9", "cafe\u0301"  # composed, and as macOS writes it


def test_labels_are_compared_as_nfc_and_lookalikes_are_told(store: Store, tmp_path: Path) -> None:
    for seed, label in enumerate((CAFE, CAFE_APART, "Tea", "tea ")):
        pictures(tmp_path / "s" / label, seed)
    document, warnings = intake.ingest(store, config(CAFE_APART, "Tea", "tea "), tmp_path / "s", None)
    assert (document["accepted"], document["quarantined"]) == (12, 0)
    assert labels(store) == ["Tea"] * 3 + [CAFE] * 6 + ["tea "] * 3
    told = [line for line in warnings if "look alike" in line]
    assert len(told) == 2
    assert "'cafe\\u0301', 'caf\\xe9' look alike and are taken as one label" in told[1]
    assert "'Tea', 'tea ' look alike and are taken as 2 different labels" in told[0]
    again, _ = intake.ingest(store, config(CAFE, "Tea", "tea "), tmp_path / "s", None)
    assert again["outcome"] == "reused"


def test_labels_of_a_table_too(store: Store, tmp_path: Path) -> None:
    pictures(tmp_path / "s" / CAFE_APART, 1, count=4)
    rows = [f"{CAFE_APART}/{n}.png,{label}" for n, label in enumerate((CAFE, CAFE_APART, "Tea", " tea"))]
    (tmp_path / "s" / "t.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    document, warnings = intake.ingest(store, config(CAFE, "Tea", "tea"), tmp_path / "s" / "t.csv", None)
    assert document["accepted"] == 4
    assert labels(store) == ["Tea", CAFE, CAFE, "tea"]
    assert sum("look alike" in line for line in warnings) == 2


def test_spaces_around_a_label_in_a_table_are_not_another_label(store: Store, tmp_path: Path) -> None:
    pictures(tmp_path / "s" / "tea", 1, count=2)
    (tmp_path / "s" / "t.csv").write_text("path,label\ntea/0.png,tea\ntea/1.png, tea \n", encoding="utf-8")
    document, warnings = intake.ingest(store, config("tea", "milk"), tmp_path / "s" / "t.csv", None)
    assert document["accepted"] == 2 and labels(store) == ["tea", "tea"]
    assert not [line for line in warnings if "look alike" in line]


def test_a_dataset_of_before_reads_its_labels_as_nfc(store: Store) -> None:
    from leptonflow.data.dataset.dataset_contents import content_digest, tables
    from leptonflow.data.dataset.part_files import Accepted, write_part

    accepted = [Accepted(f"{n}", f"{n}", CAFE_APART, "s", None, None, {"width": n}, bytes(16)) for n in range(2)]
    part = write_part(store, config(CAFE, "Tea"), "b", "prep", accepted)
    assert part is not None
    found = [label for table in tables(store, [part], [], ("id", "label")) for label in table["label"].to_pylist()]
    assert found == [CAFE, CAFE]
    assert content_digest([("0", CAFE)], "prep") != content_digest([("0", CAFE_APART)], "prep")


def arrays(folder: Path, data: Any) -> Path:
    folder.mkdir()
    np.save(folder / "X.npy", data)
    np.save(folder / "y.npy", np.arange(len(data)) % 2)
    return folder


def test_a_row_of_an_array_is_judged_by_the_scale_of_the_source_it_lies_in_now(store: Store, tmp_path: Path) -> None:
    pipeline = config("cat", "dog").model_copy(update={"quarantine": Quarantine(limit=1.0)})
    units = np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    mixed = arrays(tmp_path / "mixed", np.concatenate([units, np.rint(units * 255)]))
    assert ingest(store, pipeline, mixed)["reasons"] == {"out-of-range": 6}
    assert ingest(store, pipeline, arrays(tmp_path / "units", units))["accepted"] == 3
    dark = np.random.default_rng(1).integers(0, 3000, (4, 8, 8), dtype=np.uint16)
    assert ingest(store, pipeline, arrays(tmp_path / "dark", dark))["reasons"] == {"out-of-range": 4}
    dark[3] *= 20
    assert ingest(store, pipeline, arrays(tmp_path / "bright", dark))["accepted"] == 4


def test_rows_with_the_same_bytes_and_another_meaning_are_other_examples(store: Store, tmp_path: Path) -> None:
    pipeline = config("cat", "dog")
    masks = np.random.default_rng(0).random((4, 8, 8)) > 0.5
    assert ingest(store, pipeline, arrays(tmp_path / "bool", masks))["accepted"] == 4
    assert ingest(store, pipeline, arrays(tmp_path / "float", masks.astype(np.float32)))["known"] == 4
    assert ingest(store, pipeline, arrays(tmp_path / "dark", masks.astype(np.uint8)))["accepted"] == 4


def test_a_row_that_was_accepted_stays_known_where_another_was_its_duplicate(store: Store, tmp_path: Path) -> None:
    pipeline = config("cat", "dog").model_copy(update={"quarantine": Quarantine(limit=1.0)})
    rows = np.random.default_rng(0).random((4, 8, 8), dtype=np.float32)
    rows[2] = rows[0]
    first = ingest(store, pipeline, arrays(tmp_path / "a", rows))
    assert (first["accepted"], first["reasons"]) == (3, {"duplicate": 1})
    grown = ingest(store, pipeline, arrays(tmp_path / "b", np.concatenate([rows, 1 - rows[:1]])))
    assert (grown["accepted"], grown["known"], grown["quarantined"]) == (1, 4, 0)

"""Which layout names have: what is a class, a split, a folder around the data, litter, a pair of arrays, a table."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from leptonflow.data.ingest import layouts
from leptonflow.data.ingest.source_layout import layout, pair_up
from leptonflow.workloads.image_classification.workload import WORKLOAD


def tree(*folders: str, each: int = 2) -> list[str]:
    return [f"{folder}/{n}.png" for folder in folders for n in range(each)]


def labels(names: list[str], classes: Collection[str] | None = None) -> set[str | None]:
    found = layout(names, classes)
    assert found.kind == "folders"
    return {layouts.label_of(name, found.roots) for name in names if not layouts.is_litter(name)}


@pytest.mark.parametrize(
    "splits",
    [("train", "val", "test"), ("Training", "VALIDATION"), ("dev", "eval"), ("train",), ("train_set", "test-images"),
     ("fold1", "fold2", "fold3"), ("2023", "2024")],
)  # fmt: skip
def test_split_folders_are_never_classes(splits: tuple[str, ...]) -> None:
    names = tree(*(f"{split}/{kind}" for split in splits for kind in ("cat", "dog")))
    found = layout([*names, "README.md", "annotations/a.xml"])
    assert labels(names) == {"cat", "dog"} and found.split
    assert {layouts.split_of(name, found.roots) for name in names} == set(splits)
    assert all(split in found.warnings[0] for split in splits)


def test_splits_may_lack_a_class_be_wrapped_nested_or_without_classes() -> None:
    assert labels(tree("train/cat", "train/dog", "val/dog")) == {"cat", "dog"}
    assert labels(tree(*(f"seg_{s}/seg_{s}/{c}" for s in ("train", "test") for c in "ab"))) == {"a", "b"}
    assert labels(tree(*(f"x/{f}/{s}/{c}" for f in ("f1", "f2") for s in ("train", "val") for c in "ab"))) == {"a", "b"}
    names = tree("train", "test")
    assert labels(names) == {None} and "have no label" in layout(names).warnings[0]
    assert "name them under `classes`" in layout(names).warnings[0]
    kaggle = layout(tree("train/cat", "train/dog", "test"))
    assert kaggle.roots == ("train", "test") and "The files in test have no label" in kaggle.warnings[0]
    mixed = tree("train/cat", "train/dog", "test/cat", "test/dog", "samples")
    assert labels(mixed) == {"cat", "dog", None} and "samples have no label" in layout(mixed).warnings[0]


def test_a_class_may_be_called_like_a_split() -> None:
    assert labels(tree("train", "car", "bus")) == {"train", "car", "bus"}
    (told,) = layout(tree("train", "car", "bus")).warnings
    assert "train is read as a class" in told and "`classes`" in told
    assert layout(tree("train", "car"), ["train", "car"]).warnings == ()
    assert layout(tree("test", "car"), ["bus", "car"]).warnings == ()
    assert layout(tree("caf\u0065\u0301/left", "caf\u0065\u0301/right"), ["caf\u00e9"]).roots == ()
    assert labels(tree("train", "test"), ["train", "test"]) == {"train", "test"}
    nested = tree("cat/left", "cat/right", "dog/left", "dog/right")
    assert labels(nested, ["cat", "dog"]) == {"cat", "dog"}
    assert labels(nested) == {"left", "right"} and "`classes`" in layout(nested).warnings[0]


def test_masks_beside_images_are_no_class() -> None:
    found = layout([*tree("images", "masks"), "Annotations/a.xml"])
    assert found.apart == ("masks", "Annotations")
    assert found.ignores("masks/0.png") and not found.ignores("images/0.png")
    assert "Annotations, masks" in found.warnings[0]
    assert layout(tree("train/images", "train/masks", "val/images", "val/masks")).apart == ("train/masks", "val/masks")
    assert labels(tree("mask", "no_mask")) == {"mask", "no_mask"}
    assert not layout(tree("images", "masks"), ["images", "masks"]).apart


def test_folders_around_the_data_are_descended() -> None:
    assert labels(tree("photos/flowers/rose", "photos/flowers/tulip")) == {"rose", "tulip"}
    assert "photos/flowers" in layout(tree("photos/flowers/rose", "photos/flowers/tulip")).warnings[0]
    assert labels(tree("cat")) == {"cat"} and labels(tree("cat/2023"), ["cat", "dog"]) == {"cat"}
    assert layout(["w/X.npy", "w/y.npy"]).pairs == (("w/X.npy", "w/y.npy"),)
    assert layout(["w/t.csv", "w/a.png"], None, lambda name: True).table == "w/t.csv"
    deep = "/".join("d" * 3000)
    assert layout([f"{deep}/a.png"]).kind == "folders"


@pytest.mark.parametrize(
    "name",
    ["Thumbs.db", "cat/thumbs.DB", "desktop.ini", "ehthumbs.db", "@eaDir/cat/a.png", "cat/@eaDir/a.png@SynoEAStream",
     "__MACOSX/cat/._a.png", "$RECYCLE.BIN/a.png", "System Volume Information/x", "lost+found/x", ".DS_Store",
     ".ipynb_checkpoints/a.png", "@Recycle/a.png", "FOUND.000/a.chk", "node_modules/x/a.png",
     "cat/ZbThumbnail.info", "Temporary Items/x"],
)  # fmt: skip
def test_what_systems_leave_behind_is_hidden(name: str) -> None:
    assert layouts.is_hidden(name)


@pytest.mark.parametrize(
    ("name", "litter"),
    [("cat/a.xml", True), ("README", True), ("Readme.rst", True), ("LICENSE.txt", True), ("cat/a.TXT", True),
     ("cat/classes.json", True), ("a.csv", True), ("cat/a.png", False), ("cat/a", False), ("cat/photo.weird", False),
     ("cat/~$notes.docx", True), ("cat/a.tfw", True), ("classes.names", True), ("readme.png", False),
     ("cat/a.png.tmp", False)],
)  # fmt: skip
def test_documents_and_annotations_are_no_images(name: str, litter: bool) -> None:
    assert layouts.is_litter(name, WORKLOAD.suffixes) == litter and not layouts.is_hidden(name)


@pytest.mark.parametrize(
    "pair",
    [("X", "y"), ("x", "y"), ("images", "labels"), ("data", "labels"), ("a_Data", "a_Labels"), ("X_train", "y_train"),
     ("Xtrain", "ytrain"), ("trainX", "trainY"), ("train_images", "train_labels"), ("images_test", "labels_test"),
     ("x_data", "x_labels"), ("x_data", "y_data"), ("kmnist-train-imgs", "kmnist-train-labels"), ("X", "targets")],
)  # fmt: skip
def test_arrays_are_paired_by_their_names(pair: tuple[str, str]) -> None:
    names = [f"{pair[0]}.npy", f"{pair[1]}.NPY"]
    assert pair_up(names) == [tuple(names)]
    assert layout([*names, "notes.txt"]).pairs == (tuple(names),)


def test_arrays_that_do_not_pair_say_what_was_looked_for() -> None:
    for names in (["X.npy", "z.npy"], ["a.npy"], ["data.npy", "images.npy", "labels.npy"]):
        found = layout(names)
        assert found.kind == "folders" and "x_train and y_train" in found.warnings[0] and names[0] in found.warnings[0]
    both = layout(["X_train.npy", "y_train.npy", "X_test.npy", "y_test.npy"])
    assert len(both.pairs) == 2 and "X_test.npy with y_test.npy" in both.warnings[0]
    assert layout(["X.npy", "y.npy", *tree("cat", "dog")]).kind == "folders"  # arrays made of the images
    assert layout(["p_data.npy", "p_labels.npy", *tree("cat", "dog")]).kind == "npy"


def test_a_table_beside_folders() -> None:
    def has(name: str) -> bool:
        return name in ("train.csv", "labels.csv")

    assert layout(["train.csv", "test.csv", *tree("images")], None, has).table == "train.csv"
    assert layout(["train.csv", "sample.csv", *tree("train_images", "test_images")], None, has).table == "train.csv"
    both = layout(["sample_submission.csv", "train.csv", *tree("train_images")], None, lambda name: True)
    assert both.table == "train.csv"
    assert layout(["labels.csv", *tree("images")], ["images", "cat"], has).kind == "folders"
    beside = layout(["labels.csv", *tree("rose", "tulip")], None, has)
    assert beside.kind == "folders" and "pass the table itself" in beside.warnings[0]
    assert layout(["notes.csv", *tree("images/cat", "images/dog")], None, has).roots == ("images",)
    without = layout(["t.csv", "a.png", "annotations/a.xml"], None, has)
    assert without.kind == "folders" and any("file_name" in w and "category" in w for w in without.warnings)
    breeds = layout(["train.csv", *tree("train", "test")])
    assert any("train.csv names no labels" in warning and "--label-column" in warning for warning in breeds.warnings)
    assert not any("notes.csv" in w for w in layout(["notes.csv", *tree("cat")], ["cat", "dog"], has).warnings)
    several = layout(["a.parquet", "b.parquet"], None, lambda name: True)
    assert "one of them at a time" in several.warnings[0]


def test_a_table_that_cannot_be_read_says_why() -> None:
    names = ["labels.csv", *tree("images")]
    (told,) = layout(names, None, None, lambda name: "not UTF-8: byte 7").warnings
    assert told == "labels.csv cannot be read as a table: not UTF-8: byte 7"
    folders = layout(["labels.csv", *tree("rose", "tulip")], None, None, lambda name: "line 2: no JSON")
    assert folders.kind == "folders" and "cannot be read as a table: line 2" in folders.warnings[0]


def test_the_sentence_about_litter_speaks_of_masks_and_of_one_file_too() -> None:
    assert layouts.litter_warning(["a.csv"]).startswith("1 file is ignored as not data, by name or folder (1 .csv)")
    assert layouts.litter_warning(["masks/a.png", "masks/b.png"]).startswith("2 files are ignored as not data, by name")

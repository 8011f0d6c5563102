"""Examples that belong together: how a group is found, recorded and split, however the data grows."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leptonflow.core.hashing import sha256
from leptonflow.data.dataset import (
    admission,
    corrections,
    dataset_contents,
    dataset_state,
    example_sets,
    holdout_split,
    reencoding,
)
from leptonflow.data.ingest import example_groups, intake, label_columns, label_tables, landing, source_layout
from leptonflow.data.validation import examination
from leptonflow.gate import evidence
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError, UsageError
from schemas.groups import Group
from schemas.records import ModelManifest, SnapshotRef
from tests.batches import CONFIG, WORKLOAD, npy, put, random_rows

TAKE = "{label}_{speaker}_{take}.png"


def config(group: Any, workload: str = "text_classification", **keys: Any) -> Pipeline:
    document = {
        "name": "p", "workload": workload, "classes": ["no", "yes"], "training": {"folds": 2}, "group": group,
        "input": {"length": 8} if workload == "text_classification" else [4, 4, 1],
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}], **keys,
    }  # fmt: skip
    return parse({k: v for k, v in document.items() if v is not None}, where="test", folder=Path())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


# --- the YAML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("patient", "patient"),
        ({"column": "patient"}, "patient"),
        ("{label}_{speaker}.wav", "speaker"),
        ("{group}/{label}/{take}.wav", "group"),
        ({"pattern": TAKE, "field": "speaker"}, "speaker"),
        ({"folder": "parent"}, "folder"),
    ],
)
def test_a_group_is_a_column_a_field_of_a_pattern_or_the_parent_folder(given: Any, name: str) -> None:
    found = config(given)
    assert found.group is not None and found.group.name == name
    again = parse({**found.model_dump(mode="json"), "folder": Path()}, where="test", folder=Path())
    assert again.group == found.group


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (TAKE, "one of speaker, take"),
        ({"pattern": TAKE, "field": "patient"}, "one of speaker, take"),
        ({"pattern": "{label}.png", "field": "label"}, "other fields"),
        ({"pattern": "no field"}, "with fields in braces"),
        ({"pattern": "{a}{b}.png", "field": "a"}, "text between two fields"),
        ({"pattern": "{a:2}_{b}.png", "field": "a"}, "a name in braces and no more"),
        ({"pattern": "{a"}, "with fields in braces"),
        ({"column": "a", "folder": "parent"}, "one of column, pattern and folder"),
        ({}, "one of column, pattern and folder"),
        ({"column": "a", "field": "b"}, "field only with pattern"),
        ({"columm": "a"}, "column"),
        (3, "group"),
    ],
)
def test_another_group_is_refused_with_what_is_expected(given: Any, told: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        config(given)
    assert "group" in str(error.value) and told in f"{error.value.expected} {error.value.hint}"


# --- how it is found ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label", "group"),
    [
        ("yes/yes_anna_1.png", "yes", "anna"),
        ("yes_anna_1.png", "0", "anna"),  # the label is written otherwise in the table
        ("stop_sign/stop_sign_anna_1.png", "stop_sign", "anna"),
        ("no/no_Zoë_1.png", "no", "Zo\u00eb"),
        ("yes/yes_anna_1.jpg", "yes", None),
        ("yes/yes_anna_1_b.png", "yes", None),  # anna or anna_1: neither is guessed
        ("yes/anna.png", "yes", None),
    ],
)
def test_by_a_pattern_of_the_name(name: str, label: str, group: str | None) -> None:
    found = example_groups.of_name(Group(pattern=TAKE, field="speaker"), name, label, ())
    assert found.group == group and (found.why is None) == (group is not None)


def test_by_a_pattern_of_the_path() -> None:
    group = Group(pattern="{speaker}/{label}/{take}.png", field="speaker")
    assert example_groups.of_name(group, "data/anna/yes/1.png", "yes", ()).group == "anna"
    assert "does not fit" in str(example_groups.of_name(group, "yes/1.png", "yes", ()).why)


@pytest.mark.parametrize(
    ("name", "roots", "group"),
    [
        ("yes/anna/1.png", (), "anna"),
        ("yes/1.png", (), None),
        ("yes/yes/1.png", (), "yes"),
        ("train/yes/anna/1.png", ("train", "test"), "anna"),
        ("train/yes/1.png", ("train", "test"), None),
        ("anna/1.png", None, "anna"),  # a path in a table
        ("1.png", None, None),
    ],
)
def test_by_the_parent_folder(name: str, roots: tuple[str, ...] | None, group: str | None) -> None:
    found = example_groups.of_name(Group(folder="parent"), name, "yes", roots)
    assert found.group == group and (found.why is None) == (group is not None)


def test_a_number_is_the_same_group_though_an_empty_cell_makes_its_column_floats(tmp_path: Path) -> None:
    import pandas as pd

    columns = label_columns.Columns(cells=("text",), group="patient")
    texts = {"text": ["a b", "c d"], "label": ["x", "y"]}
    for patients, groups in (([1, 12], ["1", "12"]), ([1, None], ["1", None]), (["1.50", "-2.00"], ["1.50", "-2"])):
        frame = pd.DataFrame({**texts, "patient": patients})
        frame.to_parquet(tmp_path / "t.parquet")
        assert label_tables.read("t.parquet", (tmp_path / "t.parquet").read_bytes(), columns).groups == groups
        lines = frame.to_json(orient="records", lines=True)
        for name, data in (("t.csv", frame.to_csv(index=False)), ("t.jsonl", lines)):
            assert label_tables.read(name, data.encode(), columns).groups == groups


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "parquet of texts", "csv of texts", "jsonl of texts"])
def test_by_a_column_of_every_kind_of_table(kind: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = [
        {"path": "a.png", "text": "a b", "label": "x", "patient": 7}, {"path": "b.png", "text": "c d", "label": "y"},
    ]  # fmt: skip
    name = f"t.{kind.split()[0]}"
    if name == "t.csv":
        data = b"path,text,label,patient\na.png,a b,x,7\nb.png,c d,y, \n"
    elif name == "t.jsonl":
        data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    else:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        data = sink.getvalue().to_pybytes()
    columns = label_columns.Columns(cells=("text",) if "texts" in kind else None, group="patient")
    found = label_tables.read(name, data, columns)
    assert (found.groups, found.labels, found.missing) == (["7", None], ["x", "y"], None)
    assert label_tables.read(name, data, columns._replace(group=None)).groups is None
    lacking = label_tables.read(name, data, columns._replace(group="doctor"))
    assert lacking.missing is not None and "a group column (doctor) is missing" in lacking.missing[1]
    assert label_tables.has_columns(name, data, columns._replace(group="doctor"))  # it is a table all the same


@pytest.mark.parametrize("group", ["patient", {"folder": "parent"}, "{patient}_{label}.png"])
def test_a_table_of_files_has_all_three(group: Any, store: Store, tmp_path: Path) -> None:
    source = tmp_path / "s"
    put(source, "anna/anna_cat.png", "bert/bert_dog.png")
    (source / "t.csv").write_text("path,label,patient\nanna/anna_cat.png,cat,anna\nbert/bert_dog.png,dog,bert\n")
    pipeline = CONFIG.model_copy(update={"group": config(group).group})
    landed = landing.land(store, pipeline, source / "t.csv", None, landing.Index())
    rows = examination.examine(store, pipeline, landing.open_batch(store, "pets", landed.batch), WORKLOAD)
    assert [(row.label, row.group, row.no_group) for row in rows] == [("cat", "anna", None), ("dog", "bert", None)]


def test_the_same_patients_in_several_classes_are_no_split(store: Store, tmp_path: Path) -> None:
    """Without groups, folders that hold the same folders are the parts of a split."""
    folders = [f"{label}/{who}" for label in ("ill", "well") for who in ("anna", "bert")]
    put(tmp_path / "s", *(f"{folder}/{n}.png" for folder in folders for n in "12"))
    pipeline = CONFIG.model_copy(update={"group": Group(folder="parent")})
    for listed in (True, False):
        name = landing.land(store, pipeline, tmp_path / "s", None, landing.Index()).batch if listed else "plain"
        if not listed:
            shutil.copytree(tmp_path / "s", tmp_path / "store" / "landing" / "pets" / name)
            (tmp_path / "store" / "landing" / "pets" / name / "_READY").touch()
        columns = label_columns.DEFAULT.grouped(pipeline.group)
        batch = landing.open_batch(store, "pets", name, None, WORKLOAD.suffixes, columns)
        rows = examination.examine(store, pipeline, batch, WORKLOAD)
        assert [f"{row.label}/{row.group}" for row in rows] == [folder for folder in folders for _ in "12"]
    parts = [f"{part}/{each}/1.png" for part in ("train", "test") for each in folders]
    split = source_layout.layout(parts, nested=True)
    assert split.split and split.roots == ("train", "test")


def test_rows_of_arrays_have_no_group(store: Store, tmp_path: Path) -> None:
    source = npy(tmp_path, random_rows(2), np.array([0, 1]))
    pipeline = CONFIG.model_copy(update={"group": config("patient").group})
    landed = landing.land(store, CONFIG, source, None, landing.Index())
    rows = examination.examine(store, pipeline, landing.open_batch(store, "pets", landed.batch), WORKLOAD)
    assert [(row.group, row.no_group) for row in rows] == [(None, "it is a row without a column to tell it by")] * 2


# --- the split ---------------------------------------------------------------------------------------


def test_folds_keep_groups_together_and_classes_apart() -> None:
    labels = np.tile([0, 0, 1], 100)
    groups = [f"g{number // 6}" for number in range(300)]
    numbers = holdout_split.folds(labels, 5, 3, groups)
    assert (numbers == holdout_split.folds(labels, 5, 3, groups)).all()
    of_group: dict[str, set[int]] = {}
    for group, number in zip(groups, numbers.tolist(), strict=True):
        of_group.setdefault(group, set()).add(number)
    assert all(len(found) == 1 for found in of_group.values())
    for fold in range(5):
        assert list(np.bincount(labels[numbers == fold])) == [40, 20]


def test_folds_without_classes_keep_groups_together_too() -> None:
    groups = [f"g{number // 6}" for number in range(60)]
    numbers = holdout_split.folds(np.linspace(0.0, 1.0, 60), 5, 3, groups)
    assert all(len(set(numbers[start : start + 6])) == 1 for start in range(0, 60, 6))
    assert sorted(set(numbers.tolist())) == [0, 1, 2, 3, 4]


def test_without_groups_folds_and_content_are_what_they_were() -> None:
    labels = np.tile([0, 1, 1], 20)
    numbers = "".join(map(str, holdout_split.folds(labels, 3, 7)))
    assert numbers == "010202010021122011221011122200102220112202101122101002001201"
    content = dataset_contents.content_digest([("x", "a"), ("y", "b")], "p")
    assert content == "accdd4bbd0a2e56a5f7098bccc0f441cfd77b27792ac4de8cc4df66d7e5cf45e"
    assert content != dataset_contents.content_digest([("x", "a"), ("y", "b")], "p", {"x": "g"})
    assert "group" not in config(None).model_dump() and dataset_state.fixed(config(None)) == {}


def texts(folder: Path, rows: list[tuple[str, str, str]], name: str = "t.csv") -> Path:
    """A table of (text, label, speaker)."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "speaker"), *rows])
    return folder / name


def speeches(*speakers: str, start: int = 0, count: int = 4) -> list[tuple[str, str, str]]:
    return [
        (f"{speaker} says words number {number} here", ("no", "yes")[number % 2], speaker)
        for speaker in speakers
        for number in range(start, start + count)
    ]


def sides(store: Store, pipeline: Pipeline) -> dict[str, set[str]]:
    """By group, where its examples are: the sets that a fit and the evaluation load."""
    snapshot = dataset_state.state(pipeline, dataset_state.snapshots(store, "p"))
    assert snapshot is not None
    found: dict[str, set[str]] = {}
    for side, loaded in (
        ("train", example_sets.training_set(store, pipeline, snapshot)),
        ("holdout", example_sets.holdout_set(store, pipeline, snapshot)),
    ):
        for group in loaded.groups or ():
            found.setdefault(group, set()).add(side)
    split = holdout_split.split(store, pipeline, snapshot)
    assert split.holdout_groups == sum(each == {"holdout"} for each in found.values())
    assert split.train_groups == sum(each == {"train"} for each in found.values())
    return found


@pytest.mark.usefixtures("admission_tools")
def test_a_group_never_straddles_the_holdout_however_the_data_grows(store: Store, tmp_path: Path) -> None:
    pipeline = config("speaker", holdout={"fraction": 0.4})
    names = [f"speaker {number}" for number in range(12)]
    before: dict[str, set[str]] = {}
    for batch in range(3):  # every batch has more of the speakers of before, and new ones
        rows = speeches(*names[: 4 + 4 * batch], start=10 * batch)
        assert intake.ingest(store, pipeline, texts(tmp_path / str(batch), rows), None)[0]["outcome"] == "accepted"
        now = sides(store, pipeline)
        assert len(now) == 4 + 4 * batch and all(len(side) == 1 for side in now.values())
        assert {group: now[group] for group in before} == before
        before = now
    assert set.union(*before.values()) == {"train", "holdout"}
    for group, side in before.items():
        value = int.from_bytes(hashlib.sha256(f"holdout{group}".encode()).digest()[:8], "big") / 2**64
        assert side == {"holdout" if value < 0.4 else "train"}
    snapshot = dataset_state.state(pipeline, dataset_state.snapshots(store, "p"))
    assert snapshot is not None
    train = example_sets.training_set(store, pipeline, snapshot)
    numbers = holdout_split.folds(train.labels, 2, 0, train.groups)
    assert train.groups is not None
    assert not {g for g, n in zip(train.groups, numbers, strict=True) if n} & {
        g for g, n in zip(train.groups, numbers, strict=True) if not n
    }
    # Records that change examples keep the groups, and the content counts them.
    corrections.retract(store, pipeline, [train.ids[0]], "a test")
    after = dataset_state.state(pipeline, dataset_state.snapshots(store, "p"))
    assert after is not None and after.group == pipeline.group and sides(store, pipeline) == before
    entries = dataset_state.snapshots(store, "p").entries
    pairs = dataset_contents.pairs(store, entries)
    groups = dataset_contents.groups(store, dataset_contents.accepted_parts(entries), pipeline.group)
    assert after.content == dataset_contents.content_digest(pairs, after.preprocessing, groups)
    assert after.content != dataset_contents.content_digest(pairs, after.preprocessing)


@pytest.mark.usefixtures("admission_tools")
def test_too_few_groups_of_a_class_cannot_be_trained(store: Store, tmp_path: Path) -> None:
    pipeline = config("speaker", holdout={"fraction": 0.4}, training={"folds": 5})
    rows = speeches(*(f"speaker {number}" for number in range(5)), count=20)
    intake.ingest(store, pipeline, texts(tmp_path / "s", rows), None)
    snapshot = dataset_state.state(pipeline, dataset_state.snapshots(store, "p"))
    assert snapshot is not None
    split = holdout_split.split(store, pipeline, snapshot)
    assert split.train > 25 and "5 groups with training examples of each class" in str(split.rejected)


# --- what arrives ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("admission_tools")
def test_a_row_without_a_group_is_quarantined_and_comes_in_when_it_has_one(store: Store, tmp_path: Path) -> None:
    pipeline = config({"column": "speaker"}, quarantine={"limit": 0.5})
    rows = speeches("anna", "bert", "cleo")
    empty = [(text, label, "" if number == 2 else who) for number, (text, label, who) in enumerate(rows)]
    first = intake.ingest(store, pipeline, texts(tmp_path / "a", empty), None)[0]
    assert (first["accepted"], first["reasons"]) == (11, {"missing-group": 1})
    second, warnings = intake.ingest(store, pipeline, texts(tmp_path / "b", rows), None)
    assert (second["accepted"], second["known"], second["reasons"]) == (1, 11, {})
    assert any(line.startswith("the dataset has 3 groups, ") for line in warnings)
    # Known rows that come under another group keep their first, and that is told.
    moved = [(text, label, "dora") for text, label, _ in rows]
    third, warnings = intake.ingest(store, pipeline, texts(tmp_path / "c", moved), None)
    assert (third["accepted"], third["known"]) == (0, 12)
    (told,) = [line for line in warnings if "another group" in line]
    assert told.startswith("12 examples") and "'anna', now 'dora'" in told
    assert set(sides(store, pipeline)) == {"anna", "bert", "cleo"}
    # A batch that others landed is judged here, by its examples.
    landed = tmp_path / "store" / "landing" / "p" / "plain"
    texts(landed, [*moved, *speeches("Anna")])
    (landed / "_READY").touch()
    fourth = admission.admit(store, pipeline, "plain")
    assert (fourth.accepted, fourth.known) == (4, 12)
    assert any("keep their first one" in line for line in fourth.warnings)
    assert any("the groups 'Anna', 'anna' look alike" in line for line in fourth.warnings)
    with pytest.raises(UsageError, match="no such column"):
        table = tmp_path / "d.csv"
        table.write_text("text,label\nsome more words,yes\n")
        intake.ingest(store, pipeline, table, None)


@pytest.mark.usefixtures("admission_tools")
def test_pictures_by_name_keep_their_group_when_they_are_encoded_again(store: Store, tmp_path: Path) -> None:
    pipeline = config({"pattern": TAKE, "field": "speaker"}, "image_classification", quarantine={"limit": 0.5})
    random = np.random.default_rng(0)
    for label in ("no", "yes"):
        for speaker in ("anna", "bert", "cleo"):
            for take in range(2):
                path = tmp_path / "s" / label / f"{label}_{speaker}_{take}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(path)
    Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "s" / "no" / "other.png")
    first = intake.ingest(store, pipeline, tmp_path / "s", None)[0]
    assert (first["accepted"], first["reasons"]) == (12, {"missing-group": 1})
    smaller = config(pipeline.group, "image_classification", input=[3, 3, 1], quarantine={"limit": 0.5})
    before = dataset_state.state(pipeline, dataset_state.snapshots(store, "p"))
    after = reencoding.preprocess(store, smaller)
    assert before is not None and after.content != before.content
    groups = [dataset_contents.groups(store, each.parts, each.group) for each in (before, after)]
    assert groups[0] == groups[1] and set(groups[0].values()) == {"anna", "bert", "cleo"}


@pytest.mark.parametrize(
    ("kind", "group", "told"),
    [
        ("table", {"folder": "parent"}, "the table holds the texts itself"),
        ("table", {"pattern": TAKE, "field": "speaker"}, r"Use \{column: NAME\}"),
        ("table", "patient", "the table has no such column"),
        ("folder", "speaker", "a folder per class, and no table"),
        ("folder", {"folder": "parent"}, "of no/1.txt: it lies in the folder of its class, 'no'"),
        ("folder", {"pattern": TAKE, "field": "speaker"}, "Fix the pattern"),
        ("arrays", "speaker", "no name and no column"),
    ],
)
def test_a_group_that_the_source_cannot_have_is_told_before_anything_is_landed(
    kind: str, group: Any, told: str, store: Store, tmp_path: Path
) -> None:
    source, workload = tmp_path / "s", "image_classification" if kind == "arrays" else "text_classification"
    if kind == "table":
        source = texts(source, speeches("anna", "bert"))
    elif kind == "arrays":
        source.mkdir()
        np.save(source / "X.npy", np.zeros((2, 4, 4), np.uint8))
        np.save(source / "y.npy", np.array([0, 1]))
    else:
        for label in ("no", "yes"):
            (source / label).mkdir(parents=True)
            (source / label / "1.txt").write_text(f"some words of {label}")
    pipeline = config(group, workload, classes=None)
    with pytest.raises(UsageError, match=told):
        landing.land(store, pipeline, source, None, landing.Index(group=pipeline.group))
    assert store.keys("landing") == []
    if kind == "folder":  # what the dataset has keeps the group that it has, wherever it comes from again
        known = {sha256(path.read_bytes()): "anna" for path in source.glob("*/*")}
        landing.land(store, pipeline, source, None, landing.Index(group=pipeline.group, groups=known))


def test_few_groups_are_told_when_they_arrive() -> None:
    pipeline = config("speaker", training={"folds": 5}, gate=[
        {"rule": "at_least", "metric": "accuracy", "value": 0.5},
        {"rule": "against_champion", "metric": "accuracy", "margin": 0.1, "confidence": 0.95},
    ])  # fmt: skip
    (told,) = holdout_split.few_groups(pipeline, ["anna"], 0.2)
    assert told.startswith("the dataset has 1 group, ") and "5 folds need at least 5 to train on, and the gate" in told
    assert "at least 4 in the holdout" in told
    assert holdout_split.few_groups(pipeline, [f"speaker {n}" for n in range(60)], 0.2) == []


# --- what is fixed -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("admission_tools")
def test_the_group_is_fixed_by_the_first_snapshot(store: Store, tmp_path: Path) -> None:
    pipeline = config("speaker")
    source = texts(tmp_path / "s", speeches("anna", "bert"))
    intake.ingest(store, pipeline, source, None)
    for other, received in ((config(None), "no group"), (config("label"), '{column: "label"}')):
        with pytest.raises(ConfigurationError, match="group cannot change") as error:
            intake.ingest(store, other, source, None)
        assert error.value.received == received
        assert "start a pipeline of another name" in str(error.value.hint)
        with pytest.raises(ConfigurationError, match="group cannot change"):
            dataset_state.state(other, dataset_state.snapshots(store, "p"))


def test_a_manifest_with_other_groups_proves_nothing() -> None:
    pipeline = config("speaker")
    snapshot = SnapshotRef(
        pipeline="p", number=1, snapshot="s", content="c", classes=("no", "yes"), preprocessing="x", holdout=0.2,
        parts=(), batches=(), examples=1, group=pipeline.group,
    )  # fmt: skip
    given = {
        "pipeline": "p", "version": "v", "run_id": "r", "workload": "text_classification", "classes": ("no", "yes"),
        "input": {}, "preprocessing": "x", "snapshot": "s", "snapshot_number": 1, "cv": {}, "code": {},
        "libraries": {}, "files": (), "created_at": "2026-01-01",
    }  # fmt: skip
    mine = ModelManifest.model_validate({**given, "config": pipeline.model_dump(mode="json")})
    assert evidence.not_held_out(mine, snapshot) is None
    for other in (config(None), config("patient")):
        manifest = ModelManifest.model_validate({**given, "config": other.model_dump(mode="json")})
        assert "other groups" in str(evidence.not_held_out(manifest, snapshot))

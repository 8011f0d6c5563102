"""A store of before the canonical form: its digests are recorded, and no picture stays on both sides of the split."""

from __future__ import annotations

import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from leptonflow.core import pipeline_files
from leptonflow.data.dataset import (
    change_records,
    corrections,
    dataset_contents,
    dataset_state,
    example_sets,
    holdout_split,
    identities,
    known_examples,
    reencoding,
)
from leptonflow.data.dataset.dataset_contents import RELABELLED, RETRACTED
from leptonflow.data.dataset.holdout_split import in_holdout
from leptonflow.data.ingest import intake
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import formats, queries
from schemas.config import Pipeline
from schemas.errors import NotFound, UsageError

pytestmark = pytest.mark.usefixtures("admission_tools")
ARCHIVE = Path(__file__).parent.parent / "stores" / "0.1.0-format-1.tar.gz"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def store(place: Path) -> Store:
    return open_store((place / "store").as_uri())


@pytest.fixture
def config(place: Path) -> Pipeline:
    return pipeline_files.load_config(str(place / "pets.yaml"))


def history(store: Store) -> commit_log.Log:
    return dataset_state.snapshots(store, "pets")


def both_sides(store: Store) -> int:
    """Pictures that training and the holdout hold, by the digests that are recorded."""
    same = identities.canonical(store, history(store))
    sides: dict[str, set[bool]] = {}
    for example, _ in dataset_contents.pairs(store, history(store).entries):
        sides.setdefault(same.get(example, example), set()).add(in_holdout(example, 0.2))
    return sum(len(found) > 1 for found in sides.values())


def test_an_upgrade_records_digests_and_takes_copies_out_of_the_holdout(store: Store, config: Pipeline) -> None:
    before = dict(dataset_contents.pairs(store, history(store).entries))
    reencoding.preprocess(store, config)
    now = history(store)
    assert [entry.kind for entry in now.entries] == ["batch"] * 3 + [RETRACTED, identities.KIND]
    assert now.entries[-1].body["lost"] == 0 and now.entries[-1].body["identities"]["rows"] == 94
    after = dict(dataset_contents.pairs(store, now.entries))
    assert after.items() <= before.items() and len(after) < len(before)
    gone = set(before) - set(after)
    assert all(in_holdout(example, 0.2) for example in gone)
    assert both_sides(store) == 0
    snapshot = dataset_state.state(config, now)
    assert snapshot is not None and snapshot.examples == len(after)
    assert snapshot.content == dataset_contents.content_digest(after.items(), snapshot.preprocessing)
    held = example_sets.holdout_set(store, config, snapshot)
    learned = example_sets.training_set(store, config, snapshot)
    assert set(held.ids) | set(learned.ids) == set(after)
    assert not {p.tobytes() for p in held.inputs} & {p.tobytes() for p in learned.inputs}
    assert now.head is not None and now.head.body["labels"] == dict(Counter(after.values()))


def test_an_upgrade_is_done_once_and_goes_on_after_a_kill(
    store: Store, config: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(identities, "_record", killed)
        identities.upgrade(store, config)
    assert history(store).number == 4
    identities.upgrade(store, config)
    assert [entry.kind for entry in history(store).entries[3:]] == [RETRACTED, identities.KIND]
    identities.upgrade(store, config)
    assert history(store).number == 5


def test_where_landed_files_are_gone_the_ids_go_on(store: Store, config: Pipeline, place: Path) -> None:
    shutil.rmtree(place / "store" / "landing" / "pets" / "first")
    (place / "store" / "landing" / "pets" / "second" / "grey_data.npy").unlink()
    identities.upgrade(store, config)
    head = history(store).head
    assert head is not None and head.kind == identities.KIND
    assert (head.body["identities"]["rows"], head.body["lost"]) == (8, 86)
    assert "86 have no landed file" in head.why


def test_pictures_under_two_labels_are_listed(store: Store, config: Pipeline) -> None:
    assert identities.conflicts(store, history(store)) == []  # nothing is known yet
    identities.upgrade(store, config)
    found = identities.conflicts(store, history(store))
    assert found
    for group in found:
        assert {row["label"] for row in group} == {"cat", "dog"}
        assert len({in_holdout(row["id"], 0.2) for row in group}) == 1


def test_intake_compares_by_the_digest(store: Store, config: Pipeline, place: Path) -> None:
    """The same pictures in yet another form: nothing is new."""
    from PIL import Image

    for file in sorted((place / "first" / "cat").glob("*_L.png")):
        (place / "again" / "cat").mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("RGB").save(place / "again" / "cat" / f"{file.stem}.bmp")
    document, warnings = intake.ingest(store, config, place / "again", None)
    assert any("have several labels" in line for line in warnings)
    assert (document["accepted"], document["quarantined"], document["known"]) == (0, 0, 16)
    assert both_sides(store) == 0


def test_a_newer_label_is_recorded_and_everyone_reads_it(store: Store, config: Pipeline, place: Path) -> None:
    moved = place / "put_right" / "dog" / "was_cat.png"
    moved.parent.mkdir(parents=True)
    shutil.copy(place / "first" / "cat" / "03_RGB.png", moved)
    document, _ = intake.ingest(store, config, moved.parent.parent, None)
    assert (document["outcome"], document["corrected"]) == ("refused", [])  # one row, and it conflicts
    copies = [row for row in change_records.rows(store, history(store)) if row["source"].startswith("cat/03_")]
    document, _ = intake.ingest(store, config, moved.parent.parent, None, correct=True, reason="a wrong folder")
    assert (document["accepted"], document["quarantined"], document["known"]) == (0, 0, 1)
    assert {(c["id"], c["old"], c["new"]) for c in document["corrected"]} == {(r["id"], "cat", "dog") for r in copies}
    record = next(entry for entry in history(store).entries if entry.kind == RELABELLED)
    assert record.why == "a wrong folder"
    snapshot = dataset_state.state(config, history(store))
    assert snapshot is not None and snapshot.snapshot == document["snapshot"]
    learned = example_sets.training_set(store, config, snapshot)
    labels = dict(zip(learned.ids, learned.labels.tolist(), strict=True))
    labels |= dict(zip((h := example_sets.holdout_set(store, config, snapshot)).ids, h.labels.tolist(), strict=True))
    assert {labels[row["id"]] for row in copies} == {snapshot.classes.index("dog")}
    split = holdout_split.split(store, config, snapshot)
    dogs = list(labels.values()).count(snapshot.classes.index("dog"))
    assert split.train_per_class["dog"] + split.holdout_per_class["dog"] == dogs
    assert len(labels) == snapshot.examples
    again, _ = intake.ingest(store, config, moved.parent.parent, None, correct=True)
    assert again["corrected"] == [] and again["outcome"] == "reused"


def test_what_was_retracted_does_not_come_back_unless_it_is_asked_for(
    store: Store, config: Pipeline, place: Path
) -> None:
    identities.upgrade(store, config)
    row = next(row for row in change_records.rows(store, history(store)) if row["source"] == "cat/04_L.png")
    before = dataset_contents.pairs(store, history(store).entries)
    (change,) = corrections.retract(store, config, [row["id"][:8]], "a person is in it")
    assert change.row == row
    assert corrections.retract(store, config, [row["id"]], "again") == []
    snapshot = dataset_state.state(config, history(store))
    assert snapshot is not None and snapshot.examples == len(before) - 1
    assert row["id"] not in example_sets.training_set(store, config, snapshot).ids
    assert row["id"] not in example_sets.holdout_set(store, config, snapshot).ids
    source = place / "full" / "cat"
    source.mkdir(parents=True)
    for file in (place / "first" / "cat").glob("*_L.png"):
        shutil.copy(file, source)
    document, _ = intake.ingest(store, config, source.parent, None)
    assert document["reasons"]["retracted"] == 1
    found = known_examples.knowledge(store, config, history(store))
    assert any("a person is in it" in why for why in found.retracted.values())
    document, _ = intake.ingest(store, config, source.parent, None, correct=True)
    assert [(c["id"], c["old"], c["new"]) for c in document["corrected"]] == [(row["id"], None, "cat")]
    asked = f"SELECT kind, old_label, label, why FROM corrections WHERE example_id = '{row['id']}' ORDER BY number"
    withdrawn, back = formats.to_json(queries.query(store, asked))
    assert withdrawn == {"kind": RETRACTED, "old_label": "cat", "label": None, "why": "a person is in it"}
    assert (back["kind"], back["old_label"], back["label"]) == (RELABELLED, None, "cat")
    assert sorted(dataset_contents.pairs(store, history(store).entries)) == sorted(before)


def test_examples_of_one_source_are_told_apart_by_their_ids(store: Store, config: Pipeline) -> None:
    """Two batches may have a file of the same name."""
    (first,) = corrections.retract(store, config, ["cat/04_L.png"], "a person is in it")
    with pytest.raises(NotFound, match=r"no example has that id or source.*such as cat/1\.png"):
        corrections.retract(store, config, ["cat/none.png"], "not there")
    every = [{**first.row, "id": name * 32, "batch": f"b{name}"} for name in ("ab", "cd")]
    with pytest.raises(UsageError, match=r"one of the ids abababababab \(batch bab\), cdcdcdcdcdcd \(batch bcd\)"):
        corrections._of_source(every, "cat/04_L.png")
    assert corrections._of_source([{**every[0], "label": None}, every[1]], "cat/04_L.png") == every[1]


def test_another_input_encodes_what_is_left(store: Store, config: Pipeline, place: Path) -> None:
    """A retracted example's file may be gone; the others are encoded again under the labels that they have now."""
    identities.upgrade(store, config)
    row = next(row for row in change_records.rows(store, history(store)) if row["source"] == "cat/04_L.png")
    (change,) = corrections.retract(store, config, ["cat/04_L.png"], "must go")
    assert change.row == row
    assert corrections.retract(store, config, ["cat/04_L.png"], "again") == []
    (place / "store" / "landing" / "pets" / "first" / "cat" / "04_L.png").unlink()
    before = sorted(dataset_contents.pairs(store, history(store).entries))
    small = config.model_copy(update={"input": (8, 8, 1)})
    snapshot = reencoding.preprocess(store, small)
    assert sorted(dataset_contents.pairs(store, history(store).entries)) == before
    assert snapshot.examples == len(before)
    learned, held = example_sets.training_set(store, small, snapshot), example_sets.holdout_set(store, small, snapshot)
    assert sorted([*learned.ids, *held.ids]) == [example for example, _ in before]
    assert learned.inputs.shape[1:] == (8, 8, 1)
    assert history(store).number == dataset_state.snapshots(store, "pets").number == snapshot.number

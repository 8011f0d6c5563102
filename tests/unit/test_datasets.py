"""Parts, content digests, the split and the folds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from leptonflow.data.dataset import dataset_contents, example_sets, holdout_split, part_files
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.config import Pipeline, parse
from schemas.errors import Damaged
from schemas.records import PartRef, SnapshotRef


def config(**changes: object) -> Pipeline:
    document = {
        "name": "p", "workload": "image_classification", "input": [2, 2, 1],
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}], "training": {"folds": 2}, **changes,
    }  # fmt: skip
    return parse(document, where="test", folder=Path())


def example(n: int, label: str) -> part_files.Accepted:
    digest = hashlib.sha256(str(n).encode()).hexdigest()
    facts = {"width": n, "height": n}
    return part_files.Accepted(digest, digest, label, f"{n}.png", f"{n}.png", None, facts, bytes([n % 256] * 4))


def dataset(store: Store, counts: dict[str, int], classes: tuple[str, ...] | None = None) -> SnapshotRef:
    """Two parts of examples with these labels, as a snapshot."""
    made = [example(n, label) for n, label in enumerate(name for name, count in counts.items() for _ in range(count))]
    halves = [made[::2], made[1::2]]
    parts = [part_files.write_part(store, config(), f"b{n}", "prep", half) for n, half in enumerate(halves)]
    content = dataset_contents.content_digest([(e.id, e.label) for e in made], "prep")
    return SnapshotRef(
        pipeline="p", number=1, snapshot=content[:12], content=content, classes=classes or tuple(sorted(counts)),
        preprocessing="prep", holdout=0.2, parts=tuple(p for p in parts if p), batches=("b0", "b1"), examples=len(made),
    )  # fmt: skip


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    return open_store(f"memory://{request.node.name}")


def test_the_same_examples_give_the_same_part(store: Store) -> None:
    first = part_files.write_part(store, config(), "b", "prep", [example(1, "a"), example(2, "b")])
    again = part_files.write_part(store, config(), "b", "prep", [example(1, "a"), example(2, "b")])
    assert first == again
    assert first is not None and first.rows == 2


def test_a_part_that_was_changed_is_refused_also_where_only_some_columns_are_read(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    part = part_files.write_part(store, config(), "b", "prep", [example(n, "a") for n in range(50)])
    assert part is not None
    assert part_files.read_columns(store, part, ("id",)).num_rows == 50
    path = tmp_path / part.key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # a pixel, say: the columns that are asked for read as before
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(Damaged, match=part.key):
        part_files.read_columns(store, part, ("id",))


def test_training_and_holdout_are_disjoint_complete_and_sorted(store: Store) -> None:
    snapshot = dataset(store, {"a": 60, "b": 60})
    train = example_sets.training_set(store, config(), snapshot)
    held = example_sets.holdout_set(store, config(), snapshot)
    assert not set(train.ids) & set(held.ids)
    assert len(train.ids) + len(held.ids) == 120
    assert train.ids == sorted(train.ids) and held.ids == sorted(held.ids)
    expected = {e.id: (e.label, e.encoded) for e in (example(n, "a" if n < 60 else "b") for n in range(120))}
    for i, name in enumerate(train.ids):
        assert (snapshot.classes[train.labels[i]], train.inputs[i].tobytes()) == expected[name]
    assert train.inputs.shape[1:] == (2, 2, 1)


def test_an_example_stays_in_the_holdout_whatever_else_arrives() -> None:
    ids = [example(n, "a").id for n in range(5000)]
    held = [holdout_split.in_holdout(i, 0.2) for i in ids]
    assert 0.17 < sum(held) / len(held) < 0.23
    assert all(holdout_split.in_holdout(i, 0.3) for i, h in zip(ids, held, strict=True) if h)


def test_the_content_knows_labels_but_not_order() -> None:
    one = dataset_contents.content_digest([("x", "a"), ("y", "b")], "p")
    assert one == dataset_contents.content_digest([("y", "b"), ("x", "a")], "p")
    assert one != dataset_contents.content_digest([("y", "a"), ("x", "b")], "p")
    assert one != dataset_contents.content_digest([("x", "a"), ("y", "b")], "q")


def test_a_changed_part_is_named(store: Store) -> None:
    part = part_files.write_part(store, config(), "b", "prep", [example(1, "a")])
    assert part is not None
    with pytest.raises(Damaged, match=part.key):
        part_files.read_part(store, part.model_copy(update={"sha256": "0" * 64}), ("id",))


def test_too_few_of_a_class_cannot_be_trained(store: Store) -> None:
    snapshot = dataset(store, {"a": 60, "b": 60}, classes=("a", "b", "rare"))
    split = holdout_split.split(store, config(), snapshot)
    assert split.rejected is not None and "rare: 0" in split.rejected
    assert "no example of rare: `classes: [" in split.rejected  # the way out
    assert split.train + split.holdout == 120


def test_a_class_by_a_typing_error_is_told_with_all_that_mends_it(store: Store) -> None:
    """A single example can be in no number of folds; where it was put right, the YAML must go without the class."""
    gate = [{"rule": "at_least", "metric": "recall[sport]", "value": 0.5}]
    for count in (3, 1, 0):
        snapshot = dataset(store, {"arts": 60, "sports": 60, "sport": count}, classes=("arts", "sports", "sport"))
        told = str(holdout_split.split(store, config(gate=gate, training={"folds": 5}), snapshot).rejected)
        assert told.endswith(
            "`classes: [arts, sports]` in the YAML goes without; remove what names it too: gate.0 (recall[sport])"
        )
        assert ("(spelt nearly like 'sports', which has 60)" in told) == (count > 0)
        assert ("lower training.folds" in told) == (count > 1)
        assert ("no example of sport:" in told) == (count == 0)


def test_an_empty_holdout_cannot_be_trained(store: Store) -> None:
    few = [e for e in (example(n, "ab"[n % 2]) for n in range(40)) if not holdout_split.in_holdout(e.id, 0.2)]
    part = part_files.write_part(store, config(), "b", "prep", few)
    assert isinstance(part, PartRef)
    snapshot = dataset(store, {"a": 1}, classes=("a", "b")).model_copy(update={"parts": (part,)})
    split = holdout_split.split(store, config(), snapshot)
    assert split.rejected is not None and "holdout is empty" in split.rejected


def test_folds_are_stratified_and_repeatable() -> None:
    labels = np.array([0] * 50 + [1] * 30 + [2] * 10)
    numbers = holdout_split.folds(labels, 5, seed=3)
    assert (numbers == holdout_split.folds(labels, 5, seed=3)).all()
    assert (numbers != holdout_split.folds(labels, 5, seed=4)).any()
    for fold in range(5):
        assert list(np.bincount(labels[numbers == fold])) == [10, 6, 2]

"""`training.start_from`: which version it is, which layers are taken, what is told of the others, what it proves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.core import declared_files, pipeline_files, progress, store_keys
from leptonflow.core.hashing import canonical, sha256
from leptonflow.gate import evidence
from leptonflow.keras_runtime import keras_models
from leptonflow.registry import ancestry, champion_log, model_sources
from leptonflow.runs import planning
from leptonflow.storage import commit_log as commits
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.training import model_fits, starting_weights
from leptonflow.training.workspace import Workspace, untrained
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, Damaged
from schemas.records import Lineage, ModelManifest, ObjectRef, Plan, SnapshotRef
from schemas.starting import Start, Started
from schemas.workloads import SECTIONS
from tests.fit_examples import CLASSES, land, pipeline
from tests.small_packages import put

WORKLOAD = catalog.load("image_classification")
HARDWARE = {"cpus": 2, "cpu": None, "machine": "m", "system": "s", "backend": "b", "accelerators": ()}
A, B, C = "a" * 12, "b" * 12, "c" * 12


@pytest.fixture
def store() -> Store:
    return MemoryStore("memory://starting")


def starting(start_from: Any, **changes: Any) -> Pipeline:
    training = {"epochs": 1, "batch_size": 16, "folds": 2, "start_from": start_from, **changes.pop("training", {})}
    return pipeline(training=training, **changes)


def saved(config: Pipeline, folder: Path, name: str = "other.keras") -> tuple[Any, Start]:
    """A model of another pipeline's shape, as a file, and the start that names it."""
    model = untrained(WORKLOAD, config, CLASSES)
    data = keras_models.save(model)
    (folder / name).write_bytes(data)
    given = starting(name, folder=folder)
    found = ancestry.start(MemoryStore("memory://file"), given, land(MemoryStore("memory://any"), given).snapshot)  # type: ignore[arg-type]
    assert found is not None and found.file == name
    return model, found


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("start_from: best", r"training\.start_from is not valid \(line 5\).*scratch, champion, a version"),
        ("start_from: 123456789012", r"training\.start_from.*in quotes"),
        ("start_from: ../x.keras", r"training\.start_from.*stays below"),
        ("start_from: champion\n  final_epochs: folds_median\n  early_stopping: {}", r"final_epochs.*from scratch"),
    ],
)
def test_wrong_values_name_the_key(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "squares.yaml"
    path.write_text(
        f"name: squares\nworkload: image_classification\ninput: [12, 12, 1]\ntraining:\n  {line}\n"
        "gate: [{rule: at_least, metric: accuracy, value: 0.5}]\n"
    )
    with pytest.raises(ConfigurationError, match=told):
        pipeline_files.load_config(str(path))


def test_a_workload_with_a_vocabulary_starts_from_scratch(tmp_path: Path) -> None:
    for name, sections in SECTIONS.items():
        assert sections.vocabulary == (catalog.load(name).vocabulary is not None)
    path = tmp_path / "texts.yaml"
    path.write_text(
        "name: texts\nworkload: text_classification\ninput: {}\ntraining: {start_from: champion}\n"
        "gate: [{rule: at_least, metric: accuracy, value: 0.5}]\n"
    )
    with pytest.raises(ConfigurationError, match=r"training\.start_from.*vocabulary of its own"):
        pipeline_files.load_config(str(path))


def test_without_the_key_a_version_is_what_it_was(store: Store) -> None:
    plan, code = land(store, pipeline()), {"train": "t", "gate": "g"}
    assert plan.snapshot is not None and "start_from" not in pipeline().model_dump_json()
    before = planning.ids(pipeline(), plan.snapshot, code, 0)
    assert before == planning.ids(pipeline(), plan.snapshot, code, 0, None, None)
    starts = [Start(version=version, file=None, sha256="0", classes=CLASSES) for version in (A, B)]
    assert len({before, *(planning.ids(pipeline(), plan.snapshot, code, 0, None, each) for each in starts)}) == 3


def promote(store: Store, version: str, number: int, times: int = 1) -> None:
    """The record of a champion that learned from snapshot s<number>; its package lies there, for the first time."""
    digest = put(store, version, number) if times == 1 else "0" * 64
    body = champion_log.Promotion(
        version=version, previous=None, run_id=None, manifest_sha256=digest, snapshot=f"s{number}",
        snapshot_number=number,
    )  # fmt: skip
    log = champion_log.promotions(store, "digits")
    told = body.model_dump(mode="json")
    commits.commit(store, log, id=f"{version} {times}", kind="override", body=told, who="kim", why="good")


def on(number: int) -> SnapshotRef:
    return SnapshotRef(
        pipeline="digits", number=number, snapshot=f"s{number}", content="0" * 64, classes=("0", "1"),
        preprocessing="p", holdout=0.2, parts=(), batches=(), examples=0,
    )  # fmt: skip


def test_the_champion_is_the_one_before_the_first_of_this_snapshot(store: Store) -> None:
    """Neither a promotion nor a rollback of it is a reason to train again on the same data."""
    config = starting("champion", name="digits")
    assert ancestry.start(store, config, on(1)) is None, "no champion yet: from scratch"
    promote(store, A, 1)
    assert ancestry.start(store, config, on(1)) is None, "the champion came of this snapshot"
    found = ancestry.start(store, config, on(2))
    assert found is not None and (found.version, found.classes) == (A, ("0", "1"))
    promote(store, B, 2)
    assert ancestry.start(store, config, on(2)) == found, "promoted: the same plan as before"
    later = ancestry.start(store, config, on(3))
    assert later is not None and later.version == B
    promote(store, C, 3)
    promote(store, A, 1, times=2)
    assert ancestry.start(store, config, on(3)) == later, "rolled back by two: the same plan as before"
    newest = ancestry.start(store, config, on(4))
    assert newest is not None and newest.version == A, "new data starts from the current champion"
    chosen = ancestry.start(store, starting(A, name="digits"), on(3))
    assert chosen == found
    with pytest.raises(ConfigurationError, match="names no version of the pipeline digits"):
        ancestry.start(store, starting("d" * 12, name="digits"), on(3))


def test_layers_are_matched_by_name_and_shape_and_every_mismatch_is_told(tmp_path: Path) -> None:
    theirs, start = saved(pipeline(model={"filters": [4, 8, 8], "dense": 8, "dropout": 0}, input=[24, 24, 1]), tmp_path)
    config = starting("other.keras", model={"filters": [4, 6], "dense": 8, "dropout": 0}, folder=tmp_path)
    mine = untrained(WORKLOAD, config, CLASSES)
    weights = starting_weights.matched(MemoryStore("memory://x"), config, start, mine, CLASSES)
    weights.assign(mine)
    ours, given = (each.get_layer("conv_1").get_weights()[0] for each in (mine, theirs))
    np.testing.assert_array_equal(ours, given)
    assert weights.started.layers == 2 and weights.started.of == 4
    assert [*weights.started.mismatches] == [
        "conv_2 is 3x3x4x8 + 8 in the file other.keras and 3x3x4x6 + 6 here",
        "dense is 32x8 + 8 in the file other.keras and 54x8 + 8 here",
        "conv_3 is only in the file other.keras",
    ]
    assert "2 of 4 layers from the file" in starting_weights.sentences(weights.started, start.name)[0]
    none = starting("other.keras", model={"filters": [5], "dense": 9}, folder=tmp_path)
    with pytest.raises(ConfigurationError, match=r"no layer matches the file other\.keras.*conv_1 is 3x3x1x4"):
        other = untrained(WORKLOAD, none, ("a", "b"))
        starting_weights.matched(MemoryStore("memory://x"), none, start, other, ("a", "b"))
    (tmp_path / "other.keras").write_bytes(b"another")
    with pytest.raises(Damaged, match="changed since the run was planned"):
        starting_weights.matched(MemoryStore("memory://x"), config, start, mine, CLASSES)


def test_a_file_is_part_of_the_version_and_lies_in_the_package(tmp_path: Path) -> None:
    _, start = saved(pipeline(), tmp_path)
    config = starting("other.keras", folder=tmp_path)
    assert declared_files.digests(config) == {"other.keras": start.sha256}
    packed = model_sources.archive(config)
    (tmp_path / "other.keras").unlink()
    with pytest.raises(ConfigurationError, match=r"training\.start_from other\.keras cannot be read"):
        declared_files.digests(config)
    with model_sources.unpacked(packed, config) as own:  # as `reproduce` does
        model = untrained(WORKLOAD, own, CLASSES)
        assert starting_weights.matched(MemoryStore("memory://x"), own, start, model, CLASSES).started.layers == 4


def test_outputs_of_other_classes_are_not_taken(tmp_path: Path) -> None:
    _, start = saved(pipeline(), tmp_path)
    config = starting("other.keras", folder=tmp_path)
    mine = untrained(WORKLOAD, config, CLASSES)
    given = start.model_copy(update={"classes": ("up", "middle", "down")})
    started = starting_weights.matched(MemoryStore("memory://x"), config, given, mine, CLASSES).started
    assert [*started.mismatches] == ["probabilities is of other classes in the file other.keras"]


def test_layers_without_a_name_of_their_own_are_counted() -> None:
    """Keras numbers them through the whole process: the same network has other names when it is built again."""
    layers, network = keras_models.keras().layers, keras_models.keras().Sequential

    def build() -> Any:
        inner = network([layers.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)])
        return network([layers.Input((4,)), inner, layers.Dense(2, name="out"), layers.Activation("relu")])

    names = [[name for name, _ in starting_weights.layers(build())] for _ in range(2)]
    assert names[0] == names[1] == [
        "sequential/dense", "sequential/batch_normalization", "sequential/dense_2", "out"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "training", [{}, pytest.param({"optimizer": {"ema": 0.5}, "precision": "bfloat16"}, marks=pytest.mark.slow)]
)
def test_the_final_fit_starts_from_it_and_folds_do_not(store: Store, tmp_path: Path, training: dict[str, Any]) -> None:
    rate = {"optimizer": {"learning_rate": 1e-12, **training.pop("optimizer", {})}, **training}
    theirs, start = saved(pipeline(), tmp_path)
    config = starting("other.keras", training=rate, folder=tmp_path)
    plan = land(store, config).model_copy(update={"start": start})
    alone, same = MemoryStore("memory://scratch"), starting("scratch", training=rate)
    plain = land(alone, same)
    workspace = Workspace()
    fold = model_fits.train_fold(store, config, plan, 0, workspace)
    assert fold.start is None and fold.metrics == model_fits.train_fold(alone, same, plain, 0).metrics
    final = model_fits.fit_final(store, config, plan, workspace)
    assert final.start is not None and final.start.layers == final.start.of == 4
    made = keras_models.load(store.get(final.files[0].key))
    for ours, given in zip(made.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(ours, given, atol=1e-6)


def test_without_a_champion_it_is_said_that_the_fit_starts_from_scratch(store: Store) -> None:
    config, notes = starting("champion"), list[str]()
    with progress.listen(None, notes.append):
        final = model_fits.fit_final(store, config, land(store, config))
    assert final.start is None and [note for note in notes if "no champion before this snapshot" in note]


def test_nothing_is_trained_where_nothing_fits(store: Store, tmp_path: Path) -> None:
    _, start = saved(pipeline(model={"filters": [5], "dense": 9}, classes=["a", "b"]), tmp_path)
    config = starting("other.keras", model={"filters": [4], "dense": 8}, folder=tmp_path)
    plan = land(store, config).model_copy(update={"start": start})
    keep = [key for key, _ in store.list("")]
    with pytest.raises(ConfigurationError, match="no layer matches"):
        model_fits.train_fold(store, config, plan, 0)
    assert [key for key, _ in store.list("")] == keep


def version(store: Store, name: str, started: Started | None, fraction: float = 0.2) -> ModelManifest:
    lineage = Lineage.model_validate({
        "snapshot": "s", "code": {}, "lock": None, "git_commit": None, "git_dirty": None, "seed": 0,
        "hardware": HARDWARE, "libraries": {}, "started_at": None, "finished_at": "t", "start": started,
    })  # fmt: skip
    data = b"weights of " + name.encode()
    store.create(store_keys.package_key("digits", name, "model.keras"), data)
    made = ModelManifest(
        pipeline="digits", version=name, run_id="r", workload="image_classification", classes=("0", "1"),
        input=(28, 28, 1), preprocessing="p", snapshot="s1", snapshot_number=1, cv={}, code={}, libraries={},
        config={"holdout": {"fraction": fraction}}, created_at="2026-01-01T00:00:00+00:00", lineage=lineage,
        files=(ObjectRef(key="model.keras", sha256=sha256(data), bytes=len(data)),),
    )  # fmt: skip
    store.create(store_keys.package_key("digits", name, "manifest.json"), canonical(made))
    return made


def after(name: str | None, file: str | None = None, sha256: str = "0") -> Started:
    return Started(version=name, file=file, sha256=sha256, layers=1, of=1, mismatches=())


def test_the_proof_follows_the_chain_of_versions(store: Store) -> None:
    first = version(store, A, None, fraction=0.1)  # it learned from some of what is held out now
    version(store, B, after(A))
    last = version(store, C, after(B))
    told = evidence._ancestors_not_held_out(store, last, on(3))
    assert told is not None and f"{A} never learned" in told and f"and {C} started from it" in told
    assert evidence._ancestors_not_held_out(store, version(store, "d" * 12, None), on(3)) is None
    model = next(file.sha256 for file in first.files if file.key == "model.keras")
    exported = version(store, "e" * 12, after(None, "old.keras", model))
    assert A in str(evidence._ancestors_not_held_out(store, exported, on(3))), "a file that is a version's model"
    unknown = version(store, "f" * 12, after(None, "pretrained.keras"))
    assert evidence._ancestors_not_held_out(store, unknown, on(3)) is None
    orphan = version(store, "9" * 12, after("8" * 12))
    assert "has no version 888888888888" in str(evidence._ancestors_not_held_out(store, orphan, on(3)))


def test_a_plan_names_what_it_starts_from(store: Store) -> None:
    assert Plan.model_validate_json(land(store, pipeline()).model_dump_json()).start is None

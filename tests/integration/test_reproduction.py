"""A run made again from what is recorded of it: equal bit for bit, else what differs.

That a fresh process does it too is in tests/e2e/commands/test_asking.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from leptonflow.core import store_keys
from leptonflow.core.hashing import canonical, sha256
from leptonflow.data.dataset import dataset_state
from leptonflow.evaluation import holdout_evaluation
from leptonflow.registry import package_builder
from leptonflow.runs import reproduction
from leptonflow.storage import commit_log as commits
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import predictions
from leptonflow.workloads.classification import ONE_CLASS
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound, UsageError
from schemas.records import Plan
from tests.fit_examples import CLASSES, land, pipeline

ROOT = Path(__file__).resolve().parents[2]
RUN = "b" * 12

Trained = tuple[Path, Pipeline, Plan]


def commit_batch(store: Store, config: Pipeline, plan: Plan, name: str) -> None:
    """The record in the snapshots log that admitting these parts leaves."""
    assert plan.snapshot is not None
    log = dataset_state.snapshots(store, config.name)
    body = {
        "batch": name, "parts": [part.model_dump(mode="json") for part in plan.snapshot.parts],
        "snapshot": plan.snapshot.snapshot, "content": plan.snapshot.content, "classes": list(CLASSES),
        "labels": dict.fromkeys(CLASSES, 50), "preprocessing": plan.snapshot.preprocessing,
        "holdout": plan.snapshot.holdout, "examples": plan.snapshot.examples, "outcome": None,
    }  # fmt: skip
    commits.commit(store, log, id=name, kind="batch", body=body, who="kim", why="it arrived")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A store with a version and the holdout predictions of the run that trained it."""
    folder, config = tmp_path_factory.mktemp("trained") / "store", pipeline()
    return folder, config, made(open_store(str(folder)), config)


def made(store: Store, config: Pipeline) -> Plan:
    """A trained version, packaged and evaluated."""
    plan = land(store, config)
    commit_batch(store, config, plan, "first")
    started = {"started_at": "2026-11-24T10:00:00.000000Z", "version": plan.version, "attempt": 0}
    store.create(store_keys.run_key(config.name, RUN, "started.json"), canonical(started))
    workspace = Workspace()
    for fold in range(config.training.folds):
        model_fits.train_fold(store, config, plan, fold, workspace)
    model_fits.fit_final(store, config, plan, workspace)
    package_builder.build(store, config, plan)
    holdout_evaluation.evaluate(store, config, plan, None)
    return plan


@pytest.fixture
def store(trained: Trained, tmp_path: Path) -> Store:
    shutil.copytree(trained[0], tmp_path / "store")
    return open_store(str(tmp_path / "store"))


def rewrite(store: Store, key: str, data: bytes) -> None:
    path = store.path(key)
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(data)


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key, _ in store.list("")}


def test_a_run_is_reproduced_bit_for_bit_and_nothing_is_written(store: Store, trained: Trained) -> None:
    _, config, plan = trained
    commit_batch(store, config, plan, "later")  # what arrived since is not what the run learned from
    before = contents(store)
    document = reproduction.reproduce(store, RUN)
    assert (document["equal"], document["largest_difference"]) == (True, 0.0), document
    assert document["within_tolerance"] and document["flipped"] == 0 and document["differs"] == []
    assert (document["pipeline"], document["run_id"], document["version"]) == ("squares", RUN, plan.version)
    assert document["examples"] > 10
    assert contents(store) == before


@pytest.mark.slow
def test_predictions_within_the_tolerance_and_beyond_it(store: Store, trained: Trained) -> None:
    _, config, _ = trained
    key = store_keys.run_key(config.name, RUN, "holdout-predictions.parquet")
    ids, labels, probabilities = predictions.read(ONE_CLASS, store.get(key), CLASSES)
    probabilities = probabilities.copy()
    probabilities[0, 0] += 1e-4
    rewrite(store, key, predictions.write(ONE_CLASS, ids, labels, probabilities, CLASSES, None))
    found = reproduction.reproduce(store, RUN)
    assert not found["equal"] and found["within_tolerance"]
    assert found["largest_difference"] == pytest.approx(1e-4, rel=1e-3)
    assert "no recorded difference explains it" in found["sentence"]
    assert not reproduction.reproduce(store, RUN, tolerance=1e-5)["within_tolerance"]
    # Another seed trains another model: the run's predictions are not reached.
    name = store_keys.package_key(config.name, "a" * 12, "manifest.json")
    manifest = json.loads(store.get(name))
    manifest["config"]["training"]["seed"] = 1
    rewrite(store, name, canonical(manifest))
    found = reproduction.reproduce(store, RUN)
    assert (found["equal"], found["within_tolerance"]) == (False, False)
    assert found["largest_difference"] > reproduction.TOLERANCE


def test_what_differs_is_named(store: Store, trained: Trained) -> None:
    _, config, plan = trained
    key = store_keys.package_key(config.name, plan.version or "", "manifest.json")
    manifest = json.loads(store.get(key))
    manifest["code"]["train"] = "0" * 64
    manifest["lineage"]["libraries"]["numpy"] = "1.0"
    manifest["lineage"]["hardware"]["cpus"] = 977
    manifest["lineage"]["snapshot"] = "f" * 64
    rewrite(store, key, canonical(manifest))
    found = reproduction.reproduce(store, RUN)
    assert [(each["what"], each["key"]) for each in found["differs"]] == [
        ("code", "train"), ("libraries", "numpy"), ("hardware", "cpus"), ("data", "snapshot"),
    ]  # fmt: skip
    assert {each["recorded"] for each in found["differs"]} == {"0" * 64, "1.0", 977, "f" * 64}
    assert found["equal"], "and yet it is the same model"


def test_another_keras_is_a_library_and_not_code(store: Store, trained: Trained) -> None:
    """The digest of the code counts the versions in: it is compared with the recorded ones."""
    _, config, plan = trained
    from leptonflow.core.code_digests import code_digests

    key = store_keys.package_key(config.name, plan.version or "", "manifest.json")
    manifest = json.loads(store.get(key))
    manifest["libraries"]["keras"] = manifest["lineage"]["libraries"]["keras"] = "2.0"
    manifest["code"]["train"] = code_digests(config, manifest["libraries"])["train"]
    rewrite(store, key, canonical(manifest))
    assert manifest["code"]["train"] != code_digests(config)["train"]
    assert [(d["what"], d["key"]) for d in reproduction.reproduce(store, RUN)["differs"]] == [("libraries", "keras")]


def test_a_manifest_from_before_lineage_says_that_its_hardware_is_not_known(store: Store, trained: Trained) -> None:
    _, config, plan = trained
    key = store_keys.package_key(config.name, plan.version or "", "manifest.json")
    manifest = json.loads(store.get(key))
    del manifest["lineage"]
    rewrite(store, key, canonical(manifest))
    found = reproduction.reproduce(store, RUN)
    assert found["equal"]
    assert {(each["what"], each["recorded"]) for each in found["differs"]} == {("hardware", None)}


def test_other_examples_have_no_difference(store: Store, trained: Trained) -> None:
    _, config, _ = trained
    key = store_keys.run_key(config.name, RUN, "holdout-predictions.parquet")
    ids, labels, probabilities = predictions.read(ONE_CLASS, store.get(key), CLASSES)
    rewrite(store, key, predictions.write(ONE_CLASS, ids[1:], labels[1:], np.asarray(probabilities[1:]), CLASSES, None))
    found = reproduction.reproduce(store, RUN)
    assert (found["equal"], found["within_tolerance"], found["largest_difference"]) == (False, False, None)
    assert "other examples" in found["sentence"]


def test_bad_input_is_one_clear_line(store: Store, trained: Trained) -> None:
    _, config, plan = trained
    with pytest.raises(NotFound, match=f"no run with holdout predictions.*{'0' * 12}"):
        reproduction.reproduce(store, "0" * 12)
    with pytest.raises(UsageError, match="not a run's id"):
        reproduction.reproduce(store, "../x")
    with pytest.raises(UsageError, match="not a tolerance"):
        reproduction.reproduce(store, RUN, tolerance=-1)
    assert plan.snapshot is not None
    part = plan.snapshot.parts[0].key
    rewrite(store, part, store.get(part)[:-1] + b"x")
    with pytest.raises(Damaged, match=part):
        reproduction.reproduce(store, RUN)
    key = store_keys.package_key(config.name, plan.version or "", "manifest.json")
    manifest = json.loads(store.get(key))
    rewrite(store, key, canonical({**manifest, "snapshot_number": 2}))
    with pytest.raises(Damaged, match="shorter than it was"):
        reproduction.reproduce(store, RUN)


@pytest.mark.slow
def test_every_fold_once_more(store: Store, trained: Trained) -> None:
    _, config, plan = trained
    assert reproduction.reproduce(store, RUN)["folds"] is None
    document = reproduction.reproduce(store, RUN, folds=True)
    assert (document["equal"], document["within_tolerance"]) == (True, True), document
    folds = document["folds"]
    assert [fold["fold"] for fold in folds] == [0, 1, 2]
    for fold in folds:
        assert (fold["equal"], fold["largest_difference"], fold["flipped"]) == (True, 0.0, 0)
    kept = [model_fits.fit_result(store, config.name, plan.version or "", fold) for fold in range(3)]
    ids = [predictions.read(ONE_CLASS, store.get(fit.files[0].key), CLASSES)[0] for fit in kept if fit]
    assert [fold["examples"] for fold in folds] == [len(each) for each in ids]
    assert f"the {sum(map(len, ids))} out-of-fold predictions of 3 folds are equal bit for bit" in document["sentence"]


@pytest.mark.slow
def test_a_fold_that_differs_is_told_beside_a_holdout_that_does_not(store: Store, trained: Trained) -> None:
    """As after a change that only the folds' fits see: the recorded fold, its manifest with it, is another one."""
    _, config, plan = trained
    key = store_keys.fit_key(config.name, plan.version or "", 1, "oof.parquet")
    ids, labels, probabilities = predictions.read(ONE_CLASS, store.get(key), CLASSES)
    probabilities = probabilities[:, ::-1].copy()
    data = predictions.write(ONE_CLASS, ids, labels, probabilities, CLASSES, 1)
    rewrite(store, key, data)
    with pytest.raises(Damaged, match=rf"{key} is not what was recorded.*sha256"):
        reproduction.reproduce(store, RUN, folds=True)
    name = store_keys.fit_key(config.name, plan.version or "", 1, "manifest.json")
    manifest = json.loads(store.get(name))
    manifest["files"][0]["sha256"] = sha256(data)
    rewrite(store, name, canonical(manifest))
    found = reproduction.reproduce(store, RUN, folds=True)
    assert (found["equal"], found["within_tolerance"]) == (True, False), found
    assert [fold["equal"] for fold in found["folds"]] == [True, False, True]
    assert found["folds"][1]["largest_difference"] > reproduction.TOLERANCE and found["folds"][1]["flipped"] > 0
    told = found["sentence"]
    assert "holdout predictions are equal bit for bit, the" in told and "folds differ by at most" in told
    assert reproduction.reproduce(store, RUN)["within_tolerance"], "without --folds nothing is said of them"
    rewrite(store, name, b"garbage")
    with pytest.raises(Damaged, match=f"{name} cannot be compared with"):
        reproduction.reproduce(store, RUN, folds=True)


def test_what_a_run_left_and_cannot_be_read_is_one_clear_line(store: Store, trained: Trained) -> None:
    _, config, _ = trained
    key = store_keys.run_key(config.name, RUN, "holdout-predictions.parquet")
    data = store.get(key)
    for damaged in (data[: len(data) // 2], b"", data[:-8] + b"\x00" * 4 + data[-4:], b"garbage"):
        rewrite(store, key, damaged)
        with pytest.raises(Damaged, match=f"the holdout predictions of run {RUN} cannot be compared with"):
            reproduction.reproduce(store, RUN)
    # A finished run's manifest knows what they were, so that readable ones of other numbers are found too.
    ids, labels, probabilities = predictions.read(ONE_CLASS, data, CLASSES)
    rewrite(store, key, predictions.write(ONE_CLASS, ids, labels, probabilities[:, ::-1], CLASSES, None))
    document = {"report": "r", "version": "a" * 12}
    files = [{"key": key, "sha256": sha256(data), "bytes": len(data)}]
    store.create(
        store_keys.run_key(config.name, RUN, "manifest.json"), canonical({"document": document, "files": files})
    )
    with pytest.raises(Damaged, match=f"{key} is not what was recorded.*{sha256(data)}"):
        reproduction.reproduce(store, RUN)


@pytest.mark.parametrize("data", [b"garbage", b"{}", b"[]"])
def test_a_beginning_that_is_garbage_is_named(store: Store, trained: Trained, data: bytes) -> None:
    key = store_keys.run_key(trained[1].name, RUN, "started.json")
    rewrite(store, key, data)
    with pytest.raises(Damaged, match=key):
        reproduction.reproduce(store, RUN)


OWN = """
import keras
from pathlib import Path

UNITS = int(Path(__file__).with_name("units.txt").read_text())

def build(input, classes):
    layers = keras.layers
    return keras.Sequential([
        layers.Input(input), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(UNITS),
        layers.Dense(len(classes), activation="softmax"),
    ])

def compile(model, training):
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="categorical_crossentropy")
"""


@pytest.mark.slow
def test_a_version_whose_source_was_edited_since_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "edited_since.py").write_text(OWN)
    (folder / "units.txt").write_text("5")
    model = {"function": "edited_since:build", "compile": "edited_since:compile", "files": ["units.txt"]}
    store, config = open_store(str(tmp_path / "store")), pipeline(model=model, folder=folder, training={"folds": 2})
    plan = made(store, config)
    (folder / "edited_since.py").write_text("edited since")
    (folder / "units.txt").unlink()
    document = reproduction.reproduce(store, RUN, folder=folder)
    assert (document["equal"], document["differs"]) == (True, []), document
    card = store.get(store_keys.package_key(config.name, plan.version or "", "model_card.md")).decode()
    assert "| source.zip |" in card
    for said in (
        "model function edited_since:build, compile edited_since:compile", "declared file units.txt sha256",
        "optimizer SGD, loss categorical_crossentropy", "(N, 12, 12, 1) float32 in, (N, 3) float32 out",
        "4 layers with 743 parameters", "| Dense | (N, 5) float32 | 725 |",
    ):  # fmt: skip
        assert said in card.replace("\\", ""), said
    assert "filters" not in card and "optimizer adam" not in card and "learning_rate" not in card

"""Packages as they lie on a real store: verified on every load, and reproduced by a fresh process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.core.hashing import canonical, sha256
from leptonflow.core.request_process import RequestProcess
from leptonflow.data.dataset import example_sets
from leptonflow.data.validation import contracts
from leptonflow.evaluation import fresh_process, holdout_evaluation, load_check
from leptonflow.keras_runtime import keras_models
from leptonflow.registry import onnx_export, onnx_files, onnx_session, package_builder, packages, served_models
from leptonflow.registry.onnx_session import TOLERANCE
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from leptonflow.training.workspace import Workspace
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound, TrainingError
from schemas.export import Export
from schemas.records import InfraResult, PackageRef, Plan
from tests.fit_examples import CLASSES, land, pipeline
from tests.misread import WRONG, misread

FILES = {
    "model.keras", "preprocessing.json", "labels.json", "contract.json", "config.json", "metrics.json",
    "reference.parquet", "lineage.json", "model.onnx", "onnx.json", "model_card.md",
}  # fmt: skip


# A package of an earlier release has none of these.
NEWER = {"contract.json", "metrics.json", "lineage.json", "model.onnx", "onnx.json", "model_card.md"}


@pytest.fixture(scope="module")
def exporter() -> Iterator[RequestProcess]:
    """One process for every export: each would import Keras."""
    with fresh_process.FreshProcess() as process:
        yield process


@pytest.fixture
def build(exporter: RequestProcess) -> Callable[[Store, Pipeline, Plan], PackageRef]:
    return partial(package_builder.build, process=exporter)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, exporter: RequestProcess) -> tuple[Path, Pipeline, Plan]:
    """A directory store with a packaged and evaluated version."""
    folder = tmp_path_factory.mktemp("trained") / "store"
    store, config = open_store(str(folder)), pipeline(serving={})
    plan = land(store, config)
    with pytest.raises(TrainingError, match=r"2 finished folds and a final fit.*0 folds and no final fit"):
        package_builder.build(store, pipeline(training={"folds": 2}), plan)
    workspace = Workspace()
    for fold in range(3):
        model_fits.train_fold(store, config, plan, fold, workspace)
    model_fits.fit_final(store, config, plan, workspace)
    package_builder.build(store, config, plan, process=exporter)
    holdout_evaluation.evaluate(store, config, plan, None)
    return folder, config, plan


@pytest.fixture
def store(trained: tuple[Path, Pipeline, Plan], tmp_path: Path) -> Store:
    shutil.copytree(trained[0], tmp_path / "store")
    return open_store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def passed(trained: tuple[Path, Pipeline, Plan], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, InfraResult]:
    """A copy of that store where a fresh process has validated the package, and what it found."""
    folder = tmp_path_factory.mktemp("passed") / "store"
    shutil.copytree(trained[0], folder)
    store, (_, config, plan) = open_store(str(folder)), trained
    assert plan.version is not None
    sha = packages.reference(store, config.name, plan.version).manifest_sha256
    return folder, load_check.validate(store, config, plan.version, sha, plan)


@pytest.fixture
def validated(passed: tuple[Path, InfraResult], tmp_path: Path) -> tuple[Store, InfraResult]:
    shutil.copytree(passed[0], tmp_path / "validated")
    return open_store(str(tmp_path / "validated")), passed[1]


def change(store: Store, key: str) -> None:
    """Change one bit of an object, as a failing disk does."""
    path = store.path(key)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def test_a_package_says_what_it_is_and_predicts(store: Store, trained: Any) -> None:
    _, config, plan = trained
    manifest = packages.manifest(store, config.name, plan.version)
    names = {file.key for file in manifest.files}
    assert names == FILES
    assert (manifest.classes, manifest.input, manifest.run_id) == (CLASSES, (12, 12, 1), plan.run_id)
    assert len(manifest.cv["accuracy"]["folds"]) == 3
    assert manifest.code.keys() == {"data", "train"}
    folder = f"models/{config.name}/{plan.version}"
    assert json.loads(store.get(f"{folder}/labels.json")) == list(CLASSES)
    assert json.loads(store.get(f"{folder}/preprocessing.json")) == {
        "input": [12, 12, 1],
        "workload": "image_classification",
        "preprocessing_version": 1,
        "digest": plan.snapshot.preprocessing,
    }
    contract = packages.contract(store, manifest)
    assert contract is not None and contract == json.loads(store.get(f"{folder}/contract.json"))
    assert contract["digest"] == contracts.digest(config)
    assert contract["expectations"] == contracts.read_contract(config)["expectations"] != []
    assert (contract["quarantine"], contract["classes"]) == ({"limit": 0.2}, None)
    package = packages.load(store, config.name, plan.version)
    examples = example_sets.training_set(store, config, plan.snapshot)
    found = package.predict(examples.inputs)
    assert found.shape == (len(examples.ids), 3) and found.dtype == np.float64
    assert (found.argmax(1) == examples.labels).mean() > 0.5
    # An answer does not depend on who else is asked about, up to rounding.
    np.testing.assert_allclose(package.predict(examples.inputs[5:6])[0], found[5], atol=1e-6)
    assert package.predict(examples.inputs[:0]).shape == (0, 3)
    with pytest.raises(TrainingError, match="12 x 12 x 1"):
        package.predict(examples.inputs[:, :5])
    assert [m.version for m in packages.versions(store, config.name)] == [plan.version]


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("left", [FILES, FILES - {"metrics.json", "model_card.md"}, set()])
def test_wrong_readings_leave_no_unusable_version(
    store: Store, trained: Any, build: Any, monkeypatch: pytest.MonkeyPatch, how: str, left: set[str]
) -> None:
    """A packaging that was cut short goes on while every object is read wrong once."""
    _, config, plan = trained
    folder = store.path(f"models/{config.name}/{plan.version}")
    assert folder is not None
    for name in {"manifest.json", *FILES} - left:
        (folder / name).unlink()
    with monkeypatch.context() as patch:
        assert misread(store, patch, how) == {}
        made = build(store, config, plan)
        again = build(store, config, plan)
        assert packages.reference(store, config.name, plan.version) == made == again
    assert packages.verify(store, config.name, plan.version, made.manifest_sha256).version == plan.version


@pytest.mark.parametrize("how", WRONG)
def test_a_version_is_loaded_and_evaluated_through_wrong_readings(
    store: Store, trained: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    _, config, plan = trained
    expected = holdout_evaluation.evaluate(store, config, plan, None)
    sha = packages.reference(store, config.name, plan.version).manifest_sha256
    with monkeypatch.context() as patch:
        misread(store, patch, how)
        assert packages.load(store, config.name, plan.version, sha).manifest_sha256 == sha
        assert holdout_evaluation.evaluate(store, config, plan, None) == expected
        assert model_fits.fit_result(store, config.name, plan.version, None) is not None


def test_a_package_says_where_it_comes_from(store: Store, trained: Any) -> None:
    _, config, plan = trained
    manifest = packages.manifest(store, config.name, plan.version)
    lineage = manifest.lineage
    assert lineage is not None
    assert (lineage.snapshot, lineage.seed, lineage.code) == (plan.snapshot.content, 0, manifest.code)
    assert lineage.libraries.items() >= manifest.libraries.items()
    assert {"python", "numpy"} <= lineage.libraries.keys()
    assert lineage.hardware.cpus >= 1 and lineage.hardware.backend in manifest.libraries
    assert lineage.finished_at <= manifest.created_at
    folder = f"models/{config.name}/{plan.version}"
    metrics = json.loads(store.get(f"{folder}/metrics.json"))
    assert metrics["cv"] == manifest.cv
    assert [fold["fold"] for fold in metrics["folds"]] == [0, 1, 2]
    card = store.get(f"{folder}/model_card.md").decode()
    assert card.startswith(f"# squares {plan.version}\n")
    digests = (plan.snapshot.content, contracts.digest(config), manifest.files[0].sha256)
    for said in (*digests, *CLASSES, "Not filled in", lineage.finished_at):
        assert said in card
    card = card.replace("\\", "")
    assert "small_cnn: (N, 12, 12, 1) uint8 in, (N, 3) float32 out, N examples each. 8 layers with" in card
    assert "| conv_1 | Conv2D | (N, 10, 10, 4) float32 | 40 |" in card
    mean = manifest.cv["accuracy"]["mean"]
    assert f"| accuracy | {mean:.4f} |" in card


@pytest.mark.slow
def test_the_card_says_how_to_load_it(store: Store, trained: Any, tmp_path: Path) -> None:
    """The code in the card, run in the package's folder by a process that knows nothing of leptonflow."""
    _, config, plan = trained
    folder = store.path(f"models/{config.name}/{plan.version}")
    assert folder is not None
    code = (folder / "model_card.md").read_text().split("```python\n")[1].split("```")[0]
    examples = example_sets.training_set(store, config, plan.snapshot)
    np.save(tmp_path / "pixels.npy", examples.inputs[:8])
    script = f"import numpy\npixels = numpy.load({str(tmp_path / 'pixels.npy')!r})\n{code}\nprint(predictions)"
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=folder, env=clean, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    expected = packages.load(store, config.name, plan.version).predict(examples.inputs[:8]).argmax(1)
    assert done.stdout.splitlines()[-1] == str([CLASSES[number] for number in expected])


# --- the model for ONNX Runtime ------------------------------------------------------------------


def export_of(store: Store, folder: str) -> Export:
    return Export.model_validate_json(store.get(f"{folder}/onnx.json"))


def test_a_package_is_served_in_onnx_runtime_and_predicts_as_keras_does(store: Store, trained: Any) -> None:
    _, config, plan = trained
    folder = f"models/{config.name}/{plan.version}"
    export = export_of(store, folder)
    assert export.reason is None and export.features == 8
    assert export.difference is not None and export.difference <= onnx_session.TOLERANCE
    assert export.latency_ms is not None and export.latency_ms > 0
    data = store.get(f"{folder}/model.onnx")
    assert (export.sha256, export.bytes) == (sha256(data), len(data))
    told = store.get(f"{folder}/model_card.md").decode()
    assert f"model.onnx ({len(data)} bytes)" in told and f"up to {export.latency_ms} ms" in told
    served = served_models.load(store, config.name, plan.version)
    assert (served.runtime, served.why_keras) == ("onnxruntime", None)
    examples = example_sets.training_set(store, config, plan.snapshot)
    rows, features = served.predict_encoded(served.encode(examples.inputs))
    expected = packages.load(store, config.name, plan.version).predict(examples.inputs)
    np.testing.assert_allclose(rows, expected, atol=onnx_session.TOLERANCE)
    assert rows.dtype == np.float64 and features is not None and features.shape == (len(rows), 8)


def test_what_an_earlier_packaging_exported_is_held_against_keras_before_it_is_adopted(
    store: Store, trained: Any, build: Any
) -> None:
    _, config, plan = trained
    folder = f"models/{config.name}/{plan.version}"
    good = store.get(f"{folder}/model.onnx")
    for there, reason in ((good + b"", None), (b"cut off", "ONNX Runtime cannot load the model")):
        for name in ("manifest.json", "model_card.md", "onnx.json", "model.onnx"):
            path = store.path(f"{folder}/{name}")
            assert path is not None
            path.unlink()
        store.create(f"{folder}/model.onnx", there)
        build(store, config, plan)
        packages.verify(store, config.name, plan.version)
        export = export_of(store, folder)
        served = served_models.load(store, config.name, plan.version)
        if reason is None:
            assert export.sha256 == sha256(good) and served.runtime == "onnxruntime"
        else:
            assert reason in str(export.reason) and served.runtime == "keras" and reason in str(served.why_keras)


def test_a_model_that_cannot_be_exported_says_why(store: Store, trained: Any, exporter: RequestProcess) -> None:
    """Factors of a matrix: the converter knows no such operation."""
    _, config, plan = trained
    keras = keras_models.keras()
    images = keras.layers.Input((12, 12, 1), dtype="uint8")
    matrix = keras.ops.cast(keras.ops.squeeze(images, 3), "float32")
    flat = keras.layers.Flatten()(keras.ops.qr(matrix)[1])
    model = keras.Model(images, keras.layers.Dense(3, activation="softmax")(flat))
    examples = example_sets.training_set(store, config, plan.snapshot)
    lying = {
        "model.keras": keras_models.save(model), "config.json": canonical(config),
        "reference.parquet": package_builder.write_reference(config, model, None, examples),
    }  # fmt: skip
    made = onnx_files.files(config, lying, lambda name, data: data, exporter)
    assert set(made) == {"onnx.json"}
    reason = Export.model_validate_json(made["onnx.json"]).reason
    assert reason is not None and "Qr" in reason
    (off,) = onnx_files.files(pipeline(), lying, lambda name, data: data, exporter).values()
    assert Export.model_validate_json(off).reason == onnx_files.OFF


def test_the_same_model_is_exported_as_the_same_bytes(store: Store, trained: Any) -> None:
    _, config, plan = trained
    package = packages.load(store, config.name, plan.version)
    exported = onnx_export.export(package.model, np.zeros((1, 12, 12, 1), np.uint8))
    assert exported == store.get(f"models/{config.name}/{plan.version}/model.onnx")


def test_a_second_writer_tells_of_the_first_ones_machine(store: Store, trained: Any, build: Any) -> None:
    """What one writer left before it was killed is adopted, its times and its hardware included."""
    _, config, plan = trained
    folder = f"models/{config.name}/{plan.version}"
    first = packages.manifest(store, config.name, plan.version).lineage
    assert first is not None
    machine = first.hardware.model_copy(update={"cpu": "Another Processor", "cpus": 977})
    there = first.model_copy(update={"hardware": machine, "finished_at": "2020-01-01T00:00:00.000000Z"})
    for name in ("manifest.json", "model_card.md", "lineage.json"):
        path = store.path(f"{folder}/{name}")
        assert path is not None
        path.unlink()
    store.create(f"{folder}/lineage.json", canonical(there))
    build(store, config, plan)
    assert packages.verify(store, config.name, plan.version).lineage == there
    assert "977 CPUs of Another Processor" in store.get(f"{folder}/model_card.md").decode()


def test_a_manifest_from_before_lineage_was_kept_is_read(store: Store, trained: Any) -> None:
    _, config, plan = trained
    path = store.path(f"models/{config.name}/{plan.version}/manifest.json")
    assert path is not None
    old = json.loads(path.read_bytes())
    del old["lineage"]
    old["files"] = [f for f in old["files"] if f["key"] not in NEWER]
    path.chmod(0o644)
    path.write_bytes(canonical(old))
    found = packages.load(store, config.name, plan.version).manifest
    assert found.lineage is None and packages.contract(store, found) is None


def test_packaging_again_changes_nothing(store: Store, trained: Any, build: Any) -> None:
    _, config, plan = trained
    before = dict(store.list(""))
    first = packages.reference(store, config.name, plan.version)
    assert build(store, config, plan) == first
    assert dict(store.list("")) == before


def test_a_package_cut_off_before_its_manifest_is_finished(store: Store, trained: Any, build: Any) -> None:
    _, config, plan = trained
    folder = f"models/{config.name}/{plan.version}"
    for name in ("manifest.json", "labels.json"):
        path = store.path(f"{folder}/{name}")
        assert path is not None
        path.unlink()
    with pytest.raises(NotFound, match=f"no version {plan.version}"):
        packages.load(store, config.name, plan.version)
    assert packages.versions(store, config.name) == []
    build(store, config, plan)
    packages.verify(store, config.name, plan.version)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_file_is_named_before_keras_opens_it(
    store: Store, trained: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config, plan = trained
    key = f"models/{config.name}/{plan.version}/{name}"
    change(store, key)
    monkeypatch.setattr(packages, "_models", {})
    monkeypatch.setattr(keras_models, "load", lambda *_: pytest.fail("Keras opened an unverified file"))
    load = served_models.load if name == "model.onnx" else packages.load  # Keras does not take that one
    for check in (packages.verify, load):
        with pytest.raises(Damaged, match=key):
            check(store, config.name, plan.version)


def test_another_manifest_than_the_recorded_one_is_damage(store: Store, trained: Any) -> None:
    _, config, plan = trained
    sha = packages.reference(store, config.name, plan.version).manifest_sha256
    change(store, f"models/{config.name}/{plan.version}/manifest.json")
    for check in (packages.verify, packages.load):
        with pytest.raises(Damaged, match=r"manifest\.json"):
            check(store, config.name, plan.version, sha)


# --- a fresh process -----------------------------------------------------------------------------


def test_a_fresh_process_reproduces_the_predictions_and_the_pass_is_recorded(validated: Any, trained: Any) -> None:
    _, config, plan = trained
    store, first = validated
    sha = packages.reference(store, config.name, plan.version).manifest_sha256
    assert first.passed and not first.reused, first.sentence
    assert first.largest_difference is not None and first.largest_difference <= TOLERANCE
    assert first.onnx_difference is not None and first.onnx_difference <= TOLERANCE and first.onnx is None
    holdout = len(example_sets.holdout_set(store, config, plan.snapshot).ids)
    assert first.examples == package_builder.REFERENCE_EXAMPLES + holdout
    began = time.perf_counter()
    again = load_check.validate(store, config, plan.version, sha)
    assert again.reused and again.passed
    assert time.perf_counter() - began < 1  # no process was started
    change(store, f"models/{config.name}/{plan.version}/model.keras")  # a recorded pass hides no later damage
    later = load_check.validate(store, config, plan.version, sha)
    assert not later.passed and "model.keras" in later.sentence


def test_a_package_that_does_not_reproduce_its_predictions_does_not_pass(store: Store, trained: Any) -> None:
    _, config, plan = trained
    folder = f"models/{config.name}/{plan.version}"
    examples = example_sets.training_set(store, config, plan.snapshot)
    package = packages.load(store, config.name, plan.version)

    class Other:
        def predict_on_batch(self, pixels: Any) -> Any:
            return np.asarray(package.model.predict_on_batch(pixels)) + 1e-3

    data = package_builder.write_reference(config, Other(), None, examples)
    manifest = packages.manifest(store, config.name, plan.version)
    changed = {"sha256": sha256(data), "bytes": len(data)}
    files = tuple(f.model_copy(update=changed) if f.key == "reference.parquet" else f for f in manifest.files)
    text = canonical(manifest.model_copy(update={"files": files}))
    for name, new in (("reference.parquet", data), ("manifest.json", text)):
        path = store.path(f"{folder}/{name}")
        assert path is not None
        path.chmod(0o644)
        path.write_bytes(new)
    result = load_check.validate(store, config, plan.version, sha256(text))
    assert not result.passed
    assert result.largest_difference == pytest.approx(1e-3, rel=1e-3)
    assert list(store.list(f"{folder}/infra")) == []


def test_a_fresh_process_that_dies_is_a_rule_that_did_not_pass(store: Store, trained: Any) -> None:
    _, config, plan = trained
    sha = packages.reference(store, config.name, plan.version).manifest_sha256
    fresh = fresh_process.FreshProcess()
    fresh.start()
    assert fresh._child is not None
    pid = fresh._child.process.pid
    os.kill(pid, signal.SIGSTOP)  # so that it is alive, and dies before it can answer
    killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({pid}, 9)"])
    result = load_check.validate(store, config, plan.version, sha, fresh=fresh)
    killer.wait()
    assert not result.passed
    assert "status -9" in result.sentence


@pytest.mark.slow
def test_a_record_that_is_no_pass_of_these_bytes_is_made_again(validated: Any, trained: Any) -> None:
    """It neither counts as a pass nor bars the version for ever."""
    _, config, plan = trained
    store, first = validated
    sha = packages.reference(store, config.name, plan.version).manifest_sha256
    key = load_check.record_key(config.name, plan.version, sha, config)
    path = store.path(key)
    assert path is not None
    path.chmod(0o644)
    for data in (b"garbage", canonical(first.model_copy(update={"manifest_sha256": "0" * 64}))):
        path.write_bytes(data)
        again = load_check.validate(store, config, plan.version, sha)
        assert again.passed and not again.reused and again.manifest_sha256 == sha
        assert path.read_bytes() == data


def test_a_process_that_died_waiting_is_replaced_and_leaves_no_pipe_open() -> None:
    with fresh_process.FreshProcess() as fresh:
        fresh.start()
        first = fresh._child
        assert first is not None and first.process.stdin is not None
        first.process.kill()
        first.process.wait()
        fresh.start()
        second = fresh._child
        assert second is not None and second is not first and first.errors.closed and first.process.stdin.closed
    assert second.process.poll() is not None and second.errors.closed  # it ended with the block


def test_a_fresh_process_finds_what_lies_in_a_memory_store(store: Store, trained: Any) -> None:
    _, config, plan = trained
    memory = MemoryStore("memory://packages")
    for key, _ in store.list("models"):
        memory.create(key, store.get(key))
    with load_check._reachable(memory, config.name, plan.version) as uri:
        assert uri.startswith("file://")
        packages.verify(open_store(uri), config.name, plan.version)


def test_the_fresh_process_ends_with_its_parent() -> None:
    script = (
        "import os\n"
        "from leptonflow.evaluation import fresh_process\n"
        "fresh = fresh_process.FreshProcess()\n"
        "fresh.start()\n"
        "print(fresh._child.process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    pid = int(done.stdout)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline, "the fresh process outlived its parent"
        time.sleep(0.1)


# --- malformed inputs, latency and size


def test_the_fresh_process_measures_and_a_recorded_pass_keeps_it(validated: Any, trained: Any) -> None:
    _, config, plan = trained
    store, found = validated
    sha = packages.reference(store, config.name, plan.version)
    assert found.passed, found.sentence
    assert found.package_bytes == sha.bytes
    assert found.latency_ms is not None and 0 < found.latency_ms < 10_000
    assert found.malformed >= 6
    again = load_check.validate(store, config, plan.version, sha.manifest_sha256, plan)
    assert again.reused and (again.latency_ms, again.malformed) == (found.latency_ms, found.malformed)
    for rule, why in (({"rule": "latency", "value": 1e-6}, "95 of 100 predictions take"),
                      ({"rule": "size", "value": 1e-6}, "the package has")):  # fmt: skip
        over = load_check.validate(store, pipeline(gate=[rule]), plan.version, sha.manifest_sha256)
        assert over.reused and not over.passed and over.sentence.startswith(why)
    wide = pipeline(gate=[{"rule": "latency", "value": 1e6}, {"rule": "size", "value": 1e6}])
    assert load_check.validate(store, wide, plan.version, sha.manifest_sha256).passed


def test_an_answer_to_what_is_no_image_is_a_finding(store: Store, trained: Any, monkeypatch: Any) -> None:
    _, config, plan = trained
    package = packages.load(store, config.name, plan.version)
    assert fresh_process._garbage(package)[0] is None
    monkeypatch.setattr(packages.Package, "predict", lambda self, pixels: np.full((1, 3), 1 / 3))
    assert fresh_process._garbage(package) == ("an array of another height", fresh_process._garbage(package)[1])


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint16])
def test_pixels_of_another_type_are_refused(store: Store, trained: Any, dtype: Any) -> None:
    _, config, plan = trained
    package = packages.load(store, config.name, plan.version)
    with pytest.raises(TrainingError, match=r"uint8.*float32|uint8.*int64|uint8.*uint16"):
        package.predict(np.zeros((1, 12, 12, 1), dtype))

"""A fit that ends on its way goes on from its checkpoint, to the weights of one that never ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.stack import processes
from leptonflow.core import progress, store_keys
from leptonflow.core.hashing import sha256
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.training import batches, checkpoints, model_fits
from leptonflow.training.early_stopping import Watch
from leptonflow.training.fit_state import FitPlace, FitState
from leptonflow.training.runners.fit_process import Processes
from leptonflow.training.runners.seats import Seat
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import StoreUnreachable, TrainingError
from schemas.records import FitResult, Plan
from tests.fit_examples import CLASSES, land, pipeline

EVERYTHING: dict[str, Any] = {
    "epochs": 4, "batch_size": 16, "folds": 2, "deterministic": True, "checkpoint": {"minutes": 1e-9},
    "optimizer": {"name": "adam", "learning_rate": 0.01, "schedule": "plateau", "ema": 0.9, "clip_norm": 1.0},
    "early_stopping": {"patience": 2, "fraction": 0.2, "metric": "log_loss"}, "class_weights": "balanced",
    "augment": [{"shift": 0.1}, {"mixup": 0.2}],
}  # fmt: skip


def saved(store: Store) -> list[str]:
    """The keys of the checkpoints. Beside them lies how far a fit is, if that takes long enough to be said."""
    return [key for key in store.keys("scratch/squares") if key.endswith(".npz")]


def fit(
    store: Store, config: Pipeline, plan: Plan, workspace: Workspace, stop_after: int | None = None
) -> tuple[FitResult | None, list[str]]:
    """(fold 1, or None where it was stopped after so many reports of progress, what was noted of it meanwhile)."""
    noted: list[str] = []

    def note(text: str) -> None:
        noted.extend([text] if "fold 1" in text else [])

    reports = iter(range(10**6))

    def report(stage: str, done: int, total: int) -> None:
        if next(reports) + 1 == stop_after:
            end()

    with progress.listen(report, note) as end:
        try:
            return model_fits.train_fold(store, config, plan, 0, workspace), noted
        except progress.Stopped:
            return None, noted


def finished(config: Pipeline, workspace: Workspace, stops: Sequence[int] = ()) -> tuple[FitResult, bytes, list[str]]:
    """Fold 1 and its predictions, of a fit that was stopped after so many steps each time; and what it noted."""
    store = MemoryStore("memory://checkpoints")
    plan = land(store, config, count=120)
    notes: list[str] = []
    for steps in stops:
        stopped, noted = fit(store, config, plan, workspace, steps)
        assert stopped is None
        assert len(saved(store)) == 1, "one checkpoint, the newest"
        notes += noted
    made, noted = fit(store, config, plan, workspace)
    assert made is not None
    assert saved(store) == []
    return made, store.get(made.files[0].key), notes + noted


def values(made: FitResult) -> list[tuple[int, str, float]]:
    return [(each.epoch, each.metric, each.value) for each in made.epochs]


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step in a call of the backend, so that where a fit is stopped does not depend on how fast it is."""
    monkeypatch.setattr(batches, "MOST", 1)


@pytest.mark.usefixtures("single")
def test_a_fit_that_was_stopped_twice_ends_as_one_that_never_was() -> None:
    quick = {**EVERYTHING, "augment": [{"mixup": 0.2}]}  # which is quicker to trace
    config, workspace = pipeline(training=quick), Workspace()  # one, to trace the model once: a fit starts anew
    whole, predictions, noted = finished(config, workspace)
    assert noted == []
    assert whole.cost is not None
    again, same, noted = finished(config, workspace, [3, 4])  # steps, of three in an epoch
    assert noted == [
        "fold 1 goes on from a checkpoint: epoch 1, step 3 of 3",
        "fold 1 goes on from a checkpoint: epoch 3, step 2 of 3",
    ]
    assert same == predictions
    assert values(again) == values(whole) and again.best_epoch == whole.best_epoch
    assert again.cost is not None and again.cost.steps == whole.cost.steps


@pytest.mark.usefixtures("single")
def test_a_fit_that_is_stopped_as_early_stopping_ends_it_has_no_epoch_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    still = {"name": "sgd", "learning_rate": 1e-30}
    early = {"metric": "log_loss", "patience": 1, "fraction": 0.2}
    config, store = (
        pipeline(training={**PLAIN, "epochs": 9, "optimizer": still, "early_stopping": early}),
        MemoryStore("memory://ends"),
    )
    plan, workspace, judged = land(store, config, count=120), Workspace(), list[int]()
    ends = Watch.ends

    def signalled(self: Watch, epoch: int, value: float) -> bool:
        judged.append(epoch)
        if judged == [1, 2]:
            end()
        return ends(self, epoch, value)

    monkeypatch.setattr(Watch, "ends", signalled)
    with progress.listen() as end, pytest.raises(progress.Stopped):
        model_fits.train_fold(store, config, plan, 0, workspace)
    assert len(saved(store)) == 1
    made = model_fits.train_fold(store, config, plan, 0, workspace)
    assert judged == [1, 2] and made.best_epoch == 1
    assert [each.epoch for each in made.epochs if each.metric == "loss"] == [1, 2]


PLAIN = {"epochs": 2, "batch_size": 16, "folds": 2, "checkpoint": {"minutes": 1e-9}}


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    return Workspace()


def stopped(config: Pipeline, workspace: Workspace, steps: int = 4) -> tuple[MemoryStore, Plan, str]:
    """A store with a fit that was stopped on its way, its plan, and its checkpoint's key."""
    store = MemoryStore("memory://stopped")
    plan = land(store, config, count=120)
    assert fit(store, config, plan, workspace, steps)[0] is None
    (key,) = saved(store)
    return store, plan, key


@pytest.mark.usefixtures("single")
def test_a_checkpoint_that_is_damaged_or_of_another_fit_is_ignored(workspace: Workspace) -> None:
    config, hostile = pipeline(training=PLAIN), b"hostile"
    store, plan, key = stopped(config, workspace)
    longer = pipeline(training={**PLAIN, "epochs": 3})  # with the same version, which no planning would give it
    folder = key.rpartition("/")[0]
    store.create(f"{folder}/000008-000000009-{sha256(hostile)}.npz", hostile)
    store.create(f"{folder}/000009-000000009-{'0' * 64}.npz", store.get(key)[:-1])
    made, noted = fit(store, longer, plan, workspace, stop_after=1)
    assert made is None and [key.rpartition("-")[0] for key in saved(store)] == [f"{folder}/000001-000000002"]
    told = ("Expected: sha256", "Expected: an .npz file", "Expected: 3 epochs of 3 steps. Received: [2, 3] epochs")
    for line, words in zip(noted, told, strict=True):
        assert line.startswith("a checkpoint of fold 1 is ignored: scratch/") and words in line
        assert line.endswith("The fit starts from its beginning instead.")

    wider = pipeline(model={"filters": [4, 8], "dense": 16}, training=PLAIN)
    models = Workspace().models(catalog.load(wider.workload), wider, CLASSES, 0, 6)
    state = FitState(models, [], (3, 3))
    with progress.listen(None, noted.append):
        keeper = checkpoints.Keeper(FitPlace(store, "squares", "a" * 12, "b" * 12, 0), 1)
        keeper.resume(state)
        assert (state.epoch, state.step) == (1, 0) and "variables of the model's shapes" in noted[-1]
        weights = models.trainer.trainable_variables[0]
        weights.assign(np.full(weights.shape, np.inf))
        keeper.save(state)
        assert "no checkpoint of fold 1: a weight or an optimizer value is not a finite number" in noted[-1]
        next(layer for layer in models.trainer.layers if layer.trainable_variables).trainable = False
        keeper.save(state)  # a mask of a layer, say
        assert keeper.newest is not None and saved(store) == [keeper.newest]


def test_a_fit_that_diverges_leaves_the_last_good_checkpoint_and_names_it(workspace: Workspace) -> None:
    config = pipeline(training={**PLAIN, "optimizer": {"name": "sgd", "learning_rate": 1e9}})
    store = MemoryStore("memory://diverged")
    plan = land(store, config, count=120)
    with pytest.raises(TrainingError, match=r"diverged.* at step \d of epoch 1, fold 1.*last checkpoint before it is"):
        model_fits.train_fold(store, config, plan, 0, Workspace())
    (key,) = saved(store)
    with np.load(BytesIO(store.get(key)), allow_pickle=False) as file:
        assert all(np.isfinite(file[name]).all() for name in file.files)


def test_a_fit_with_callbacks_of_the_user_starts_anew_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import keras\ndef callbacks(training):\n    return [keras.callbacks.Callback()]\n"
    )
    config = pipeline(model={"filters": [4], "callbacks": "own:callbacks"}, training=PLAIN)
    config = config.model_copy(update={"folder": tmp_path})
    store = MemoryStore("memory://own")
    made, noted = fit(store, config, land(store, config, count=120), Workspace(), stop_after=3)
    assert made is None and saved(store) == []
    assert set(noted) == {"no checkpoint of fold 1: model.callbacks may have state that it cannot hold"}


class Full(MemoryStore):
    """Has no room for what is not a result."""

    def create(self, key: str, data: bytes) -> None:
        if key.startswith(store_keys.SCRATCH):
            raise StoreUnreachable("no space left on device")
        super().create(key, data)


def test_a_store_that_takes_no_checkpoint_stops_no_fit(workspace: Workspace) -> None:
    config, store = pipeline(training=PLAIN), Full("memory://full")
    made, noted = fit(store, config, land(store, config, count=120), workspace)
    assert made is not None
    assert set(noted) == {"a checkpoint of fold 1 could not be written: no space left on device."}


class Slow(MemoryStore):
    """Takes its time for the first checkpoint, and refuses the others."""

    def __init__(self) -> None:
        super().__init__("memory://slow")
        self.writing, self.go = threading.Event(), threading.Event()

    def create(self, key: str, data: bytes) -> None:
        if key.endswith(".npz"):
            if self.writing.is_set():
                raise StoreUnreachable("too many checkpoints")
            self.writing.set()
            assert self.go.wait(60), "the fit waits for it"
        super().create(key, data)


@pytest.mark.usefixtures("single")
def test_a_fit_goes_on_while_its_checkpoint_is_written_which_does_not_change_with_it(workspace: Workspace) -> None:
    config, store = pipeline(training=PLAIN), Slow()
    plan, made, noted = land(store, config, count=120), list[int](), list[str]()

    def report(stage: str, done: int, total: int) -> None:
        made.append(done)
        if len(made) == 4:
            assert store.writing.is_set() and not saved(store)
            store.go.set()
        if len(made) == 5:
            raise RuntimeError("an error of the user's code")

    with progress.listen(report, noted.append), pytest.raises(RuntimeError):
        model_fits.train_fold(store, config, plan, 0, workspace)
    (key,) = saved(store)
    assert "/000001-000000001-" in key
    resumed, said = fit(store, config, plan, workspace)
    assert "fold 1 goes on from a checkpoint: epoch 1, step 1 of 3" in said
    assert resumed is not None
    whole, predictions, _ = finished(config, workspace)
    assert store.get(resumed.files[0].key) == predictions and values(resumed) == values(whole)


def test_what_the_write_of_a_checkpoint_raises_is_raised_by_the_fit(workspace: Workspace) -> None:
    class Short(MemoryStore):
        def create(self, key: str, data: bytes) -> None:
            if key.endswith(".npz"):
                raise MemoryError("for a checkpoint")
            super().create(key, data)

    config, store = pipeline(training=PLAIN), Short("memory://short")
    with pytest.raises(TrainingError, match="MemoryError: for a checkpoint"):
        model_fits.train_fold(store, config, land(store, config, count=120), 0, workspace)


CHILD = """
import sys
from leptonflow.core import progress
from leptonflow.storage.address import open_store
from leptonflow.training import checkpoints, model_fits
from tests.fit_examples import CLASSES, land, pipeline
from tests.unit.test_checkpoints import EVERYTHING
store, config = open_store(sys.argv[1]), pipeline(training=EVERYTHING)
plan = land(store, config, count=120)
with progress.listen(lambda *told: print(*told, flush=True), lambda text: print(text, file=sys.stderr)):
    made = model_fits.train_fold(store, config, plan, 0)
"""


def trained(folder: Path, backend: str, kills: Sequence[int] = ()) -> tuple[bytes, list[str]]:
    """Fold 1's predictions, of processes that were killed at so many steps of theirs; what the last one noted of it."""
    store = open_store(folder.as_uri())
    for steps in (*kills, None):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, store.uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "KERAS_BACKEND": backend},
        )  # fmt: skip
        assert child.stdout is not None
        lines = iter(child.stdout)
        for _ in range(steps or 0):
            next(lines)
        if steps is not None:
            while not saved(store):  # a thread writes it, while the steps go on
                next(lines)
            child.kill()
        _, errors = child.communicate()
        assert child.returncode == (0 if steps is None else -signal.SIGKILL), errors
    assert not saved(store)
    (key,) = [key for key in store.keys("fits") if key.endswith("oof.parquet")]
    return store.get(key), [line for line in errors.splitlines() if "fold 1" in line]


@pytest.mark.slow  # three processes and more for each backend; above, one process is stopped in every run
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_after_kill_9_a_fit_ends_in_the_same_weights(tmp_path: Path, backend: str) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed: `pip install {backend}` to run this")
    kills = [int(steps) for steps in np.random.default_rng().integers(1, 4, 3)]
    print(f"killed after {kills} steps")
    whole, noted = trained(tmp_path / "whole", backend)
    assert noted == []
    again, noted = trained(tmp_path / "killed", backend, kills)
    assert len(noted) == 1 and noted[0].startswith("fold 1 goes on from a checkpoint: epoch ")
    assert again == whole


@pytest.mark.slow  # two processes that import Keras
def test_the_process_of_a_fit_that_is_killed_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    store, config = open_store(tmp_path.as_uri()), pipeline(training={**PLAIN, "epochs": 30, "batch_size": 4})
    plan, noted = land(store, config, count=120), list[str]()

    def report(stage: str, done: int, total: int) -> None:
        if saved(store) and not noted:
            for pid in processes.descendants(os.getpid()):
                os.kill(pid, signal.SIGKILL)

    with progress.listen(report, lambda text: noted.extend([text] if "fold 1" in text else [])):
        made = Processes([Seat()]).fit(store.uri, config, plan, 0)
    assert noted[0].startswith("the process of fold 1 was killed by signal 9") and " MB of the machine's " in noted[0]
    assert noted[1].startswith("fold 1 goes on from a checkpoint: epoch ")
    assert made.cost is not None and made.cost.steps == 30 * 11 and not saved(store)

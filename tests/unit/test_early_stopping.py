"""Early stopping: on which examples, which weights are kept, and what the final fit makes of the folds' best epochs."""

from __future__ import annotations

import numpy as np
import pytest

from leptonflow.registry import model_cards
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.training import early_stopping, model_fits
from leptonflow.training.workspace import Workspace
from schemas.errors import ConfigurationError, TrainingError
from schemas.records import FitResult
from schemas.training import EarlyStopping
from tests.fit_examples import land, pipeline

TRAINING = {"epochs": 2, "batch_size": 16, "folds": 3}


@pytest.fixture
def store() -> Store:
    return MemoryStore("memory://stopping")


def test_what_is_held_back_is_of_the_fits_own_examples() -> None:
    kept, labels = np.arange(0, 200, 2), np.arange(200) % 3
    learned, watched = early_stopping.parted(EarlyStopping(fraction=0.3), kept, labels, None, 5)
    assert sorted([*learned, *watched]) == kept.tolist() and len(watched) == 30
    assert np.bincount(labels[watched]).tolist() == [10, 10, 10]
    again = early_stopping.parted(EarlyStopping(fraction=0.3), kept, labels, None, 5)
    np.testing.assert_array_equal(watched, again[1])
    assert early_stopping.parted(EarlyStopping(fraction=0.3), kept, labels, None, 6)[1].tolist() != watched.tolist()


def test_numbers_as_targets_are_held_back_at_random() -> None:
    learned, watched = early_stopping.parted(EarlyStopping(), np.arange(50), np.linspace(0, 1, 50), None, 0)
    assert (len(learned), len(watched)) == (45, 5)


def test_a_group_is_held_back_as_a_whole() -> None:
    kept, labels = np.arange(100), np.arange(100) % 2
    groups = [f"patient {number // 7}" for number in range(100)]
    learned, watched = early_stopping.parted(EarlyStopping(fraction=0.3), kept, labels, groups, 0)
    sides = [{groups[number] for number in side} for side in (learned, watched)]
    assert not sides[0] & sides[1] and len(sides[1]) == 5


def test_too_few_examples_to_hold_some_back_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot hold back 0\.1 of the examples of a fit.*6 examples"):
        early_stopping.parted(EarlyStopping(), np.arange(6), np.arange(6) % 3, None, 0)
    with pytest.raises(ConfigurationError, match=r"of the groups of a fit.*1 groups"):
        early_stopping.parted(EarlyStopping(), np.arange(6), np.arange(6) % 3, ["one"] * 6, 0)


STOPPED = {
    **TRAINING, "epochs": 20, "learning_rate": 0.02, "final_epochs": "folds_median",
    "early_stopping": {"patience": 2, "fraction": 0.3, "metric": "log_loss"},
}  # fmt: skip


@pytest.mark.slow
def test_the_best_epochs_weights_are_kept_and_set_the_final_fits_epochs(store: Store) -> None:
    made = pipeline(training=STOPPED)
    plan, workspace = land(store, made), Workspace()
    with pytest.raises(TrainingError, match=r"best epoch of every fold.*3 finished folds\. Received: 0"):
        model_fits.fit_final(store, made, plan, workspace)
    best = []
    for fold in range(3):
        fit = model_fits.train_fold(store, made, plan, fold, workspace)
        values = [each.value for each in fit.epochs if each.metric == "stop_log_loss"]
        assert fit.best_epoch == 1 + int(np.argmin(values))
        assert len(values) in (fit.best_epoch + 2, 20)
        curve = [each.value for each in fit.epochs if each.metric == "val_loss"]
        assert fit.metrics["log_loss"] == pytest.approx(curve[fit.best_epoch - 1], rel=1e-3)
        best.append(fit.best_epoch)
    final = model_fits.fit_final(store, made, plan, workspace)
    assert max(each.epoch for each in final.epochs) == int(np.median(best))
    assert final.best_epoch is None and not any(each.metric.startswith("stop_") for each in final.epochs)
    elsewhere = MemoryStore("memory://elsewhere")  # as `reproduce` trains again: the folds lie on another store
    land(elsewhere, made)
    again = model_fits.fit_final(elsewhere, made, plan, origin=store)
    assert [each.metric for each in again.epochs] == [each.metric for each in final.epochs]


def test_without_folds_median_the_final_fit_stops_by_its_own_examples(store: Store) -> None:
    still = {"name": "sgd", "learning_rate": 1e-12, "schedule": "plateau"}  # nothing gets better
    made = pipeline(training={**TRAINING, "epochs": 50, "optimizer": still, "early_stopping": {"patience": 4}})
    workspace = Workspace()
    fit = model_fits.fit_final(store, made, land(store, made), workspace)
    assert fit.best_epoch == 1 and max(each.epoch for each in fit.epochs) == 5
    assert model_cards._ended(fit) == " and 5 epochs, the weights of epoch 1 were kept"
    assert workspace._models is not None
    rate = float(workspace._models.trainer.optimizer.learning_rate)
    assert rate == pytest.approx(0.5e-12), "a plateau is one of the metric of early stopping"


def test_the_median_of_an_even_number_of_folds_is_rounded_up() -> None:
    fits = [
        FitResult(version="v", fold=n, metrics={}, epochs=(), files=(), seconds=1, examples=1, best_epoch=best)
        for n, best in enumerate((3, 8, 4, 9))
    ]
    assert early_stopping.median_epoch(fits) == 6
    assert early_stopping.median_epoch(fits[:3]) == 4

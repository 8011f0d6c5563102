"""`training.tensorboard`: what lies in the event files, and that a fit is the same with and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training import event_files, model_fits
from schemas.errors import ConfigurationError
from schemas.records import FitResult
from tests.fit_examples import land, pipeline

TRAINING = {"epochs": 2, "batch_size": 16, "folds": 2}


def fit(**training: object) -> FitResult:
    config = pipeline(training={**TRAINING, **training})
    store = MemoryStore("memory://any")
    return model_fits.train_fold(store, config, land(store, config, count=60), 1)


@pytest.mark.slow
def test_the_learning_curve_lies_where_tensorboard_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    monkeypatch.chdir(tmp_path)
    plain = fit()
    assert list(tmp_path.iterdir()) == []
    watched = fit(tensorboard=True)
    assert [each.model_dump(exclude={"seconds"}) for each in watched.epochs] == [
        each.model_dump(exclude={"seconds"}) for each in plain.epochs
    ]
    assert watched.files == plain.files
    (file,) = (tmp_path / ".leptonflow/tensorboard/squares" / ("a" * 12) / "fold-1").iterdir()
    assert ".tfevents." in file.name
    first, *events = tf.compat.v1.train.summary_iterator(str(file))
    assert first.file_version == "brain.Event:2"
    found = {(event.step, value.tag): value.simple_value for event in events for value in event.summary.value}
    assert found == pytest.approx({(each.epoch, each.metric): each.value for each in plain.epochs}, rel=1e-6)
    assert {"loss", "val_loss"} <= {name for _, name in found}


def test_a_folder_that_cannot_be_written_is_told_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".leptonflow").write_text("a file")
    with (
        pytest.raises(ConfigurationError, match=r"training\.tensorboard is true.*Received: .*Not a directory"),
        event_files.opened(pipeline(training={**TRAINING, "tensorboard": True}), "a" * 12, None),
    ):
        pass

"""`gradient_accumulation`: the weights change as with the whole batch, and a schedule counts these changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.core import store_keys
from leptonflow.keras_runtime import keras_models, optimizers
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training import model_fits
from schemas.config import parse
from schemas.errors import ConfigurationError
from schemas.training import Optimizer
from tests.fit_examples import land, pipeline

PLAIN = {"name": "sgd", "learning_rate": 0.1}


def weights(name: str, batch_size: int, optimizer: dict[str, Any]) -> list[Any]:
    """Of the final fit on a number of examples that every batch size here divides."""
    training = {"epochs": 1, "folds": 2, "batch_size": batch_size, "optimizer": {**PLAIN, **optimizer}}
    config = pipeline(training=training, model={"filters": [4], "dense": 8, "dropout": 0.0}, holdout={"fraction": 0.01})
    store = MemoryStore(f"memory://{name}")
    plan = land(store, config, count=98)  # 96 without the holdout
    fit = model_fits.fit_final(store, config, plan)
    assert fit.examples == 96
    model = keras_models.load(store.get(store_keys.fit_key(config.name, "a" * 12, None, "model.keras")))
    return [np.asarray(each) for each in model.get_weights()]


@pytest.mark.slow
def test_the_weights_change_as_with_the_whole_batch() -> None:
    whole = weights("whole", 32, {"clip_norm": 1.0})
    parts = weights("parts", 8, {"clip_norm": 1.0, "gradient_accumulation": 4})
    small = weights("small", 8, {"clip_norm": 1.0})
    for mine, theirs in zip(parts, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
    assert max(np.abs(a - b).max() for a, b in zip(small, whole, strict=True)) > 1e-3


def test_a_schedule_counts_the_changes_of_the_weights() -> None:
    given = Optimizer(name="sgd", schedule="cosine", gradient_accumulation=4)
    assert optimizers.optimizer(given, 40)._learning_rate.decay_steps == 10


def test_it_is_in_a_document_only_where_it_is_set() -> None:
    plain = pipeline(training={"optimizer": PLAIN, "batch_size": 8})
    assert "gradient_accumulation" not in plain.model_dump_json()


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        ({"gradient_accumulation": 1}, r"gradient_accumulation.*greater than or equal to 2.*1"),
        ({"gradient_accumulation": 2, "ema": 0.9}, r"training\.optimizer\.ema.*no ema with.*gradient_accumulation"),
    ],
)
def test_a_wrong_value_is_named(optimizer: dict[str, Any], told: str) -> None:
    document = pipeline().model_dump(mode="json") | {"training": {"optimizer": optimizer}}
    with pytest.raises(ConfigurationError, match=told):
        parse(document, where="p.yaml", folder=Path("."))

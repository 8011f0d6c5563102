"""The models that read token ids: the same on every backend, saved without code, blind to padding."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from leptonflow.core import code_digests
from leptonflow.keras_runtime import keras_models, optimizers
from leptonflow.training import workspace
from leptonflow.workloads import classification
from leptonflow.workloads.text_classification import model, tokens
from leptonflow.workloads.text_classification.workload import WORKLOAD
from schemas.errors import ConfigurationError
from schemas.text_classification import KINDS, TextInput, TextModel
from tests.fit_examples import pipeline
from tests.texts import CLASSES, sample

INPUT = TextInput(length=12, vocabulary=60)
SMALL: dict[str, Any] = {"embedding": 8, "pairs": 100, "filters": 4, "units": 6}


def build(kind: Any, **options: Any) -> Any:
    keras_models.seed_all(1)
    return model.build(TextModel(kind=kind, **{**SMALL, **options}), INPUT, 3)


def ids(n: int = 5) -> np.ndarray:
    """Texts of 1 to L tokens; the last fills all of it."""
    random = np.random.default_rng(0)
    rows = random.integers(1, INPUT.vocabulary, (n, INPUT.length)).astype(np.int32)
    for row, count in zip(rows, np.linspace(1, INPUT.length, n).astype(int), strict=True):
        row[count:] = tokens.PAD
    return rows


def weights(made: Any, layer: str) -> list[np.ndarray]:
    return [np.asarray(each, np.float64) for each in made.get_layer(layer).get_weights()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_probabilities_and_is_loaded_without_code(kind: str) -> None:
    assert get_args(TextModel.model_fields["kind"].annotation) == KINDS
    made = build(kind, dense=5)
    given = np.concatenate([ids(), np.zeros((1, INPUT.length), np.int32)])  # one of padding alone
    found = made.predict_on_batch(given)
    assert found.shape == (6, 3) and found.dtype == np.float32
    assert np.isfinite(found).all() and found.sum(axis=1) == pytest.approx(1, abs=1e-6)
    data = keras_models.save(made)
    assert not list(workspace._foreign(workspace._layers(data), {}))
    assert (keras_models.load(data).predict_on_batch(given) == found).all()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str) -> None:
    made = build(kind)
    before = made.predict_on_batch(ids())
    table = made.get_layer("embedding")
    table.set_weights([np.concatenate([np.full((1, 8), 9.0), table.get_weights()[0][1:]])])
    assert (made.predict_on_batch(ids()) == before).all()


def test_rnn_is_the_plain_recurrent_network() -> None:
    """h_t = tanh(W_h h_(t-1) + W_x x_t + b), the mean of all h_t, then softmax: computed here in NumPy."""
    made = build("rnn")
    random = np.random.default_rng(3)
    for layer in ("recurrent", "probabilities", "embedding"):
        kept = made.get_layer(layer)
        kept.set_weights([random.normal(0, 0.5, each.shape) for each in kept.get_weights()])
    (table,) = weights(made, "embedding")
    to_x, to_h, bias = weights(made, "recurrent")  # (E, U), (U, U), (U)
    last, last_bias = weights(made, "probabilities")
    given = ids(40)
    expected = []
    for row in given:
        state, states = np.zeros(6), []
        for token in row[row != tokens.PAD]:
            state = np.tanh(to_h.T @ state + to_x.T @ table[token] + bias)
            states.append(state)
        scores = np.mean(states, axis=0) @ last + last_bias
        expected.append(np.exp(scores) / np.exp(scores).sum())
    assert np.abs(made.predict_on_batch(given) - np.stack(expected)).max() < 1e-6


def test_bag_is_the_mean_of_words_and_pairs() -> None:
    made = build("bag", pair_weight=0.25)
    (table,), (pairs,) = weights(made, "embedding"), weights(made, "pairs")
    last, last_bias = weights(made, "probabilities")
    given = ids()
    given[2, 1] = tokens.UNKNOWN
    expected = []
    for row in given:
        row = row[row != tokens.PAD].astype(int)
        known = [pair for pair in itertools.pairwise(row) if tokens.UNKNOWN not in pair]
        total = sum(table[token] for token in row)
        total = total + sum(0.25 * pairs[(a * model.PRIME + b) % 100] for a, b in known)
        scores = total / (len(row) + 0.25 * len(known)) @ last + last_bias
        expected.append(np.exp(scores) / np.exp(scores).sum())
    assert np.abs(made.predict_on_batch(given) - np.stack(expected)).max() < 1e-6
    assert 250_000 * model.PRIME + 250_000 < 2**31, "the greatest vocabulary's pairs are int32"
    assert "pairs" not in [layer.name for layer in build("bag", pairs=0).layers]


def test_cnn_sees_three_to_five_tokens_and_takes_the_maximum() -> None:
    made = build("cnn")
    widths = [made.get_layer(f"conv_{width}").get_weights()[0].shape for width in (3, 4, 5)]
    assert widths == [(3, 8, 4), (4, 8, 4), (5, 8, 4)]
    assert made.get_layer("probabilities").get_weights()[0].shape == (12, 3)


def test_training_makes_some_tokens_unknown_and_prediction_none() -> None:
    made = build("bag", token_dropout=0.5, dropout=0.0)
    first, second = made(ids(), training=True), made(ids(), training=True)
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0
    assert (made.predict_on_batch(ids()) == made.predict_on_batch(ids())).all()


def learn(kind: str) -> float:
    """The accuracy on 60 texts of the sample after 30 epochs on 240 others."""
    texts, labels = sample(300)
    tokenizer = tokens.load(tokens.fit(texts[:240], INPUT.vocabulary))
    rows, numbers = tokens.encode(tokenizer, texts, INPUT.length), np.array(labels)
    made = build(kind)
    config = pipeline(training={"optimizer": "adam", "learning_rate": 0.01})
    classification.compile(made, config, optimizers.optimizer(config.training.steering, 1))
    wanted = classification.targets(numbers[:240], len(CLASSES))
    for epoch in range(30):
        order = np.random.default_rng(epoch).permutation(240)
        for first in range(0, 240, 48):
            made.train_on_batch(rows[order[first : first + 48]], wanted[order[first : first + 48]])
    found = made.predict_on_batch(rows[240:]).astype(np.float64)
    return classification.score(numbers[240:], found, CLASSES)["accuracy"] or 0.0


OWN = """
import keras

def build(text, classes):
    return keras.Sequential([
        keras.layers.Input((text.length,), dtype="int32"), keras.layers.Embedding(text.vocabulary, 4),
        keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(len(classes), activation="softmax"),
    ])
"""


def test_a_model_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text(OWN)
    changes = {"workload": "text_classification", "input": {"length": 12, "vocabulary": 60}, "folder": tmp_path}
    config = pipeline(**changes, model={"function": "my_model:build"})
    made = WORKLOAD.build(config, CLASSES)
    assert made(ids()).shape == (5, 3) and made.layers[0].input_dim == 60
    workspace.check_loadable(WORKLOAD, config, CLASSES)
    assert set(code_digests.user_code(config)) == {"my_model.py"}
    fixed = OWN.replace("(text.length,)", "(5,)").replace("GlobalAveragePooling1D", "Flatten")
    (tmp_path / "my_model.py").write_text(fixed)
    with pytest.raises(ConfigurationError, match=r"does not take the input.*\(N, 12\) int32"):
        WORKLOAD.build(config, CLASSES)
    assert "function" not in TextModel().model_dump(), "a pipeline without it keeps its digests"


def test_bag_learns_the_sample() -> None:
    assert learn("bag") >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bag"])
def test_every_other_kind_learns_the_sample(kind: str) -> None:
    assert learn(kind) >= 0.95


ON_JAX = """
import sys
import numpy as np
from leptonflow.keras_runtime import keras_models
folder, *kinds = sys.argv[1:]
given = np.load(f"{folder}/ids.npy")
for kind in kinds:
    with open(f"{folder}/{kind}.keras", "rb") as file:
        made = keras_models.load(file.read())
    assert keras_models.keras().backend.backend() == "jax"
    np.save(f"{folder}/{kind}.npy", made.predict_on_batch(given))
    made.compile(optimizer="adam", loss="categorical_crossentropy")
    assert np.isfinite(made.train_on_batch(given, np.eye(3, dtype="float32")[[0, 1, 2, 0, 1]]))
"""


@pytest.mark.parametrize("kinds", [("bag",), pytest.param(KINDS[1:], marks=pytest.mark.slow)])
def test_every_kind_runs_on_jax(kinds: tuple[str, ...], tmp_path: Path) -> None:
    """The same weights give the same probabilities on both backends, and a step of training goes through."""
    np.save(tmp_path / "ids.npy", ids())
    made = {kind: build(kind) for kind in kinds}
    for kind, each in made.items():
        (tmp_path / f"{kind}.keras").write_bytes(keras_models.save(each))
    subprocess.run(
        [sys.executable, "-c", ON_JAX, str(tmp_path), *kinds], check=True, env={**os.environ, "KERAS_BACKEND": "jax"},
    )  # fmt: skip
    for kind, each in made.items():
        assert np.abs(np.load(tmp_path / f"{kind}.npy") - each.predict_on_batch(ids())).max() < 1e-6, kind

"""Keras models that read a text's token ids and give a probability for each class.

Backend-neutral, of Keras's own layers and operations alone, so that a saved model loads without this code.
Shapes: N texts, L tokens, E numbers of an embedding, K classes. What does not belong here: how a text becomes
ids (tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonflow.keras_runtime.keras_models import keras
from leptonflow.workloads.classification import compile
from leptonflow.workloads.text_classification.tokens import PAD, UNKNOWN
from schemas.augmentation import Operation
from schemas.config import Pipeline
from schemas.text_classification import TextInput, TextModel

__all__ = ["augment", "build", "compile"]
PRIME = 7919  # times the largest vocabulary still an int32


def build(model: TextModel, text: TextInput, classes: int) -> Any:
    """An uncompiled keras.Model: int32 (N, text.length) token ids -> (N, classes) float32 probabilities.

    Its tables have a row for each token that the vocabulary may have, so that every fit builds the same model.
    """
    layers, ops = keras().layers, keras().ops
    tokens = layers.Input((text.length,), dtype="int32", name="tokens")
    there = ops.not_equal(tokens, PAD)  # (N, L)
    seen = _some_unknown(tokens, there, model.token_dropout)
    vectors = layers.Embedding(text.vocabulary, model.embedding, name="embedding")(seen)  # (N, L, E)
    if model.kind == "bag":
        features = _bag(model, seen, vectors, there)
    elif model.kind == "cnn":
        features = _cnn(model, vectors, there)
    else:
        features = _recurrent(model, vectors, there)
    if model.dense:
        features = layers.Dense(model.dense, activation="relu", name="dense")(features)
    if model.dropout > 0:
        features = layers.Dropout(model.dropout, name="dropout")(features)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(features)  # (N, K)
    return keras().Model(tokens, probabilities, name=model.kind)


def own(config: Pipeline, classes: Sequence[str]) -> Any:
    """The user's own model, of int32 (N, input.length) token ids below input.vocabulary, 0 after a text's end."""
    import numpy as np

    from leptonflow.workloads import user_model

    tokens = np.random.default_rng(0).integers(0, config.input.vocabulary, (2, config.input.length), np.int32)
    return user_model.build(config, classes, tokens)


def augment(operations: Sequence[Operation], seeds: Sequence[int]) -> list[Any]:
    """Layers that make a share of a text's tokens unknown: int32 (N, L) -> the same."""
    ops = keras().ops

    class TokenDropout(keras().layers.Layer):  # type: ignore[misc]
        """Like `_some_unknown`, with a seed of its own."""

        def __init__(self, share: float, seed: int) -> None:
            super().__init__()
            self._share = share
            self._chance = keras().random.SeedGenerator(seed)

        def call(self, tokens: Any, training: bool = False) -> Any:
            if not training:
                return tokens
            dropped = keras().random.uniform(ops.shape(tokens), seed=self._chance) < self._share
            return ops.where(ops.logical_and(ops.not_equal(tokens, PAD), dropped), UNKNOWN, tokens)

    return [TokenDropout(operation.range, seed) for operation, seed in zip(operations, seeds, strict=True)]


def _some_unknown(tokens: Any, there: Any, share: float) -> Any:
    """The tokens, some of them unknown while the model is trained (word dropout, Iyyer et al. 2015).

    That is how it learns what an unknown token means, and not to lean on a single word.
    """
    if not share:
        return tokens
    layers, ops = keras().layers, keras().ops
    kept = layers.Dropout(share, name="token_dropout")(ops.cast(there, "float32"))  # (N, L), 0 where dropped
    return ops.where(ops.logical_and(there, ops.equal(kept, 0.0)), UNKNOWN, tokens)


def _bag(model: TextModel, tokens: Any, vectors: Any, there: Any) -> Any:
    """(N, E): the mean of the embeddings of words and of pairs of neighbours (Joulin et al. 2016).

    A pair is rarer than its words and overfits sooner, so its weight is lower; one with an unknown word is none.
    """
    layers, ops = keras().layers, keras().ops
    weights = ops.cast(there, "float32")
    if model.pairs:
        first, second = tokens[:, :-1], tokens[:, 1:]
        numbers = ops.mod(first * PRIME + second, model.pairs)  # (N, L - 1)
        pairs = layers.Embedding(model.pairs, model.embedding, name="pairs")(numbers)
        known = ops.logical_and(ops.greater(first, UNKNOWN), ops.greater(second, UNKNOWN))
        vectors = ops.concatenate([vectors, pairs], axis=1)  # (N, 2 L - 1, E)
        weights = ops.concatenate([weights, model.pair_weight * ops.cast(known, "float32")], axis=1)
    return _mean(vectors, weights)


def _cnn(model: TextModel, vectors: Any, there: Any) -> Any:
    """(N, filters x widths): the maximum of each filter over the text (Kim 2014)."""
    layers, ops = keras().layers, keras().ops
    vectors = vectors * ops.expand_dims(ops.cast(there, "float32"), 2)
    found = []
    for width in model.widths:
        each = layers.Conv1D(model.filters, width, padding="same", activation="relu", name=f"conv_{width}")(vectors)
        found.append(layers.GlobalMaxPooling1D(name=f"max_{width}")(each))
    return ops.concatenate(found, axis=1)


def _recurrent(model: TextModel, vectors: Any, there: Any) -> Any:
    """(N, units): the mean of a recurrent layer's states at all tokens. Padding changes no state.

    rnn is the plain recurrent network, h_t = tanh(W_h h_(t-1) + W_x x_t + b) with h_0 = 0 (Elman 1990).
    """
    layers, ops = keras().layers, keras().ops
    cell = {"gru": layers.GRU, "lstm": layers.LSTM, "rnn": layers.SimpleRNN}[model.kind]
    states = cell(model.units, return_sequences=True, name="recurrent")(vectors, mask=there)  # (N, L, units)
    return _mean(states, ops.cast(there, "float32"))


def _mean(vectors: Any, weights: Any) -> Any:
    """(N, L, E), (N, L) -> (N, E): the weighted mean of a text's vectors; zeros where no weight is."""
    ops = keras().ops
    weights = ops.expand_dims(weights, 2)  # (N, L, 1)
    return ops.sum(vectors * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)

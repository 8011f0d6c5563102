"""The sections `input:` and `model:` of a pipeline that classifies text.

Their keys, bounds and defaults belong here. What is built of them: `leptonflow.workloads.text_classification`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from schemas.own_model import OwnModel
from schemas.rules import AS_TUPLE, COMPOSED, Frozen, left_out
from schemas.text import nfc

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
KINDS = ("bag", "cnn", "gru", "lstm", "rnn")


class TextInput(Frozen):
    """What the model sees of a text: its first `length` tokens, of a vocabulary of at most `vocabulary` tokens."""

    columns: Annotated[tuple[str, ...], AS_TUPLE] | None = None
    # ^ text columns of a table, in this order; None: the one that is found
    label: Annotated[str, Field(min_length=1), COMPOSED] | None = left_out(None)
    # ^ the column of labels of a table; None: the one that is found
    length: Annotated[int, Field(ge=8, le=4096)] = 128
    vocabulary: Annotated[int, Field(ge=8, le=250_000)] = 30_000  # <pad> and <unk> included
    minimum_count: Count = 1  # a token that occurs less often in the training examples is unknown
    lowercase: bool = True

    @field_validator("columns")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        value = value and tuple(nfc(name) for name in value)
        if value is not None and (not all(value) or not value or len(set(value)) != len(value)):
            raise ValueError("columns are one or more different names")
        return value


class TextModel(OwnModel):
    """One of five architectures, or a function of the user's own. A key that a model does not read is ignored by it.

    bag   embeddings of words and of word pairs, averaged
    cnn   convolutions over 3, 4 and 5 tokens, the maximum over the text
    gru, lstm, rnn  a recurrent network, its states averaged over the text
    """

    kind: Literal["bag", "cnn", "gru", "lstm", "rnn"] = "bag"
    embedding: Count = 64
    pairs: Annotated[int, Field(ge=0, le=2**24)] = 20_000  # bag: rows of the table that pairs are hashed into; 0: none
    pair_weight: Annotated[float, Field(gt=0, le=1)] = 0.2  # bag: what a pair counts in the mean, where a word counts 1
    filters: Count = 64  # cnn: of each width
    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], AS_TUPLE] = (3, 4, 5)  # cnn
    units: Count = 64  # gru, lstm, rnn
    dense: Annotated[int, Field(ge=0, le=2**20)] = 0  # units of a hidden layer before the last; 0: none
    token_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5  # the share of tokens that training makes unknown
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5  # of what the last layers receive

    @field_validator("widths")
    @classmethod
    def _some_width(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("widths are one or more different numbers of tokens")
        return value

"""Texts as a part holds them and as an array in memory, and what the model takes of them.

An array of texts is of objects, (N,) str.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Codec, Malformed
from leptonflow.workloads.text_classification import tokens
from schemas.errors import TrainingError
from schemas.text_classification import TextInput

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

BYTES = 2_000  # of a text in memory, its tokens apart: news and comments are shorter


def vocabulary(texts: NDArray[Any], given: TextInput) -> str:
    """The tokenizer of a fit's own training texts, as JSON."""
    return tokens.fit(list(texts), given.vocabulary, minimum_count=given.minimum_count, lowercase=given.lowercase)


def encode(texts: NDArray[Any], document: str | None, given: TextInput) -> NDArray[np.int32]:
    """N texts -> N x length token ids. Raises TrainingError for what is no array of texts."""
    if texts.ndim != 1 or texts.dtype != object or not all(isinstance(each, str) for each in texts):
        raise TrainingError(
            "the model does not take these examples",
            expected="an array of N texts",
            received=f"shape {tuple(texts.shape)} of {texts.dtype}",
        )
    if document is None:
        raise TrainingError("texts cannot be encoded without a vocabulary", expected="a fit's vocabulary.json")
    return tokens.encode(_tokenizer(document), list(texts), given.length)


@lru_cache(maxsize=2)
def _tokenizer(document: str) -> Tokenizer:
    return tokens.load(document)


def malformed(given: TextInput) -> Malformed:
    """Arrays that hold no texts, and bodies that are none."""
    import numpy as np

    arrays: dict[str, NDArray[Any]] = {
        "an array of numbers": np.zeros((1, given.length), np.int32),
        "an array of two texts a row": np.array([["one", "two"]], object),
        "an array of bytes": np.array([b"text"], object),
    }
    bodies = {"an empty body": b"", "a body of spaces": b"  \n", "a body that is not UTF-8": b"caf\xe9 au lait"}
    return Malformed(arrays, bodies)


def _arrow(given: TextInput) -> pa.DataType:
    import pyarrow as pa

    return pa.string()


def _read(column: pa.Array, given: TextInput) -> NDArray[Any]:
    found = _empty(len(column), given)
    found[:] = column.to_pylist()
    return found


def _empty(count: int, given: TextInput) -> NDArray[Any]:
    import numpy as np

    return np.empty(count, object)


def _stack(encoded: Sequence[bytes], given: TextInput) -> NDArray[Any]:
    found = _empty(len(encoded), given)
    found[:] = [each.decode() for each in encoded]
    return found


def _raw(texts: NDArray[Any]) -> list[bytes]:
    return [each.encode() for each in texts]


def _bytes(given: TextInput) -> int:
    return BYTES + 4 * given.length


CODEC = Codec("text", _arrow, _read, _empty, _stack, _raw, _bytes)

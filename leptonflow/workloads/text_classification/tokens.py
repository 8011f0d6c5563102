"""Texts as numbers: a tokenizer fitted on training texts alone, kept as JSON, and the ids that a model receives.

Tokens are words and runs of punctuation; a Chinese character is a token of its own. The library `tokenizers`
does the work, so the JSON is one that others can read. What does not belong here: what is a good example
(examples) and what a model makes of the ids (model).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from schemas.errors import Damaged, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

PAD, UNKNOWN = 0, 1  # the ids of the two tokens that every vocabulary has
SPECIAL = ("<pad>", "<unk>")


class Word(NamedTuple):
    """A token of a text, text[start:end], and the id that the vocabulary gives it."""

    start: int
    end: int
    id: int


def fit(texts: Iterable[str], vocabulary: int, *, minimum_count: int = 1, lowercase: bool = True) -> str:
    """The tokenizer of these texts as JSON: the same texts, in whatever order, give the same one.

    vocabulary     how many tokens it knows at most, <pad> and <unk> included: the most frequent ones
    minimum_count  a token that occurs less often is unknown
    """
    _one_thread()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # Of tokens that are as frequent as each other the alphabet decides, so no order of texts shows.
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocabulary, min_frequency=minimum_count, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def load(document: str) -> Tokenizer:
    """The tokenizer of a JSON that `fit` returned. Raises Damaged where it is none."""
    _one_thread()
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(document)
    except Exception as error:  # the library raises Exception itself
        raise Damaged(
            "the tokenizer cannot be read",
            expected="a JSON of the library tokenizers",
            received=words_of(error),
            hint="Was it saved by another version of the library?",
        ) from error
    if [tokenizer.token_to_id(token) for token in SPECIAL] != [PAD, UNKNOWN]:
        raise Damaged(
            "the tokenizer is not one of this pipeline",
            expected=f"the token {SPECIAL[PAD]} as {PAD} and {SPECIAL[UNKNOWN]} as {UNKNOWN}",
            received=f"{tokenizer.get_vocab_size()} other tokens",
            hint="Use the file of the package",
        )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> NDArray[np.int32]:
    """N texts -> int32 (N, length): the ids of the first tokens of each, PAD after its last.

    A text without any token, such as one of control characters, is one unknown token.
    """
    import numpy as np

    ids = np.full((len(texts), length), PAD, np.int32)
    for row, found in zip(ids, tokenizer.encode_batch_fast(list(texts), add_special_tokens=False), strict=True):
        first = found.ids[:length] or [UNKNOWN]
        row[: len(first)] = first
    return ids


def unknown_share(ids: NDArray[np.int32]) -> NDArray[np.float64]:
    """(N, length) ids -> N shares, 0..1, of a text's tokens that the vocabulary does not know."""
    import numpy as np

    tokens = np.maximum((ids != PAD).sum(axis=1), 1)
    found: NDArray[np.float64] = (ids == UNKNOWN).sum(axis=1) / tokens
    return found


def words(tokenizer: Tokenizer, text: str) -> list[Word]:
    """Every token of a text and where it stands in it, in characters."""
    found = tokenizer.encode(text, add_special_tokens=False)
    return [Word(start, end, number) for (start, end), number in zip(found.offsets, found.ids, strict=True)]


def _one_thread() -> None:
    # Threads of the library's own would make a later fork unsafe, of which it warns on standard error.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

"""What a report shows of texts: the words that mattered for a prediction, and slices by length.

What does not belong here: which predictions are worth a look, HTML, and any judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Candidate, Evaluated, Mark, Panels, Shown, Slices
from leptonflow.workloads.text_classification import tokens
from schemas.text_classification import TextInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_TEXTS = 24  # whose words are tried
MOST_WORDS = 60  # of a text that are taken out one by one: each costs a prediction
MOST_CHARACTERS = 600  # of a text that is shown
PARTS = 4  # slices by length
UNKNOWN = (0.05, 0.2)  # shares of unknown tokens where one slice ends and the next begins
NOTE = (
    f"Each of a text's first {MOST_WORDS} words was taken out by itself (occlusion, Zeiler and Fergus 2014). A blue "
    "word speaks for the candidate's prediction, a red one against it; the number is what the predicted probability "
    "loses without the word."
)


def panels(evaluated: Evaluated) -> Panels:
    """The texts with the words that mattered, and slices by the number of words and by the share of unknown ones."""
    import numpy as np

    texts = [str(each) for each in evaluated.examples]
    words = np.array([len(text.split()) for text in texts], np.int64)
    candidate = cache(evaluated.candidate)

    def shown(numbers: Sequence[int]) -> dict[int, Shown]:
        first = list(numbers[:MOST_TEXTS])
        tried = explain(evaluated.examples[first], evaluated.input, candidate()) if first else []
        rest = {number: Shown(text=beginning(texts[number])) for number in numbers[MOST_TEXTS:]}
        return dict(zip(first, tried, strict=True)) | rest

    tokenizer = tokens.load(candidate().vocabulary or "")
    shares = tokens.unknown_share(tokens.encode(tokenizer, texts, evaluated.input.length))
    return Panels(shown, (by_length(words), by_unknown(shares)), NOTE)


def explain(examples: NDArray[Any], given: TextInput, candidate: Candidate) -> list[Shown]:
    """N texts with the effect of their words: 1 + MOST_WORDS predictions for each."""
    texts = [str(each) for each in examples]
    marks = occlusion(texts, candidate) if texts else []
    return [Shown(text=beginning(text), marks=found) for text, found in zip(texts, marks, strict=True)]


def beginning(text: str) -> str:
    """As much of a text as is shown."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS].rstrip()} …"


def occlusion(texts: Sequence[str], candidate: Candidate) -> list[tuple[Mark, ...]]:
    """How much each word of each text speaks for its prediction: what its absence changes.

    Tried are the first MOST_WORDS words with a letter or digit, of the part that is shown. One prediction for all.
    """
    import numpy as np

    tokenizer = tokens.load(candidate.vocabulary or "")
    tried = [_words(tokenizer, text[:MOST_CHARACTERS]) for text in texts]
    variants: NDArray[Any] = np.empty(len(texts) + sum(map(len, tried)), object)
    variants[: len(texts)] = texts
    variants[len(texts) :] = [
        text[: word.start] + text[word.end :] for text, words in zip(texts, tried, strict=True) for word in words
    ]
    rows = candidate.predict(variants)
    predicted = rows[: len(texts)].argmax(axis=1)
    found, at = [], len(texts)
    for number, words in enumerate(tried):
        before, of_class = rows[number, predicted[number]], rows[at : at + len(words), predicted[number]]
        found.append(
            tuple(Mark(w.start, w.end, float(before - after)) for w, after in zip(words, of_class, strict=True))
        )
        at += len(words)
    return found


def _words(tokenizer: Any, text: str) -> list[tokens.Word]:
    every = tokens.words(tokenizer, text)
    return [word for word in every if any(c.isalnum() for c in text[word.start : word.end])][:MOST_WORDS]


def by_length(words: NDArray[np.int64]) -> Slices:
    """Slices of about as many texts each, from the shortest on; texts of the same length are never parted.

    words: the number of words of each of N texts.
    """
    import numpy as np

    if not len(words):
        return Slices("words", (), words)
    ends = np.unique(np.quantile(words, np.arange(1, PARTS + 1) / PARTS, method="inverted_cdf"))
    of = np.searchsorted(ends, words).astype(np.int64)
    inside = [words[of == number] for number in range(len(ends))]
    values = [f"{each.min()} to {each.max()}" if each.min() < each.max() else str(each.min()) for each in inside]
    return Slices("words", tuple(values), of)


def by_unknown(shares: NDArray[np.float64]) -> Slices:
    """Slices by the share of tokens that the vocabulary does not know, of those that the model sees of each text."""
    import numpy as np

    names = ("none", *(f"up to {share:.0%}" for share in UNKNOWN), f"over {UNKNOWN[-1]:.0%}")
    return Slices("share of unknown tokens", names, np.searchsorted((0.0, *UNKNOWN), shares).astype(np.int64))

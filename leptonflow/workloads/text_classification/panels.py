"""What a report shows of texts: the worst mistakes, the words that mattered, how good it is by length.

Plain records with plain text; what cannot be printed in a text is written as an escape (\\u202e, which turns the
direction of reading). What does not belong here: HTML, whose templates escape `<` and `&`, and any judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.workloads.text_classification.tokens import Word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_MISTAKES = 24
MOST_CHARACTERS = 600  # of a text that is shown
MOST_WORDS = 100  # of a text whose words are taken out one by one: each costs a prediction


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction. index: its row; probability: of the predicted class; of_true: of the true one."""

    index: int
    id: str
    label: str
    predicted: str
    probability: float
    of_true: float
    text: str


@dataclass(frozen=True)
class Effect:
    """A word and what the probability of the predicted class loses when it is taken out; < 0: it gains."""

    word: str
    start: int
    end: int
    change: float


@dataclass(frozen=True)
class Occlusion:
    """effects: of the first words in their order. left_out: the words after those, which were not tried."""

    predicted: str
    probability: float
    effects: tuple[Effect, ...]
    left_out: int


@dataclass(frozen=True)
class LengthSlice:
    """The texts of low <= words <= high: how many, and how many of them were predicted right."""

    low: int
    high: int
    n: int
    right: int


def shown(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text as it can be printed: shortened, every control or direction character but a newline as an escape."""
    cut = text[:most].rstrip() + "…" if len(text) > most else text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in cut)


def worst(
    ids: Sequence[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    texts: Sequence[str],
    most: int = MOST_MISTAKES,
) -> tuple[Mistake, ...]:
    """The wrong predictions of N texts, the surest first. probabilities: N x K in the order of the K classes."""
    predicted = probabilities.argmax(axis=1)
    wrong = (predicted != labels).nonzero()[0].tolist()
    order = sorted(wrong, key=lambda i: (-probabilities[i, predicted[i]], ids[i]))
    return tuple(
        Mistake(
            index=i,
            id=ids[i],
            label=classes[labels[i]],
            predicted=classes[predicted[i]],
            probability=float(probabilities[i, predicted[i]]),
            of_true=float(probabilities[i, labels[i]]),
            text=shown(texts[i]),
        )
        for i in order[:most]
    )


def occlusion(
    text: str,
    words: Sequence[Word],
    predict: Callable[[Sequence[str]], NDArray[np.float64]],
    classes: Sequence[str],
    most: int = MOST_WORDS,
) -> Occlusion:
    """How much each word of a text speaks for its prediction: what its absence changes (Zeiler and Fergus 2014).

    words    the tokens of the text, as tokens.words gives them; those without a letter or digit are passed over
    predict  texts -> probabilities (n, K); called once, with at most 1 + most texts
    """
    spans = [word for word in words if any(c.isalnum() for c in text[word.start : word.end])]
    tried = spans[:most]
    rows = predict([text, *(text[: word.start] + text[word.end :] for word in tried)])
    number = int(rows[0].argmax())
    before = float(rows[0, number])
    effects = tuple(
        Effect(shown(text[word.start : word.end]), word.start, word.end, before - float(row[number]))
        for word, row in zip(tried, rows[1:], strict=True)
    )
    return Occlusion(classes[number], before, effects, len(spans) - len(tried))


def by_length(words: NDArray[np.int64], correct: NDArray[np.bool_], parts: int = 4) -> tuple[LengthSlice, ...]:
    """Slices of about as many texts each, from the shortest on; texts of the same length are never parted.

    words: the number of words of each of N texts; correct: whether each was predicted right.
    """
    import numpy as np

    if not len(words):
        return ()
    ends = np.unique(np.quantile(words, np.arange(1, parts + 1) / parts, method="inverted_cdf"))
    slices = np.searchsorted(ends, words)
    found = []
    for number in range(len(ends)):
        chosen = slices == number
        inside = words[chosen]
        found.append(LengthSlice(int(inside.min()), int(inside.max()), int(chosen.sum()), int(correct[chosen].sum())))
    return tuple(found)

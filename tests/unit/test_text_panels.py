"""What a report shows of texts, and the baseline that a model is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from leptonflow.workloads import classification
from leptonflow.workloads.text_classification import baselines, panels, tokens
from leptonflow.workloads.text_classification.panels import LengthSlice
from schemas.text_classification import TextInput, TextModel
from tests.texts import CLASSES, sample


def test_the_worst_mistakes_are_the_surest_ones() -> None:
    rows = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    labels = np.array([1, 1, 0, 1])
    texts = ["first", "second", "turned \u202etxet\x1b[31m\nnext <b>&", "x" * 700]
    found = panels.worst(["d", "c", "b", "a"], labels, rows, ("no", "yes"), texts)
    assert [(m.index, m.id, m.label, m.predicted, m.probability, m.of_true) for m in found] == [
        (0, "d", "yes", "no", 0.9, 0.1), (2, "b", "no", "yes", 0.7, 0.3), (3, "a", "yes", "no", 0.6, 0.4),
    ]  # fmt: skip
    assert found[1].text == "turned \\u202etxet\\x1b[31m\nnext <b>&", "escapes for a terminal; HTML is the template's"
    assert found[2].text == "x" * 600 + "…"
    assert len(panels.worst(["a"] * 4, labels, rows, ("no", "yes"), texts, most=1)) == 1


def test_occlusion_finds_the_word_that_decides() -> None:
    text = "A storm, they said."
    asked: list[Sequence[str]] = []

    def predict(texts: Sequence[str]) -> np.ndarray:
        asked.append(texts)
        sure = np.array([0.9 if "storm" in each else 0.6 for each in texts])
        return np.stack([1 - sure, sure], axis=1)

    words = tokens.words(tokens.load(tokens.fit([text], 20)), text)
    found = panels.occlusion(text, words, predict, ("sport", "weather"))
    assert (found.predicted, found.probability, found.left_out) == ("weather", 0.9, 0)
    assert {effect.word: round(effect.change, 6) for effect in found.effects} == {
        "A": 0, "storm": 0.3, "they": 0, "said": 0,
    }  # fmt: skip
    assert asked == [[text, " storm, they said.", "A , they said.", "A storm,  said.", "A storm, they ."]]
    assert text[found.effects[1].start : found.effects[1].end] == "storm"
    capped = panels.occlusion(text, words, predict, ("sport", "weather"), most=1)
    assert (len(capped.effects), capped.left_out) == (1, 3)


def test_slices_by_length_cover_every_text_once() -> None:
    words = np.array([5, 1, 2, 9, 9, 9, 40, 3])
    correct = np.array([1, 1, 0, 1, 0, 1, 0, 1], bool)
    found = panels.by_length(words, correct)
    assert found == (
        LengthSlice(1, 2, 2, 1),
        LengthSlice(3, 5, 2, 2),
        LengthSlice(9, 9, 3, 2),
        LengthSlice(40, 40, 1, 0),
    )
    assert panels.by_length(words[:0], correct[:0]) == ()
    assert panels.by_length(np.full(6, 7), correct[:6]) == (LengthSlice(7, 7, 6, 4),)


def test_the_baseline_learns_the_sample() -> None:
    texts, labels = sample(200)
    numbers = np.array(labels)
    rows = baselines.probabilities(texts[:150], numbers[:150], texts[150:], 3)
    assert rows.shape == (50, 3) and rows.sum(axis=1) == pytest.approx(1)
    assert (classification.score(numbers[150:], rows, CLASSES)["accuracy"] or 0) >= 0.95
    assert (rows == baselines.probabilities(texts[:150], numbers[:150], texts[150:], 3)).all()


def test_the_baseline_says_the_shares_where_there_is_nothing_to_learn() -> None:
    assert baselines.probabilities(["a b", "c"], np.array([1, 1]), ["a"], 3).tolist() == [[0, 1, 0]]
    assert baselines.probabilities(["?", "!", "!!"], np.array([0, 1, 1]), ["a"], 2) == pytest.approx(
        np.array([[1, 2]]) / 3
    )
    two = baselines.probabilities(["good", "good one", "bad", "bad one"], np.array([0, 0, 2, 2]), ["good"], 3)
    assert two[0, 1] == 0 and two[0, 0] > two[0, 2]
    assert baselines.probabilities(["a", "b"], np.array([0, 1]), [], 2).shape == (0, 2)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (TextModel, {"kind": "transformer"}),
        (TextModel, {"widths": []}),
        (TextModel, {"widths": [3, 3]}),
        (TextModel, {"dropout": 1.0}),
        (TextModel, {"unit": 3}),
        (TextInput, {"columns": []}),
        (TextInput, {"columns": ["text", "text"]}),
        (TextInput, {"length": 4}),
        (TextInput, {"vocabulary": 1_000_000}),
    ],
)
def test_options_that_cannot_be_built_are_refused(kind: type, options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        kind(**options)


def test_options_are_read_as_yaml_gives_them() -> None:
    assert TextModel(kind="cnn", widths=[2, 3]).widths == (2, 3)
    assert TextInput(columns=["title", "text"]).columns == ("title", "text")

"""What a report shows of texts, and the baseline that a model is held against."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from leptonflow.workloads import classification
from leptonflow.workloads.base import Evaluated
from leptonflow.workloads.text_classification import baselines, panels, tokens
from schemas.text_classification import TextInput, TextModel
from tests.texts import CLASSES, sample


class Storms:
    """A candidate that is surer of weather where a text says storm."""

    def __init__(self, texts: list[str]) -> None:
        self.vocabulary: str | None = tokens.fit(texts, 50)
        self.asked: list[list[str]] = []

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        self.asked.append(list(inputs))
        sure = np.array([0.9 if "storm" in each else 0.6 for each in inputs])
        return np.stack([1 - sure, sure], axis=1)


def test_occlusion_finds_the_word_that_decides() -> None:
    texts = ["A storm, they said.", "no"]
    candidate = Storms(texts)
    storm, plain = panels.occlusion(texts, candidate)
    effects = {texts[0][m.start : m.end]: round(m.effect, 6) for m in storm}
    assert effects == {"A": 0, "storm": 0.3, "they": 0, "said": 0}
    assert [round(m.effect, 6) for m in plain] == [0]
    assert candidate.asked == [
        [*texts, " storm, they said.", "A , they said.", "A storm,  said.", "A storm, they .", ""]
    ], "one prediction for all"


def test_texts_are_shown_with_the_words_that_mattered() -> None:
    texts = [f"storm number {n}" for n in range(30)] + ["x " * 400]
    candidate = Storms(texts)
    found = panels.panels(Evaluated(np.array(texts, object), TextInput(), lambda: candidate))
    shown = found.shown([30, *range(27)])
    assert list(shown) == [30, *range(27)]
    assert shown[30].text == ("x " * 300).rstrip() + " …" and len(shown[30].marks) == panels.MOST_WORDS
    assert [m.effect for m in shown[0].marks] == pytest.approx([0.3, 0, 0])
    assert shown[22].marks and not shown[23].marks, "of the first ones alone"
    assert found.note and found.slices[0].values == ("3", "400")
    unknown = found.slices[1]
    assert unknown.name == "share of unknown tokens" and set(unknown.of) == {0}, "it was fitted on these texts"
    assert panels.panels(Evaluated(np.array([], object), TextInput(), lambda: candidate)).shown([]) == {}
    assert len(candidate.asked) == 1, "no model is loaded for nothing"


def test_slices_by_length_cover_every_text_once() -> None:
    found = panels.by_length(np.array([5, 1, 2, 9, 9, 9, 40, 3]))
    assert found.values == ("1 to 2", "3 to 5", "9", "40")
    assert found.of.tolist() == [1, 0, 0, 2, 2, 2, 3, 1]
    assert panels.by_length(np.array([], np.int64)).values == ()
    assert panels.by_length(np.full(6, 7)).values == ("7",)


def test_slices_by_the_share_of_unknown_tokens() -> None:
    found = panels.by_unknown(np.array([0, 0.01, 0.05, 0.06, 0.2, 0.21, 1]))
    assert found.values == ("none", "up to 5%", "up to 20%", "over 20%")
    assert found.of.tolist() == [0, 1, 1, 2, 2, 3, 3]


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
    assert TextModel.model_validate({"kind": "cnn", "widths": [2, 3]}).widths == (2, 3)
    assert TextInput.model_validate({"columns": ["title", "text"]}).columns == ("title", "text")

"""Which parts of an example speak for its prediction: hidden patches of images, words taken out of texts."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from cli import predictions
from leptonflow.evaluation import explanations
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.storage.address import open_store
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Evaluated
from leptonflow.workloads.image_classification import cnn, occlusion, panels
from leptonflow.workloads.text_classification import tokens
from schemas.errors import TrainingError, UsageError
from schemas.image_classification import ImageModel
from schemas.text_classification import TextInput
from tests import fit_examples, small_packages
from tests.e2e.helpers import call, picture
from tests.verdicts import promoted_by_hand

IMAGES, TEXTS = catalog.load("image_classification"), catalog.load("text_classification")
SHAPE = (12, 12, 1)


class Corner:
    """A candidate that is the surer of its second class, the lighter an image's upper left corner is."""

    vocabulary = None

    def __init__(self) -> None:
        self.asked: list[int] = []

    def predict(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.asked.append(len(inputs))
        light = inputs[:, :4, :4].mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - light, light], axis=1)


def corner() -> np.ndarray[Any, Any]:
    image = np.zeros(SHAPE, np.uint8)
    image[:4, :4] = 255
    return image


def decoded(address: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,")))))


def test_the_part_that_decides_is_found_and_is_blue() -> None:
    candidate = Corner()
    (shown,) = occlusion.explain(corner()[None], SHAPE, candidate)
    assert candidate.asked == [10], "one batch: the image, and with each part hidden"
    assert [each[:4] for each in shown.patches] == [(r, c, 4, 4) for r in (0, 4, 8) for c in (0, 4, 8)]
    effects = [each.effect for each in shown.patches]
    assert effects[0] == pytest.approx(1 - 28 / 255) and effects[1:] == [0.0] * 8  # hidden by the image's mean
    assert shown.overlay is not None and shown.thumbnail is not None
    coloured = decoded(shown.overlay).astype(int)
    assert coloured.shape == (12, 12, 3)
    assert (coloured[:4, :4, 2] > coloured[:4, :4, 0]).all(), "blue speaks for it"
    assert (coloured[4:] == 0).all(), "and the rest is as it was"
    assert occlusion.explain(corner()[None], SHAPE, Corner()) == [shown], "twice the same"


def test_a_part_that_speaks_against_it_is_red() -> None:
    image = np.full(SHAPE, 200, np.uint8)
    image[:4, :4] = 100  # hidden by the lighter mean, the second class becomes surer; the first is predicted
    (shown,) = occlusion.explain(image[None], SHAPE, Corner())
    assert shown.overlay is not None and shown.patches[0].effect > 0
    image[:4, :4] = 140
    (shown,) = occlusion.explain(image[None], SHAPE, Corner())
    coloured = decoded(shown.overlay or "").astype(int)
    assert shown.patches[0].effect < 0 and (coloured[:4, :4, 0] > coloured[:4, :4, 2]).all()


@pytest.mark.parametrize(("side", "count"), [(1, 1), (7, 1), (12, 3), (28, 7), (33, 8), (224, 8)])
def test_the_parts_cover_an_image_once_and_are_few(side: int, count: int) -> None:
    seen = np.zeros((side, side), int)
    cells = occlusion.grid(side, side)
    for top, left, height, width in cells:
        seen[top : top + height, left : left + width] += 1
    assert len(cells) == count**2 and (seen == 1).all()


def test_a_report_explains_the_first_images_and_shows_all() -> None:
    many = np.stack([corner()] * 20)
    candidate = Corner()
    shown = panels.panels(Evaluated(many, SHAPE, lambda: candidate)).shown(range(20))
    assert [bool(each.overlay) for each in shown.values()] == [True] * 12 + [False] * 8
    assert all(each.thumbnail for each in shown.values())

    def gone() -> Any:
        raise TrainingError("it cannot be loaded")

    assert not panels.panels(Evaluated(many, SHAPE, gone)).shown([3])[3].overlay
    assert panels._affordable((28, 28, 1)) == 12 and panels._affordable((224, 224, 3)) == 2
    assert panels._affordable((4000, 4000, 3)) == 1


def test_an_explanation_is_a_document_of_what_mattered() -> None:
    (found,) = explanations.explained(IMAGES, corner()[None], SHAPE, Corner())
    assert found["overlay"].startswith("data:image/png;base64,")
    effect = pytest.approx(1 - 28 / 255)
    assert found["patches"][0] == {"top": 0, "left": 0, "height": 4, "width": 4, "effect": effect}

    class Storms:
        vocabulary = tokens.fit(["a storm came"], 20)

        def predict(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            sure = np.array([0.9 if "storm" in each else 0.6 for each in inputs])
            return np.stack([1 - sure, sure], axis=1)

    texts = np.array(["a storm came", "nothing"], object)
    first, second = explanations.explained(TEXTS, texts, TextInput(), Storms())
    assert first["text"] == "a storm came"
    effects = {each["text"]: round(each["effect"], 6) for each in first["marks"]}
    assert effects == {"a": 0, "storm": 0.3, "came": 0}
    assert first["marks"][1]["start"] == 2 and first["marks"][1]["end"] == 7
    assert second["marks"][0]["effect"] == 0


def test_a_prediction_that_no_part_changes_says_so_instead_of_a_list_of_zeros() -> None:
    words = [{"text": "storm", "effect": 3e-7}, {"text": "came", "effect": -2e-8}]
    told = "no single word matters: without any one of them the probability changes by less than 0.0001"
    assert predictions._explained({"marks": words}) == [told]
    assert predictions._explained({"marks": [*words, {"text": "a", "effect": 0.3}]})[1:] == [
        "+0.3000  a", "+0.0000  storm", "-0.0000  came",
    ]  # fmt: skip
    patches = [{"top": top, "effect": 0.004} for top in (0, 4)]
    assert predictions._explained({"patches": patches})[0].startswith("no single part of the image matters")


def test_too_many_and_what_has_no_parts_are_refused() -> None:
    assert explanations.explained(IMAGES, np.zeros((0, *SHAPE), np.uint8), SHAPE, Corner()) == []
    with pytest.raises(UsageError, match=r"at most 64.*65"):
        explanations.check(IMAGES, 65)
    with pytest.raises(UsageError, match="cannot be explained"):
        explanations.check(replace(IMAGES, explain=None), 1)


def test_the_command_explains_what_it_predicts(tmp_path: Path) -> None:
    keras().utils.set_random_seed(1)
    store = open_store((tmp_path / "store").as_uri())
    sha256 = small_packages.put_model(store, "v1", cnn.build(ImageModel(filters=(4,), dense=4), SHAPE, 2), SHAPE)
    promoted_by_hand(store, small_packages.PIPELINE, "v1", sha256)
    config = fit_examples.pipeline(name=small_packages.PIPELINE, input=list(SHAPE))
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True)))
    picture(0, (12, 12)).save(tmp_path / "one.png")
    (tmp_path / "two.png").write_bytes(b"no picture")
    given = ("predict", tmp_path / "digits.yaml", tmp_path / "one.png", "--store", store.uri)
    (one, two) = call(*given, tmp_path / "two.png", "--explain", "--json").document
    assert len(one["explanation"]["patches"]) == 9 and decoded(one["explanation"]["overlay"]).shape == (12, 12, 3)
    assert two["error"] and two["explanation"] is None
    (plain,) = call(*given, "--json").document
    assert "explanation" not in plain and plain["label"] == one["label"]
    shown = call(*given, "--explain").out.splitlines()
    assert "in hundredths" in shown[1]
    assert len(shown) == 5 and all(len(line.split()) == 3 for line in shown[2:]), "the effects lie as the parts do"
    refused = call(*given, "--explain", "--output", tmp_path / "out.parquet")
    assert refused.status == 2 and "--explain" in refused.err
    many = call(*given, *[tmp_path / "one.png"] * 64, "--explain")
    assert many.status == 2 and "at most 64" in many.err

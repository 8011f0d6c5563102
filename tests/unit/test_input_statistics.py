"""Numbers of images as the model takes them: what noise is, and what an image may cost."""

from __future__ import annotations

import numpy as np
import pytest

from leptonflow.workloads import catalog
from leptonflow.workloads.image_classification.input_statistics import LOOKED_AT, of


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_the_standard_deviation_of_gaussian_noise(channels: int) -> None:
    random = np.random.default_rng(0)
    one = random.normal(0, 5, (4, 200, 100, 1)) + np.linspace(60, 180, 100)[:, None]  # the same in each channel
    one[:, :, 40:] += 50  # an edge
    pixels = np.repeat(one, channels, axis=3).clip(0, 255).round().astype(np.uint8)
    found = of(pixels, (200, 100, channels))["noise"]
    assert found.shape == (4,) and found == pytest.approx(5, rel=0.1)
    middle = pixels[:, 68 : 68 + LOOKED_AT, 18 : 18 + LOOKED_AT]
    assert (of(middle, (LOOKED_AT, LOOKED_AT, channels))["noise"] == found).all(), "no more of it is looked at"


def test_an_even_image_has_none_and_one_of_few_pixels_no_such_number() -> None:
    even = np.full((2, 8, 8, 3), 255, np.uint8)
    assert of(even, (8, 8, 3))["noise"].tolist() == [0, 0]
    extreme = np.indices((8, 8)).sum(0)[None, ..., None].repeat(4, 3) % 2 * 255
    assert of(extreme.astype(np.uint8), (8, 8, 4))["noise"][0] == pytest.approx(16 * 255 / 2 / (6 * 0.6745), rel=1e-3)
    assert of(even[:, :2], (2, 8, 3)) == {}


def test_what_the_server_computes_is_what_the_reference_has() -> None:
    """One image alone, or among others: the same number, so that a difference is one of the images."""
    workload = catalog.load("image_classification")
    pixels = np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), np.uint8)
    assert workload.input_statistics is not None
    together = workload.input_statistics(pixels, (16, 16, 3))["noise"]
    alone = [workload.input_statistics(each[None], (16, 16, 3))["noise"][0] for each in pixels]
    assert together.tolist() == alone and catalog.load("text_classification").input_statistics is None

"""What every workload must keep, whatever its task: one set of checks, one sample a workload."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from leptonflow.data.validation import contracts
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Workload
from schemas.config import WORKLOADS, Pipeline, parse
from schemas.errors import ConfigurationError

CLASSES = ("a", "b", "c")


def picture(shade: int) -> bytes:
    from PIL import Image

    data = BytesIO()
    Image.fromarray(np.full((40, 30, 3), shade, np.uint8)).save(data, "PNG")
    return data.getvalue()


SAMPLES = {"image_classification": (picture(10), picture(200))}


@pytest.fixture(params=WORKLOADS)
def workload(request: pytest.FixtureRequest) -> Workload:
    return catalog.load(request.param)


@pytest.fixture
def config(workload: Workload) -> Pipeline:
    document = {
        "name": "p", "workload": workload.name, "input": [24, 24, 3],
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}],
    }  # fmt: skip
    return parse(document, where="test", folder=Path())


def test_it_is_frozen_named_and_has_a_contract(workload: Workload, config: Pipeline) -> None:
    assert workload.name in WORKLOADS
    with pytest.raises(dataclasses.FrozenInstanceError):
        workload.name = "other"  # type: ignore[misc]
    assert contracts.read_contract(config)["expectations"]


def test_a_good_example_has_an_id_facts_and_bytes_of_the_input(workload: Workload, config: Pipeline) -> None:
    first, second = SAMPLES[workload.name]
    seen = workload.examine(first, config.input)
    assert seen.rule is None and seen.facts
    assert seen.id is not None and len(seen.id) == 64
    assert seen.encoded is not None and len(seen.encoded) == 24 * 24 * 3
    assert seen == workload.examine(first, config.input)
    assert seen.id == workload.examine(first, (32, 32, 1)).id, "the id knows nothing of the input"
    assert seen.id != workload.examine(second, config.input).id


@pytest.mark.parametrize("data", [b"", b"no example at all", bytes(1000)])
def test_a_bad_example_is_told_and_never_raises(workload: Workload, config: Pipeline, data: bytes) -> None:
    seen = workload.examine(data, config.input)
    assert seen.rule and seen.reason
    assert seen.id is None and seen.encoded is None


def test_what_is_served_is_what_was_trained_on(workload: Workload, config: Pipeline) -> None:
    sample = SAMPLES[workload.name][0]
    assert workload.request(sample, config.input).tobytes() == workload.examine(sample, config.input).encoded


def test_the_model_gives_a_probability_a_class(workload: Workload, config: Pipeline) -> None:
    model = workload.build(config, CLASSES)
    outputs = np.asarray(model(np.zeros((2, *config.input), np.uint8)))
    assert outputs.shape == (2, len(CLASSES))
    assert outputs.sum(axis=1) == pytest.approx(1.0)


def test_scores_are_null_for_a_class_without_examples(workload: Workload) -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    scores = workload.score(np.array([0, 1]), probabilities, CLASSES)
    assert scores["accuracy"] == 1.0
    assert scores["recall[a]"] == 1.0
    assert scores["recall[c]"] is None


def test_an_unknown_name_is_answered_with_the_choices() -> None:
    with pytest.raises(ConfigurationError, match=WORKLOADS[0]):
        catalog.load("nothing")

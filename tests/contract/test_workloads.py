"""What every workload must keep, whatever its task: one set of checks, one sample a workload."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.data.validation import contracts
from leptonflow.training import augmentation
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Evaluated, Workload
from schemas.config import WORKLOADS, Pipeline, parse
from schemas.errors import ConfigurationError, LeptonflowError, TrainingError
from schemas.training import Training
from schemas.workloads import SECTIONS

CLASSES = ("a", "b", "c")


def picture(shade: int) -> bytes:
    from PIL import Image

    data = BytesIO()
    Image.fromarray(np.full((40, 30, 3), shade, np.uint8)).save(data, "PNG")
    return data.getvalue()


# Two good examples and one more of each, and the section `input` with another that changes what is encoded or seen.
SAMPLES = {
    "image_classification": (picture(10), picture(200)),
    "text_classification": (b"rain and hail all day", b"three goals before half time"),
}
INPUTS = {
    "image_classification": ([24, 24, 3], [32, 32, 1]),
    "text_classification": ({"length": 8, "vocabulary": 50}, {"length": 16, "lowercase": False}),
}


@pytest.fixture(params=WORKLOADS)
def workload(request: pytest.FixtureRequest) -> Workload:
    return catalog.load(request.param)


@pytest.fixture
def config(workload: Workload) -> Pipeline:
    document = {
        "name": "p", "workload": workload.name, "input": INPUTS[workload.name][0],
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
    assert seen.encoded is not None
    assert seen == workload.examine(first, config.input)
    other = SECTIONS[workload.name].input.validate_python(INPUTS[workload.name][1])
    assert seen.id == workload.examine(first, other).id, "the id knows nothing of the input"
    assert seen.id != workload.examine(second, config.input).id


@pytest.mark.parametrize("data", [b"", b"\xff\xd8 no example at all", bytes(1000)])
def test_a_bad_example_is_told_and_never_raises(workload: Workload, config: Pipeline, data: bytes) -> None:
    seen = workload.examine(data, config.input)
    assert seen.rule and seen.reason
    assert seen.id is None and seen.encoded is None


def inputs(workload: Workload, config: Pipeline) -> np.ndarray[Any, Any]:
    """The samples as an array of examples."""
    encoded = [workload.examine(sample, config.input).encoded for sample in SAMPLES[workload.name]]
    return workload.codec.stack([each for each in encoded if each is not None], config.input)


def test_what_is_served_is_what_was_trained_on(workload: Workload, config: Pipeline) -> None:
    served = workload.request(SAMPLES[workload.name][0], config.input)
    assert np.array_equal(served, inputs(workload, config)[0])


def test_a_part_holds_an_example_as_it_was_encoded(workload: Workload, config: Pipeline) -> None:
    import pyarrow as pa

    codec, examples = workload.codec, inputs(workload, config)
    raw = codec.raw(examples)
    assert raw == [workload.examine(sample, config.input).encoded for sample in SAMPLES[workload.name]]
    column = pa.array([*raw, *raw], codec.arrow(config.input))
    assert np.array_equal(codec.read(column, config.input)[2:], examples)
    assert np.array_equal(codec.read(column.slice(1, 2), config.input), examples[::-1])
    filled = codec.empty(2, config.input)
    filled[[1, 0]] = examples
    assert np.array_equal(filled[::-1], examples)


def test_the_model_gives_a_probability_a_class(workload: Workload, config: Pipeline) -> None:
    examples = inputs(workload, config)
    vocabulary = workload.vocabulary(examples, config.input) if workload.vocabulary else None
    encoded = workload.encode(examples, vocabulary, config.input)
    outputs = np.asarray(workload.build(config, CLASSES)(encoded))
    assert outputs.shape == (2, len(CLASSES))
    assert outputs.sum(axis=1) == pytest.approx(1.0)


def test_the_model_takes_what_every_augmentation_gives(workload: Workload, config: Pipeline) -> None:
    examples = inputs(workload, config)
    vocabulary = workload.vocabulary(examples, config.input) if workload.vocabulary else None
    encoded = workload.encode(examples, vocabulary, config.input)
    names = SECTIONS[workload.name].augment(config.input)
    section = {"augment": [{name: "both" if name == "flip" else 0.2} for name in names]}
    network = workload.build(config, CLASSES)
    made = augmentation.augmented(network, workload, Training.model_validate(section), seed=1)
    given = [encoded, np.full(2, 0.5, np.float32)] if "mixup" in names else encoded
    changed, same = np.asarray(made(given, training=True)), np.asarray(made(given, training=False))
    assert changed.shape == (2, len(CLASSES)) and changed.sum(axis=1) == pytest.approx(1.0)
    np.testing.assert_allclose(same, np.asarray(network(encoded)), rtol=1e-5)


def test_what_is_no_example_is_refused(workload: Workload, config: Pipeline) -> None:
    examples, wrong = inputs(workload, config), workload.malformed(config.input)
    vocabulary = workload.vocabulary(examples, config.input) if workload.vocabulary else None
    assert wrong.arrays and wrong.bodies
    for array in wrong.arrays.values():
        with pytest.raises(TrainingError, match="does not take these examples"):
            workload.encode(array, vocabulary, config.input)
    for body in wrong.bodies.values():
        with pytest.raises(LeptonflowError):
            workload.request(body, config.input)


def test_a_report_shows_an_example_by_a_thumbnail_or_a_text(workload: Workload, config: Pipeline) -> None:
    examples = inputs(workload, config)
    panels = workload.panels(Evaluated(examples, config.input, lambda: Even(workload, examples, config)))
    found = panels.shown([1, 0])
    assert list(found) == [1, 0]
    assert all((each.thumbnail is None) != (each.text is None) for each in found.values())
    assert all(set(each.of) <= set(range(len(each.values))) and len(each.of) == 2 for each in panels.slices)
    assert all(workload.told(config.input))


class Even:
    """A candidate to which every class is as likely."""

    def __init__(self, workload: Workload, examples: np.ndarray[Any, Any], config: Pipeline) -> None:
        self.vocabulary = workload.vocabulary(examples, config.input) if workload.vocabulary else None

    def predict(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.full((len(inputs), len(CLASSES)), 1 / len(CLASSES))


def test_very_simple_models_have_every_metric(workload: Workload, config: Pipeline) -> None:
    examples, labels = inputs(workload, config), np.array([0, 1])
    found = workload.baselines(examples, labels, examples, labels, CLASSES, 0)
    assert set(found) == set(workload.baseline_words)
    assert all(metrics.keys() == workload.score(labels, np.eye(3)[:2], CLASSES).keys() for metrics in found.values())
    assert workload.target.curve(labels, np.eye(3)[:2])["accuracy"] == 1.0


def test_scores_are_null_for_a_class_without_examples(workload: Workload) -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    scores = workload.score(np.array([0, 1]), probabilities, CLASSES)
    assert scores["accuracy"] == 1.0
    assert scores["recall[a]"] == 1.0
    assert scores["recall[c]"] is None


def test_an_unknown_name_is_answered_with_the_choices() -> None:
    with pytest.raises(ConfigurationError, match=WORKLOADS[0]):
        catalog.load("nothing")

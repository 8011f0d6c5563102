"""What counts as drift: no alarm on resamples of the same data, an alarm where it changed. On real images.

docs/monitoring.md has the figures. The quick ones take the hidden layer of a small network; those with a convolutional
network of the project, and all resamples, are slow.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leptonflow.monitoring.drift_tests import Observed, compare
from leptonflow.statistics import two_samples
from tests import drift_examples
from tests.drift_examples import Seen, alarms, changed, seen

CHANGES = ("brightness", "contrast", "noise", "blur", "jpeg")


@functools.cache
def quick() -> tuple[Any, Any, Any, Seen]:
    """(model, 800 digits that it did not learn from, their labels, what it predicts of them)."""
    from sklearn.neural_network import MLPClassifier

    images, labels = drift_examples.digits()
    trained = MLPClassifier((32,), max_iter=40, random_state=0, tol=0.0)
    with np.errstate(all="ignore"):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has not converged after 40 epochs, nor need it
            trained.fit(images[:997].reshape(997, -1) / 255, labels[:997])

    def model(some: Any) -> tuple[Any, Any]:
        rows = some.reshape(len(some), -1) / 255
        hidden = np.maximum(rows @ trained.coefs_[0] + trained.intercepts_[0], 0)
        return trained.predict_proba(rows), hidden

    return model, images[997:], labels[997:], seen(model, images[997:])


@pytest.mark.parametrize("count", [100, 1000])
def test_resamples_of_the_same_data_are_no_drift(count: int) -> None:
    *_, same = quick()
    assert alarms(same, same, count, 5, held_out=800, all=1600) == 0


@pytest.mark.parametrize("how", CHANGES)
def test_a_change_of_the_images_is_a_drift(how: str) -> None:
    model, images, _, same = quick()
    assert alarms(same, seen(model, changed(images, how)), 1000, 2, held_out=800, all=1600) == 2


def test_a_class_that_comes_twice_as_often_is_a_drift() -> None:
    _, _, labels, same = quick()
    assert alarms(same, same, 1000, 2, np.where(labels == 2, 2.0, 1.0)) == 2


def test_predictions_without_outputs_of_the_same_classes_have_no_test_of_them() -> None:
    *_, same = quick()
    first, second = (same.of(np.arange(100 * part, 100 * part + 100)) for part in (0, 1))
    assert "probabilities" in {test.key for test in compare(first, second)}
    fewer = replace(second, outputs=second.outputs[:, :9])  # type: ignore[index]
    for other in (fewer, replace(second, outputs=None)):
        assert "probabilities" not in {test.key for test in compare(first, other)}


def test_a_difference_too_small_to_matter_is_none_however_large_the_sample() -> None:
    random = np.random.default_rng(0)
    first = Observed({"brightness": random.normal(100, 10, 10_000).tolist()})
    second = Observed({"brightness": random.normal(101, 10, 10_000).tolist()})
    (test,) = compare(first, second)
    assert test.p_value < 1e-6 and not test.drifted and 0.02 < test.effect < 0.1
    assert "from 0.1 on it matters" in test.sentence


def test_columns_that_cannot_be_compared_are_left_out() -> None:
    many = list(range(60))
    same, nothing = [1] * 60, [None] * 60
    first = Observed({"a": many, "same": same, "few": [1, 2], "gone": many, "kind": ["x"] * 60, "none": nothing})
    second = Observed({"a": many, "same": same, "few": many, "new": many, "kind": ["y"] * 60, "none": many})
    found = {test.key: test for test in compare(first, second)}
    assert set(found) == {"metadata.a", "metadata.kind"}
    assert found["metadata.kind"].drifted and not found["metadata.a"].drifted


@functools.cache
def convolutional() -> tuple[Any, Any, Any, Seen]:
    """As `quick`, with the project's small network."""
    from leptonflow.keras_runtime.keras_models import keras
    from leptonflow.registry.onnx_export import with_features
    from leptonflow.workloads.image_classification import cnn
    from schemas.image_classification import ImageModel

    images, labels = drift_examples.digits()
    keras().utils.set_random_seed(0)
    made = cnn.build(ImageModel(filters=(16, 32), dense=64), images.shape[1:], 10)
    made.compile("adam", "sparse_categorical_crossentropy")
    made.fit(images[:997], labels[:997], epochs=40, batch_size=64, verbose=0)
    both = with_features(made)

    def model(some: Any) -> tuple[Any, Any]:
        outputs, features = both.predict(some, verbose=0)
        return np.asarray(outputs, np.float64), features

    return model, images[997:], labels[997:], seen(model, images[997:])


@pytest.mark.slow
@pytest.mark.parametrize("count", [100, 1000, 10_000])
def test_no_alarm_in_95_of_100_resamples(count: int) -> None:
    *_, same = convolutional()
    assert alarms(same, same, count, 100) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("how", CHANGES)
def test_an_alarm_in_95_of_100_resamples_of_changed_images(how: str) -> None:
    model, images, _, same = convolutional()
    assert alarms(same, seen(model, changed(images, how)), 1000, 100) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("digit", [1, 2])
def test_an_alarm_in_95_of_100_resamples_with_one_class_doubled(digit: int) -> None:
    _, _, labels, same = convolutional()
    assert alarms(same, same, 1000, 100, np.where(labels == digit, 2.0, 1.0)) >= 95


def test_the_many_classes_cost_the_other_tests_half_and_are_corrected_for_once() -> None:
    random = np.random.default_rng(0)
    outputs = [random.dirichlet([0.5] * 10, size) for size in (400, 200)]
    values = [random.normal(shift, 1, size) for shift, size in ((0, 400), (0.3, 200))]
    first, second = (
        Observed({"a": each.tolist()}, outputs=rows, confidence=each)
        for each, rows in zip(values, outputs, strict=True)
    )
    found = {test.key: test.p_value for test in compare(first, second)}
    alone = two_samples.numbers(*values).p_value
    assert found["metadata.a"] == found["confidence"] == pytest.approx(2 * 2 * alone)
    assert found["probabilities"] == pytest.approx(min(1, 2 * two_samples.shares(*outputs).p_value))
    (only,) = compare(Observed(confidence=values[0]), Observed(confidence=values[1]))
    assert only.p_value == pytest.approx(alone), "where there are no classes, nothing is kept for them"

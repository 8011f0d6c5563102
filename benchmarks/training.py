"""An epoch of training, feeding included, against Keras's own `fit` of the same model on arrays in memory.

The small CNN of images on 10,000 random images of 32 x 32 x 3, batches of 32 and of 256, plain and with augmentation
(flip and shift, in `fit` the same Keras layers before the model); and images in a file, where those lie that do not fit
into memory, against the same in memory. One process, the two in turns; medians of epochs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import measure
from benchmarks.measure import table

SHIFT = 0.1
CASES = [(32, False, 0.97), (256, False, 1.02), (32, True, 1.0), (256, True, 1.0)]  # batch, augmented, bound
SPOOLED = [(32, 1.10), (256, 1.10)]  # batch, bound
CLASSES = tuple("0123456789")


def ours(images: Any, labels: Any, batch: int, augmented: bool) -> Callable[[int], list[float]]:
    """Seconds of each of so many epochs of a fit, as a run trains."""
    import numpy as np

    from leptonflow.training import epochs
    from leptonflow.training.batches import Material
    from leptonflow.training.workspace import MODEL_LOCK, Workspace
    from leptonflow.workloads import catalog
    from schemas.config import Pipeline

    training: dict[str, Any] = {"epochs": 1, "batch_size": batch}
    if augmented:
        training["augment"] = [{"flip": "horizontal"}, {"shift": SHIFT}]
    config = Pipeline.model_validate({
        "name": "bench", "workload": "image_classification", "input": [32, 32, 3], "training": training,
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.1}],
    })  # fmt: skip
    workload = catalog.load(config.workload)
    everything = np.arange(len(labels))
    nothing = everything[:0]
    of = Material(images, labels, CLASSES, everything, nothing, nothing, [""] * len(labels))
    with MODEL_LOCK:
        models = Workspace().models(workload, config, CLASSES, 0, epochs.steps(config, len(labels)))

    def run(count: int) -> list[float]:
        with MODEL_LOCK:
            found = epochs.run(models, of, workload, config, 0, "bench", count, lambda epoch, values: None)
        return [value.seconds for value in found.values if value.metric == "loss"]

    return run


def keras_fit(images: Any, labels: Any, batch: int, augmented: bool) -> Callable[[int], list[float]]:
    """The same of `fit`, shuffled, on the arrays."""
    import time

    import keras

    layers = keras.layers
    changes = [layers.RandomFlip("horizontal"), layers.RandomTranslation(SHIFT, SHIFT)] if augmented else []
    model = keras.Sequential([
        layers.Input(images.shape[1:], dtype="uint8"), *changes, layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(len(CLASSES), activation="softmax"),
    ])  # fmt: skip
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    one_hot = keras.utils.to_categorical(labels, len(CLASSES))

    def run(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            model.fit(images, one_hot, epochs=1, batch_size=batch, verbose=0)
            seconds.append(time.perf_counter() - began)
        return seconds

    return run


def spooled(images: Any) -> Any:
    """The same images in a file."""
    from leptonflow.core import spools

    return spools.write([images], images.shape[1:], images.dtype)


def compared(
    sides: list[Callable[[int], list[float]]], times: int, epochs: int, count: int
) -> tuple[float, float, float]:
    """(images/s of the first, of the second, ratio of their seconds), in turns."""
    taken: list[list[float]] = [[], []]
    for side in sides:
        side(1)  # traces the step
    for _ in range(times):
        for seconds, side in zip(taken, sides, strict=True):
            seconds += side(epochs)
    mine, theirs = map(statistics.median, taken)
    return count / mine, count / theirs, mine / theirs


def main() -> None:
    given = measure.options(__doc__)
    import numpy as np

    from leptonflow.keras_runtime.keras_models import keras

    keras()
    count = 512 if given.quick else 10_000
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = random.integers(0, len(CLASSES), count)
    rows = []
    for batch, augmented, bound in CASES:
        sides = [make(images, labels, batch, augmented) for make in (ours, keras_fit)]
        what = f"batches of {batch}{', flip and shift' if augmented else ''}"
        rows.append((what, *compared(sides, given.times, 1 if given.quick else 2, count), f"at most {bound}"))
    table(f"An epoch of {count:,} images", ["", "images/s", "fit", "ratio of seconds", "bound"], rows)
    rows = []
    for batch, bound in SPOOLED:
        sides = [ours(given_images, labels, batch, False) for given_images in (spooled(images), images)]
        found = compared(sides, given.times, 1 if given.quick else 2, count)
        rows.append((f"batches of {batch}", *found, f"at most {bound}"))
    table("The same from a file", ["", "images/s", "in memory", "ratio of seconds", "bound"], rows)


if __name__ == "__main__":
    main()

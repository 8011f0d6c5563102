"""Image classification: one image, one of K classes. The classic small CNN, or the user's own model.

Everything that knows about images and classes is here and in `images` beside it: how an example is
read and checked, the Keras model, and scikit-learn's metrics. What does not belong here: where
examples lie, folds, gates. Cost of the default model at 32 x 32 x 3: about 5,000 images/s of
training on two CPU cores.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Derived, Examined, Workload
from leptonflow.workloads.media.image.scale import Scale
from schemas.config import Pipeline
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPTIMIZERS = {
    "adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop", "nadam": "Nadam", "adagrad": "Adagrad",
    "adamax": "Adamax",
}  # fmt: skip


def smallest_side(depth: int) -> int:
    """The smallest height or width for `depth` 3x3 convolutions with a 2x2 maxpool after each but the last."""
    side = 1
    for convolution in range(depth):
        side = (side if convolution == 0 else 2 * side) + 2
    return side


def build(config: Pipeline, classes: Sequence[str]) -> Any:
    """An uncompiled keras.Model: uint8 (N, H, W, C) with values 0..255 -> (N, K) probabilities.

    Normalisation is its first layer, so training and serving cannot differ.
    Raises ConfigurationError where the input is too small for the depth, or the user's function is wrong.
    """
    if config.model.function is not None:
        from leptonflow.workloads import user_model

        return user_model.build(config, classes)
    from leptonflow.keras_runtime.keras_models import keras

    height, width, _ = config.input
    depth, least = len(config.model.filters), smallest_side(len(config.model.filters))
    if min(height, width) < least:
        fits = max(d for d in range(depth) if smallest_side(d) <= min(height, width))
        raise ConfigurationError(
            f"the input is too small for {depth} convolutions",
            expected=f"an input of at least {least} x {least}, or at most {fits} widths in model.filters",
            received=f"input {height} x {width} with model.filters {list(config.model.filters)}",
            hint="Enlarge input, or shorten model.filters",
        )
    layers = keras().layers
    model = keras().Sequential(name="small_cnn")
    model.add(layers.Input(config.input, dtype="uint8", name="image"))
    model.add(layers.Rescaling(1 / 255, name="rescale"))  # (N, H, W, C) float32 in 0..1
    for number, filters in enumerate(config.model.filters, start=1):
        model.add(layers.Conv2D(filters, 3, activation="relu", name=f"conv_{number}"))  # (N, h - 2, w - 2, filters)
        if number < depth:
            model.add(layers.MaxPooling2D(2, name=f"pool_{number}"))  # (N, h // 2, w // 2, filters)
    model.add(layers.Flatten(name="flatten"))
    model.add(layers.Dense(config.model.dense, activation="relu", name="dense"))
    if config.model.dropout > 0:
        model.add(layers.Dropout(config.model.dropout, name="dropout"))
    model.add(layers.Dense(len(classes), activation="softmax", name="probabilities"))  # (N, K)
    return model


def compile(model: Any, config: Pipeline) -> None:
    """Categorical cross-entropy over one-hot targets, and the optimiser of the YAML."""
    from leptonflow.keras_runtime.keras_models import jit, keras

    optimizer = getattr(keras().optimizers, OPTIMIZERS[config.training.optimizer])
    model.compile(
        optimizer=optimizer(learning_rate=config.training.learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit(),
    )


def targets(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """N class numbers -> N x K one-hot rows."""
    import numpy as np

    rows = np.zeros((len(labels), classes), np.float32)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def score(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> dict[str, float | None]:
    """scikit-learn's metrics of N true class numbers against N x K probabilities.

    accuracy and log_loss; precision, recall and f1 of each class (`recall[cat]`) and their unweighted
    mean. A class without examples has null, and the means cover the others; a class that is never
    predicted has precision 0. Where a probability is not a finite number, every metric is null.
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

    names = ("precision", "recall", "f1")
    if len(labels) == 0 or not np.isfinite(probabilities).all():
        nothing: dict[str, float | None] = dict.fromkeys(("accuracy", *names, "log_loss"))
        return nothing | {f"{name}[{label}]": None for name in names for label in classes}
    numbers = np.arange(len(classes))
    rows = probabilities / probabilities.sum(axis=1, keepdims=True)  # float32's rounding would raise a warning
    predicted = rows.argmax(axis=1)
    *per_class, support = precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=0)
    present = support > 0
    found: dict[str, float | None] = {"accuracy": float(accuracy_score(labels, predicted))}
    found |= {name: float(values[present].mean()) for name, values in zip(names, per_class, strict=True)}
    found["log_loss"] = float(log_loss(labels, rows, labels=numbers))
    for name, values in zip(names, per_class, strict=True):
        for number, label in enumerate(classes):
            found[f"{name}[{label}]"] = float(values[number]) if present[number] else None
    return found


def remarks(facts: Sequence[Mapping[str, Any]], shape: tuple[int, int, int]) -> list[str]:
    """Whether most images are smaller than the input, which shows no more of them and takes longer."""
    height, width, _ = shape
    sizes = [(fact["width"], fact["height"]) for fact in facts if {"width", "height"} <= fact.keys()]
    small = [size for size in sizes if size[0] < width and size[1] < height]
    if not small or 2 * len(small) <= len(sizes):
        return []
    (wide, high), _ = Counter(small).most_common(1)[0]
    return [
        f"{len(small)} of {len(sizes)} images are smaller than the input of {height} x {width} and are enlarged to it, "
        f"most often from {high} x {wide}: a smaller `input` in the YAML shows as much and trains faster"
    ]


def _examine(data: bytes, shape: tuple[int, int, int]) -> Examined:
    from leptonflow.workloads.media.image import example

    return example.examine(data, shape)


def _examine_array(row: NDArray[Any], shape: tuple[int, int, int], source: Scale) -> Examined:
    from leptonflow.workloads.media.image import example

    return example.examine_array(row, shape, source)


def _encode_accepted(data: bytes, shape: tuple[int, int, int]) -> bytes | None:
    from leptonflow.workloads.media.image import example

    return example.encode_accepted(data, shape)


def _request(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    from leptonflow.workloads.media.image import example

    return example.request(data, shape)


WORKLOAD = Workload(
    name="image_classification",
    preprocessing_version=1,
    checks_version=2,
    contract="image_classification.contract.yaml",
    examine=_examine,
    examine_array=_examine_array,
    build=build,
    compile=compile,
    targets=targets,
    score=score,
    encode_accepted=_encode_accepted,
    request=_request,
    remarks=remarks,
    derived={"size": Derived(("width", "height"), operator.mul)},  # pixels of the image as it arrived
)

"""The weights that a final fit starts with, of another model: layers matched by name and shape.

Which model that is, is decided when the run is planned (registry.ancestry). Folds never start with them: a champion has
learned from the examples that a fold holds out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import declared_files
from leptonflow.core.hashing import sha256
from leptonflow.core.store_keys import package_key
from leptonflow.keras_runtime import keras_models
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from leptonflow.workloads import user_model
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, Damaged
from schemas.starting import Start, Started

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHOWN = 10  # mismatches that an error names
Arrays = list["NDArray[np.float32]"]


class Weights(NamedTuple):
    """What a fit starts with: the arrays of each layer that it takes, by name, and what is recorded of it."""

    taken: Mapping[str, Arrays]
    started: Started

    def assign(self, model: Any) -> None:
        """Put them into a model of the plan, as it was just built."""
        for name, layer in layers(model):
            if name in self.taken:
                layer.set_weights(self.taken[name])


def matched(store: Store, config: Pipeline, start: Start, model: Any, classes: Sequence[str]) -> Weights:
    """The weights of `start` for the plan's model, whose outputs are these classes.

    Raises ConfigurationError where no layer matches, Damaged where the file is not what was recorded.
    """
    theirs = dict(layers(keras_models.load(_bytes(store, config, start), user_model.objects(config))))
    mine = dict(layers(model))
    output = next(reversed(mine), None) if start.classes is not None and start.classes != tuple(classes) else None
    taken, mismatches = {}, []
    for name, layer in mine.items():
        if name not in theirs:
            mismatches.append(f"{name} is not in {start.name}")
        elif _shapes(theirs[name]) != _shapes(layer):
            mismatches.append(f"{name} is {_told(theirs[name])} in {start.name} and {_told(layer)} here")
        elif name == output:
            mismatches.append(f"{name} is of other classes in {start.name}")
        else:
            taken[name] = theirs[name].get_weights()
    mismatches += [f"{name} is only in {start.name}" for name in theirs if name not in mine]
    if not taken:
        raise _nothing(config, start, mismatches)
    return Weights(
        taken,
        Started(
            version=start.version, file=start.file, sha256=start.sha256, layers=len(taken), of=len(mine),
            mismatches=tuple(mismatches),
        ),
    )  # fmt: skip


def sentences(started: Started, name: str) -> list[str]:
    """What a person is told of it, a line each: how many layers, and every mismatch."""
    taken = f"{started.layers} of {started.of} layers"
    first = f"the final fit starts with {taken} from {name}; the folds start from scratch"
    return [first, *(f"start_from: {each}" for each in started.mismatches)]


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Each layer with weights, in order, by a name that does not depend on what the process built before.

    A model within it adds its own name and a slash. A layer without a name of its own, which Keras then numbers
    through the whole process, is called by its class and its place among those: dense, dense_2.
    """
    yield from _layers(model, "")


def _layers(model: Any, start: str) -> Iterator[tuple[str, Any]]:
    counts: Counter[str] = Counter()
    for layer in model.layers:
        name = layer.name
        plain = re.sub(r"_\d+$", "", name)
        if plain.replace("_", "") == type(layer).__name__.lower():
            counts[plain] += 1
            name = plain if counts[plain] == 1 else f"{plain}_{counts[plain]}"
        if getattr(layer, "layers", None):
            yield from _layers(layer, f"{start}{name}/")
        elif layer.weights:
            yield f"{start}{name}", layer


def _shapes(layer: Any) -> list[tuple[int, ...]]:
    return [tuple(each.shape) for each in layer.weights]


def _told(layer: Any) -> str:
    return " + ".join("x".join(map(str, shape)) or "1" for shape in _shapes(layer))


def _bytes(store: Store, config: Pipeline, start: Start) -> bytes:
    """The model's file, held against its recorded sha256."""
    if start.version is not None:
        return recorded(store, package_key(config.name, start.version, "model.keras"), start.sha256)
    data = declared_files.declared(config)[start.file or ""].read_bytes()
    if sha256(data) != start.sha256:
        raise Damaged(
            f"{start.file} changed since the run was planned", expected=f"sha256 {start.sha256}",
            received=f"sha256 {sha256(data)}", hint="Run the same command again: it starts from the file as it is now",
        )  # fmt: skip
    return data


def _nothing(config: Pipeline, start: Start, mismatches: Sequence[str]) -> ConfigurationError:
    more = f" and {len(mismatches) - SHOWN} more" if len(mismatches) > SHOWN else ""
    return ConfigurationError(
        f"training.start_from: no layer matches {start.name}",
        expected="a layer with weights of the same name and shape in both models",
        received=f"{'; '.join(mismatches[:SHOWN]) or 'a model without weights'}{more}",
        hint=f"Set start_from: scratch (it is {config.training.start_from}), or keep the model as it was",
    )

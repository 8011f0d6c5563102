"""What an ML task must bring: a frozen record of functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.config import Pipeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.workloads.media.image.scale import Scale


class Examined(NamedTuple):  # one for each example: a dataclass takes three times as long to make
    """One raw example after a look at it: a rule and reason where it is refused, else id, facts, pixels.

    id      sha256 (hex) of the canonical content, before resizing: the same in whatever file it comes
    facts   plain numbers and strings about the example (width, height, channels, format, brightness, ...)
    encoded the train-ready bytes (uint8, height x width x channels of the pipeline's input)
    note    what a person should know of an example that is accepted, such as which page was taken
    """

    rule: str | None
    reason: str | None
    id: str | None = None
    facts: dict[str, Any] | None = None
    encoded: bytes | None = None
    note: str | None = None


class Derived(NamedTuple):
    """A fact that is not recorded: `value` of the recorded facts that it `needs`, in their order."""

    needs: tuple[str, ...]
    value: Callable[..., float]

    def of(self, facts: Mapping[str, Any]) -> float | None:
        """The fact of one example; None where it lacks one that is needed."""
        given = [facts.get(name) for name in self.needs]
        return None if None in given else self.value(*given)


@dataclass(frozen=True)
class Workload:
    """An ML task as functions. Shapes: N examples, H x W x C input, K classes."""

    name: str
    preprocessing_version: int
    checks_version: int
    contract: str  # the default contract's file name under schemas/
    examine: Callable[[bytes, tuple[int, int, int]], Examined]  # a file's bytes -> Examined
    examine_array: Callable[[NDArray[Any], tuple[int, int, int], Scale], Examined]
    # ^ one row of a .npy array (H x W [x C]), and the scale of the whole array
    encode_accepted: Callable[[bytes, tuple[int, int, int]], bytes | None]
    # ^ the bytes of a file that was accepted when less was checked -> encoded; None where there is no room
    build: Callable[[Pipeline, Sequence[str]], Any]  # -> an uncompiled keras.Model, N x H x W x C -> N x K
    compile: Callable[[Any, Pipeline], None]  # loss and optimiser
    targets: Callable[[NDArray[np.int64], int], NDArray[np.float32]]  # N class numbers -> N x K
    score: Callable[[NDArray[np.int64], NDArray[np.float64], Sequence[str]], dict[str, float | None]]
    # ^ N true class numbers, N x K probabilities -> metrics; null for a class without examples
    baselines: Callable[..., dict[str, dict[str, float | None]]]
    # ^ (training examples, labels, holdout examples, labels, classes, seed) -> name: metrics of very simple models
    request: Callable[[bytes, tuple[int, int, int]], NDArray[np.uint8]]  # a served file -> H x W x C
    remarks: Callable[[Sequence[Mapping[str, Any]], tuple[int, int, int]], list[str]]
    # ^ the facts of examples, the input -> what a person should know before they are trained on
    derived: Mapping[str, Derived] = field(default_factory=dict)  # facts that follow from the recorded ones

"""When a fit ends before its last epoch: by a metric of some of its own training examples, which are held back for it.

Neither the fold nor the holdout is looked at: their numbers stay those of examples that decided nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.keras_runtime import keras_models
from leptonflow.workloads.base import Workload
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, TrainingError
from schemas.records import FitResult
from schemas.training import EarlyStopping
from schemas.workloads import SECTIONS, lower_is_better

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]


def parted(
    given: EarlyStopping, kept: Numbers, labels: NDArray[Any], groups: Sequence[str] | None, seed: int
) -> tuple[Numbers, Numbers]:
    """(learned from, held back) of the examples `kept` of a fit; a group lies in one of the two.

    Stratified where the labels are class numbers and there are no groups. Raises ConfigurationError where there are
    too few.
    """
    import numpy as np
    from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit

    own, of = labels[kept], None if groups is None else [groups[number] for number in kept]
    kind = StratifiedShuffleSplit if own.dtype.kind == "i" else ShuffleSplit
    splitter = (kind if of is None else GroupShuffleSplit)(1, test_size=given.fraction, random_state=seed)
    try:
        learned, watched = next(splitter.split(np.zeros(len(own)), own, of))
    except ValueError as error:
        unit = "examples" if of is None else "groups"
        raise ConfigurationError(
            f"training.early_stopping cannot hold back {given.fraction:g} of the {unit} of a fit",
            expected=f"some {unit} to learn from and some to hold back, of each class",
            received=f"{len(own) if of is None else len(set(of))} {unit}: {str(error).splitlines()[0]}",
            hint="Change the fraction, or ingest more",
        ) from None
    return kept[np.sort(learned)], kept[np.sort(watched)]


class Watch:
    """Keras's EarlyStopping on the examples that were held back: one for each fit."""

    def __init__(self, given: EarlyStopping, config: Pipeline, model: Any) -> None:
        """model: the one that is evaluated. It has the weights of the best epoch after `end`. callback: Keras's."""
        self.metric = given.metric or SECTIONS[config.workload].metrics.names[0]
        self.mode = "min" if lower_is_better(self.metric) else "max"
        self._model = model
        self.callback = keras_models.keras().callbacks.EarlyStopping(
            "value", patience=given.patience, mode=self.mode, restore_best_weights=True
        )
        model.stop_training = False
        self.callback.set_model(model)
        self.callback.on_train_begin()

    def value(self, workload: Workload, labels: NDArray[Any], outputs: NDArray[Any], classes: Sequence[str]) -> float:
        """The metric. Raises ConfigurationError where it has no value, as the recall of a class without examples."""
        found = workload.score(labels, outputs, classes)[self.metric]
        if found is None:
            raise ConfigurationError(
                f"training.early_stopping.metric {self.metric} has no value",
                expected="a metric of the examples that are held back",
                received=f"{len(labels)} examples for which it is not defined",
                hint="Raise training.early_stopping.fraction, or name another metric",
            )
        return found

    def ends(self, epoch: int, value: float) -> bool:
        """Whether the fit ends with this epoch, counted from 1."""
        self.callback.on_epoch_end(epoch - 1, {"value": value})
        return self.ended

    @property
    def ended(self) -> bool:
        """Whether an epoch has ended the fit, in this process or in the one whose checkpoint it goes on from."""
        return bool(self.callback.stopped_epoch)

    def end(self) -> int:
        """The best epoch, whose weights the model has from now on."""
        self.callback.on_train_end()
        return int(self.callback.best_epoch) + 1


def median_epoch(fits: Sequence[FitResult | None]) -> int:
    """The median of the folds' best epochs, rounded up. Raises TrainingError where a fold is not finished."""
    best = [fit.best_epoch for fit in fits if fit is not None and fit.best_epoch is not None]
    if len(best) < len(fits):
        raise TrainingError(
            "the final fit needs the best epoch of every fold",
            expected=f"{len(fits)} finished folds",
            received=str(len(best)),
            hint="Train the folds first",
        )
    return math.ceil(statistics.median(best))

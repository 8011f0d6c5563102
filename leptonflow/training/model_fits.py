"""Fits: each fold with its out-of-fold predictions, then the final fit on all training examples.

Receives a Workload by name and never names one. A fit's manifest is written last, and a fit whose
manifest lies on the store is returned as it is. What does not belong here: the package (packages),
the holdout (evaluation) and any judgement (gate).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.core import progress
from leptonflow.core.hashing import digest, sha256
from leptonflow.core.store_keys import fit_key
from leptonflow.data.dataset import holdout_split
from leptonflow.keras_runtime import keras_models
from leptonflow.storage.objects import adopt, steady
from leptonflow.storage.store import Store
from leptonflow.training.workspace import MODEL_LOCK, Workspace, copy_variables
from leptonflow.workloads import catalog, predictions
from leptonflow.workloads.base import Workload
from schemas.config import Pipeline
from schemas.errors import TrainingError
from schemas.records import EpochValue, FitResult, ObjectRef, Plan, SnapshotRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A learning curve needs no more of the fold than this; all of it after each epoch would cost 15% of the fit.
CURVE_EXAMPLES = 256


def seed(training_seed: int, stage: str, fold: int | None) -> int:
    """The 31-bit seed of one fit: digest(training.seed, stage, fold)."""
    return int(digest(training_seed, stage, fold)[:8], 16) & 0x7FFFFFFF


def fit_result(store: Store, pipeline: str, version: str, fold: int | None) -> FitResult | None:
    """The finished fit of that fold (None: the final fit), or None where it is not finished."""
    key = fit_key(pipeline, version, fold, "manifest.json")
    if store.size(key) is None:
        return None
    return FitResult.model_validate_json(steady(store, key))


def train_fold(
    store: Store, config: Pipeline, plan: Plan, fold: int, workspace: Workspace | None = None
) -> FitResult:
    """Train on all folds but this one and predict this one: fold-<k>/oof.parquet, then manifest.json.

    workspace: the plan's in this process, by default one of this fit's own.
    Returns what lies there where the fold is finished. Raises TrainingError where the loss is not finite.
    """
    version, snapshot = planned(plan)
    done = fit_result(store, config.name, version, fold)
    if done is not None:
        return _reused(done, f"fold {fold + 1}")
    workload = catalog.load(config.workload)
    workspace = workspace or Workspace()
    examples = workspace.examples(store, config, snapshot)
    numbers = holdout_split.folds(examples.labels, config.training.folds, config.training.seed, examples.groups)
    kept, held = (numbers != fold).nonzero()[0], (numbers == fold).nonzero()[0]
    started = time.perf_counter()
    vocabulary = workload.vocabulary(examples.inputs[kept], config.input) if workload.vocabulary else None
    encoded = workload.encode(examples.inputs, vocabulary, config.input)
    with MODEL_LOCK:
        start = seed(config.training.seed, "fold", fold)
        model = workspace.model(workload, config, snapshot.classes, start)
        epochs = _fit(
            model, encoded, examples.labels, kept, held,
            workload=workload, config=config, classes=len(snapshot.classes), start=start, stage=f"fold {fold + 1}",
        )  # fmt: skip
        probabilities = _finite(keras_models.predict(model, encoded[held]))
    labels = examples.labels[held]
    ids, sources = ([of[i] for i in held] for of in (examples.ids, examples.sources))
    groups = None if examples.groups is None else [examples.groups[i] for i in held]
    mine = predictions.write(workload.target, ids, labels, probabilities, snapshot.classes, fold, sources, groups)
    key = fit_key(config.name, version, fold, "oof.parquet")
    lies_there = adopt(store, key, mine)
    if lies_there != mine:  # another writer's, whose numbers are the fold's
        _, labels, probabilities = predictions.read(workload.target, lies_there, snapshot.classes)
    result = FitResult(
        version=version,
        fold=fold,
        metrics=workload.score(labels, probabilities, snapshot.classes),
        epochs=epochs,
        files=(ObjectRef(key=key, sha256=sha256(lies_there), bytes=len(lies_there)),),
        seconds=time.perf_counter() - started,
        examples=len(kept),
    )
    return _commit(store, config.name, result)


def fit_final(store: Store, config: Pipeline, plan: Plan, workspace: Workspace | None = None) -> FitResult:
    """Train on all training examples: final/model.keras (and vocabulary.json), then manifest.json.

    As `train_fold` otherwise.
    """
    import numpy as np

    version, snapshot = planned(plan)
    done = fit_result(store, config.name, version, None)
    if done is not None:
        return _reused(done, "final fit")
    workload = catalog.load(config.workload)
    workspace = workspace or Workspace()
    examples = workspace.examples(store, config, snapshot)
    started = time.perf_counter()
    vocabulary = workload.vocabulary(examples.inputs, config.input) if workload.vocabulary else None
    encoded = workload.encode(examples.inputs, vocabulary, config.input)
    with MODEL_LOCK:
        start = seed(config.training.seed, "final", None)
        model = workspace.model(workload, config, snapshot.classes, start)
        everything = np.arange(len(examples.labels))
        epochs = _fit(
            model, encoded, examples.labels, everything, everything[:0],
            workload=workload, config=config, classes=len(snapshot.classes), start=start, stage="final fit",
        )  # fmt: skip
        _finite(keras_models.predict(model, encoded[:1]))
        bare = workload.build(config, snapshot.classes)  # uncompiled: a package needs no optimiser
        copy_variables(model.variables, bare.variables)
        data = keras_models.save(bare)
    made = {"model.keras": data} | ({"vocabulary.json": vocabulary.encode()} if vocabulary is not None else {})
    files = []
    for name, each in made.items():
        key = fit_key(config.name, version, None, name)
        lies_there = adopt(store, key, each)
        files.append(ObjectRef(key=key, sha256=sha256(lies_there), bytes=len(lies_there)))
    result = FitResult(
        version=version,
        fold=None,
        metrics={},
        epochs=epochs,
        files=tuple(files),
        seconds=time.perf_counter() - started,
        examples=len(examples.labels),
    )
    return _commit(store, config.name, result)


def planned(plan: Plan) -> tuple[str, SnapshotRef]:
    """The version and the snapshot of a plan that has both. Raises TrainingError."""
    if plan.version is None or plan.snapshot is None:
        raise TrainingError(
            "there is nothing to train on yet",
            expected="a plan with a snapshot and a version",
            received=f"the pipeline {plan.pipeline} without a dataset of the current preprocessing",
            hint="`leptonflow ingest` adds a batch",
        )
    return plan.version, plan.snapshot


def _reused(done: FitResult, what: str) -> FitResult:
    progress.note(f"{what} reused: same data, same config, same code")
    return done


def _commit(store: Store, pipeline: str, result: FitResult) -> FitResult:
    key = fit_key(pipeline, result.version, result.fold, "manifest.json")
    return FitResult.model_validate_json(adopt(store, key, result.model_dump_json().encode()))


def _fit(
    model: Any,
    encoded: NDArray[Any],
    labels: NDArray[np.int64],
    kept: NDArray[np.int64],
    held: NDArray[np.int64],
    *,
    workload: Workload,
    config: Pipeline,
    classes: int,
    start: int,
    stage: str,
) -> tuple[EpochValue, ...]:
    """Train on encoded[kept] and follow the curve on a sample of encoded[held]; the values of each epoch.

    The order of the examples depends on the seed and the epoch alone, and never on what the process
    did before. Batches are gathered from the one array, so a fold costs no copy of its examples.
    """
    import numpy as np

    size, count = config.training.batch_size, len(kept)
    curve = held[:CURVE_EXAMPLES]  # by id, which is a digest: a fair sample
    values: list[EpochValue] = []
    for epoch in range(1, config.training.epochs + 1):
        began = time.perf_counter()
        order = kept[np.random.default_rng([start, epoch]).permutation(count)]
        sums: dict[str, float] = {}
        for first in range(0, count, size):
            batch = order[first : first + size]
            logs = model.train_on_batch(encoded[batch], workload.target.fit(labels[batch], classes), return_dict=True)
            for name, value in logs.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
            progress.report(stage, (epoch - 1) * count + first + len(batch), config.training.epochs * count)
        found = {name: sums[name] / count for name in sorted(sums, key=lambda name: name != "loss")}
        _finite(np.asarray([*sums.values()]))
        for variable in model.trainable_variables:  # relu hides a NaN from the loss, depending on the backend
            _finite(np.asarray(keras_models.keras().ops.convert_to_numpy(variable)))
        if len(curve):
            rows = _finite(keras_models.predict(model, encoded[curve]))
            found |= {f"val_{name}": value for name, value in workload.target.curve(labels[curve], rows).items()}
        seconds = time.perf_counter() - began
        values += [
            EpochValue(epoch=epoch, metric=name, value=float(value), seconds=seconds) for name, value in found.items()
        ]
    return tuple(values)


def _finite(numbers: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    if not np.isfinite(numbers).all():
        raise TrainingError(
            "the training diverged: a loss or a weight is not a finite number",
            expected="a loss that falls",
            received="NaN or infinity",
            hint="Lower training.learning_rate, for example to a tenth, or choose the optimizer adam",
        )
    return numbers


def cross_validation(fits: Sequence[FitResult]) -> dict[str, dict[str, Any]]:
    """Each metric over the folds: {"mean", "std", "folds"}, in the order of the folds.

    std is the sample's (ddof 1). A fold whose metric is null is left out of both; null where none is left.
    """
    ordered = sorted((f for f in fits if f.fold is not None), key=lambda f: f.fold or 0)
    found: dict[str, dict[str, Any]] = {}
    for metric in ordered[0].metrics if ordered else ():
        folds = [f.metrics[metric] for f in ordered]
        known = [value for value in folds if value is not None]
        found[metric] = {
            "mean": statistics.fmean(known) if known else None,
            "std": statistics.stdev(known) if len(known) > 1 else None,
            "folds": folds,
        }
    return found

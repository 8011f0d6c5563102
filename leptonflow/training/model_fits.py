"""Fits: each fold with its out-of-fold predictions, then the final fit on all training examples.

Receives a Workload by name and never names one. A fit's manifest is written last, and a fit whose
manifest lies on the store is returned as it is. What does not belong here: the package (packages),
the holdout (evaluation) and any judgement (gate).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import accelerators, progress
from leptonflow.core.hashing import digest, sha256
from leptonflow.core.store_keys import fit_key
from leptonflow.data.dataset import holdout_split
from leptonflow.keras_runtime import device_memory, devices, keras_models
from leptonflow.storage.objects import adopt, steady
from leptonflow.storage.store import Store
from leptonflow.training import class_weights, early_stopping, epochs, event_files
from leptonflow.training.batches import Material
from leptonflow.training.checkpoints import Keeper
from leptonflow.training.fit_state import FitPlace
from leptonflow.training.workspace import MODEL_LOCK, Workspace, copy_variables, untrained
from leptonflow.workloads import catalog, predictions, user_model
from schemas import own_model
from schemas.config import Pipeline
from schemas.errors import TrainingError
from schemas.records import FitResult, ObjectRef, Plan, SnapshotRef
from schemas.starting import Started

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.data.dataset.example_sets import Examples


def seed(training_seed: int, stage: str, fold: int | None) -> int:
    """The 31-bit seed of one fit: digest(training.seed, stage, fold)."""
    return int(digest(training_seed, stage, fold)[:8], 16) & 0x7FFFFFFF


def fit_result(store: Store, pipeline: str, version: str, fold: int | None) -> FitResult | None:
    """The finished fit of that fold (None: the final fit), or None where it is not finished."""
    key = fit_key(pipeline, version, fold, "manifest.json")
    if store.size(key) is None:
        return None
    return FitResult.model_validate_json(steady(store, key))


def train_fold(store: Store, config: Pipeline, plan: Plan, fold: int, workspace: Workspace | None = None) -> FitResult:
    """Train on all folds but this one and predict this one: fold-<k>/oof.parquet, then manifest.json.

    workspace: the plan's in this process, by default one of this fit's own.
    Returns what lies there where the fold is finished. Raises TrainingError where the loss is not finite.
    """
    version, snapshot = planned(plan)
    progress.pulse()
    done = fit_result(store, config.name, version, fold)
    if done is not None:
        return _reused(done, f"fold {fold + 1}")
    workload = catalog.load(config.workload)
    workspace = workspace or Workspace()
    examples = workspace.examples(store, config, snapshot)
    numbers = holdout_split.folds(examples.labels, config.training.folds, config.training.seed, examples.groups)
    kept, held = (numbers != fold).nonzero()[0], (numbers == fold).nonzero()[0]
    keeper, started = _keeper(store, config, plan, fold), time.perf_counter()
    with _computing(config):
        made = _learned(store, workspace, config, plan, examples, kept, held, fold, keeper)
        probabilities = epochs.finite(keras_models.predict(made.model, made.encoded, held))
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
        epochs=made.course.values,
        files=(ObjectRef(key=key, sha256=sha256(lies_there), bytes=len(lies_there)),),
        seconds=time.perf_counter() - started + made.course.before,
        examples=len(kept),
        best_epoch=made.course.best,
        precision=_precision(config),
        cost=made.course.cost,
    )
    return _commit(store, config.name, result, keeper)


def fit_final(
    store: Store, config: Pipeline, plan: Plan, workspace: Workspace | None = None, origin: Store | None = None
) -> FitResult:
    """Train on all training examples: final/model.keras (and vocabulary.json), then manifest.json.

    origin: the store with the folds' manifests, which `final_epochs: folds_median` needs; by default `store`.
    Otherwise as `train_fold`.
    """
    import numpy as np

    version, snapshot = planned(plan)
    done = fit_result(store, config.name, version, None)
    if done is not None:
        return _reused(done, "final fit")
    most = None
    if config.training.final_epochs == "folds_median":
        numbers = range(config.training.folds)
        most = early_stopping.median_epoch([fit_result(origin or store, config.name, version, n) for n in numbers])
    workspace = workspace or Workspace()
    examples = workspace.examples(store, config, snapshot)
    keeper, started = _keeper(store, config, plan, None), time.perf_counter()
    with _computing(config):
        everything = np.arange(len(examples.labels))
        made = _learned(store, workspace, config, plan, examples, everything, everything[:0], None, keeper, most)
        epochs.finite(keras_models.predict(made.model, made.encoded[:1]))
        bare = untrained(catalog.load(config.workload), config, snapshot.classes)
        copy_variables(made.model.variables, bare.variables)
        data = keras_models.save(bare)
    vocabulary = {} if made.vocabulary is None else {"vocabulary.json": made.vocabulary.encode()}
    files = []
    for name, each in {"model.keras": data, **vocabulary}.items():
        key = fit_key(config.name, version, None, name)
        lies_there = adopt(store, key, each)
        files.append(ObjectRef(key=key, sha256=sha256(lies_there), bytes=len(lies_there)))
    result = FitResult(
        version=version,
        fold=None,
        metrics={},
        epochs=made.course.values,
        files=tuple(files),
        seconds=time.perf_counter() - started + made.course.before,
        examples=len(examples.labels),
        best_epoch=made.course.best,
        precision=_precision(config),
        cost=made.course.cost,
        start=made.start,
    )
    return _commit(store, config.name, result, keeper)


@contextmanager
def _computing(config: Pipeline) -> Iterator[None]:
    """One fit at a time, on its devices, with the operations that it may use."""
    with (
        MODEL_LOCK,
        user_model.blamed(config),
        keras_models.deterministic(config.training.deterministic),
        devices.chosen(config.training),
        device_memory.enough(config.training),
    ):
        yield


class _Learned(NamedTuple):
    """A model that was trained, and what it was trained with. encoded: all training examples, as it takes them."""

    model: Any
    course: epochs.Course
    encoded: NDArray[Any]
    vocabulary: str | None
    start: Started | None


def _learned(
    store: Store,
    workspace: Workspace,
    config: Pipeline,
    plan: Plan,
    examples: Examples,
    kept: NDArray[np.int64],
    held: NDArray[np.int64],
    fold: int | None,
    keeper: Keeper,
    most: int | None = None,
) -> _Learned:
    """The plan's model, trained on `kept`, its curve followed on `held`. Hold MODEL_LOCK.

    most: the number of epochs, where that is not for the YAML or early stopping to say.
    """
    version, snapshot = planned(plan)
    workload, training = catalog.load(config.workload), config.training
    vocabulary = workload.vocabulary(examples.inputs[kept], config.input) if workload.vocabulary else None
    encoded = workload.encode(examples.inputs, vocabulary, config.input)
    start = seed(training.seed, "final" if fold is None else "fold", fold)
    learned, watched = kept, kept[:0]
    if training.early_stopping is not None and most is None:
        learned, watched = early_stopping.parted(training.early_stopping, kept, examples.labels, examples.groups, start)
    weights = class_weights.weights(training, examples.labels[learned], snapshot.classes)
    begun = workspace.start(store, workload, config, plan)  # asked for by folds too: nothing is trained in vain
    begun = begun if fold is None else None
    if fold is None and begun is None and training.start_from != "scratch":
        progress.note("start_from: there was no champion before this snapshot, so the final fit starts from scratch")
    models = workspace.models(workload, config, snapshot.classes, start, epochs.steps(config, len(learned)), begun)
    material = Material(encoded, examples.labels, snapshot.classes, learned, held, watched, examples.sources, weights)
    with event_files.opened(config, version, fold) as tell, keeper.guarding():
        most = most or training.epochs
        course = epochs.run(models, material, workload, config, start, keeper.stage, most, tell, keeper)
    return _Learned(models.model, course, encoded, vocabulary, begun and begun.started)


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


def _precision(config: Pipeline) -> str | None:
    """What the fit computed in, where the YAML says more than the default."""
    return None if config.training.precision == "float32" else accelerators.precision(config.training)


def _reused(done: FitResult, what: str) -> FitResult:
    progress.note(f"{what} reused: same data, same config, same code")
    return done


def _commit(store: Store, pipeline: str, result: FitResult, keeper: Keeper) -> FitResult:
    key = fit_key(pipeline, result.version, result.fold, "manifest.json")
    committed = FitResult.model_validate_json(adopt(store, key, result.model_dump_json().encode()))
    keeper.clear()
    return committed


def _keeper(store: Store, config: Pipeline, plan: Plan, fold: int | None) -> Keeper:
    whole = "callbacks" not in own_model.functions(config.model)
    place = FitPlace(store, config.name, planned(plan)[0], plan.run_id, fold)
    return Keeper(place, config.training.checkpoint.minutes, whole)


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
